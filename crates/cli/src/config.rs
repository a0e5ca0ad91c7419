use std::{
    env,
    path::{Path, PathBuf},
};

use setup::Layout;
use strongroom_client::ClientConfig;

use crate::{failure::Failure, files};

/// Reads the configuration that was named, or the first that is in one of the usual places.
/// Relative paths in it are relative to its folder.
pub(crate) fn load(named: Option<&Path>) -> Result<ClientConfig, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => usual_places().into_iter().find(|path| path.exists()).ok_or(Failure::NoConfig)?,
    };
    let text = files::read_text(&path)?;
    let mut config: ClientConfig = toml::from_str(&text)
        .map_err(|source| Failure::Config { path: path.clone(), source: Box::new(source) })?;
    config.resolve(path.parent().unwrap_or(Path::new("")));
    Ok(config)
}

/// Under the name that `init` gives it.
fn usual_places() -> Vec<PathBuf> {
    let local = Layout::at(Path::new(".strongroom"), "").cli_config;
    let file_name = local.file_name().map(PathBuf::from).unwrap_or_default();
    let home = env::home_dir().map(|home| home.join(".config/strongroom").join(file_name));
    [local].into_iter().chain(home).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("strongroom.toml");
        let text = r#"
            broker = "127.0.0.1:7443"
            trust_domains = ["acme.internal"]
            broker_id = "spiffe://acme.internal/broker"
            tls = { certificate = "pki/c.pem", key = "/abs/k.pem", ca = "ca.pem" }
        "#;
        fs::write(&path, text).unwrap();
        let tls = load(Some(&path)).unwrap().tls;
        let mtls::TlsSource::Files(tls) = tls else { panic!("files are named") };
        assert_eq!(tls.certificate, directory.path().join("pki/c.pem"));
        assert_eq!(tls.key, Path::new("/abs/k.pem"));

        fs::write(&path, format!("{text}\ninsecure = true")).unwrap();
        assert!(matches!(load(Some(&path)), Err(Failure::Config { .. })));
    }
}
