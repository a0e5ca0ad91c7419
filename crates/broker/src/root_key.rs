use anyhow::Context as _;
use domain::RootName;

use crate::config::Config;

/// Adds a root key to the key file of `[kms]`, or of one of `[[kms_roots]]`, and says which version it
/// is. Brokers use it from their next start on, and go on opening what is under those before it.
///
/// # Errors
/// When the root key is not in a file, or the file cannot be used. It is as it was then.
pub fn add_root_key(config: &Config, root: Option<&RootName>) -> anyhow::Result<u32> {
    let kms = match root {
        None => &config.kms,
        Some(name) => {
            let named = config.kms_roots.iter().find(|root| root.name == *name);
            &named.with_context(|| format!("[[kms_roots]] has no `{name}`"))?.kms
        }
    };
    Ok(kms.add_root_key()?)
}
