use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};
use audit::{Kind, Record, RecordDraft};
use domain::{RootName, SystemClock};
use envelope::{Kms as _, WrappedKey};
use sha2::{Digest as _, Sha256};
use store::{Change, Store, StoreError, TenantKey};

use crate::{
    bootstrap,
    config::Config,
    custody::Custody,
    refused::{Refused, Why},
    rekeying::of_key,
    signer::Signer,
};

/// How many keys were recovered, and how many were left alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovered {
    /// Keys that the recovery root has opened.
    pub opened: u64,
    /// Keys that are under the current root key already, or whose root has no recovery root.
    pub left: u64,
}

/// Opens every key by its recovery root and wraps it under the root key that the configuration has in
/// the place of the lost one: an operator's decision, which is on record for each key. With `dry_run`
/// every key is opened and nothing is changed: a drill.
///
/// # Errors
/// When a key does not open, after all others were tried. What was not done then is done by the same
/// call again. When the log is not the one that was signed, nothing is done.
pub async fn recover(config: Config, dry_run: bool) -> anyhow::Result<Recovered> {
    let roots = config.open_roots().await.context("opening the KMS")?;
    if !roots.names().map(Some).chain([None]).any(|name| roots.has_recovery(name)) {
        bail!("no recovery root is configured: add [kms_recovery], or [kms_roots.recovery]");
    }
    let roots = Arc::new(roots);
    let key = bootstrap::signing_key(&config.log.signing_key).await?;
    let (store, shares) = bootstrap::stores(&config).await?;
    // Before anything is added to it, the log must be the one that was signed.
    let last = config.log.last_checkpoint;
    Signer::open(Arc::clone(&store), key, last, &config.path).await?;
    let keyring = (Arc::new(SystemClock) as _, config.limits.keyring());
    let custody = Custody::new(Arc::clone(&store), roots, shares, keyring);
    let mut recovery = Recovery { store, custody, current: BTreeMap::new(), dry_run };
    let done = recovery.all().await;
    recovery.store.close().await;
    done
}

struct Recovery {
    store: Arc<dyn Store>,
    custody: Custody,
    /// What each root wraps new keys under.
    current: BTreeMap<Option<RootName>, String>,
    dry_run: bool,
}

/// Keys read at a time.
const PAGE: u32 = 1000;

impl Recovery {
    async fn all(&mut self) -> anyhow::Result<Recovered> {
        let (mut done, mut failed, mut after) = (Recovered::default(), 0_u64, None);
        loop {
            let keys = self.store.wrapped_keys(after, PAGE).await.context("reading the keys")?;
            for of in &keys {
                match self.one(of).await {
                    Ok(true) => done.opened += 1,
                    Ok(false) => done.left += 1,
                    Err(why) => {
                        failed += 1;
                        let (tenant, error) = (of.tenant.as_str(), Refused::from(why));
                        tracing::error!(tenant, version = of.key.version, %error, "not recovered");
                    }
                }
            }
            after = keys.last().map(|of| (of.key.uid, of.key.version));
            if keys.len() < PAGE as usize {
                break;
            }
        }
        if failed > 0 {
            bail!("{failed} keys were not recovered, and {} were", done.opened);
        }
        Ok(done)
    }

    /// Whether there was something to do.
    async fn one(&mut self, of: &TenantKey) -> Result<bool, Why> {
        let roots = self.custody.roots();
        let wrapped = WrappedKey::from_bytes(of.key.wrapped.clone());
        let root = roots.root_of(&wrapped);
        if !roots.has_recovery(root.as_ref()) {
            return Ok(false);
        }
        if self.dry_run {
            self.custody.open_by_recovery(of).await?;
            return Ok(true);
        }
        let current = match self.current.get(&root) {
            Some(current) => current.clone(),
            None => roots.status_of(root.as_ref()).await?.key_ref,
        };
        let there = roots.wrapped_by(&wrapped).as_ref() == Some(&current);
        let root_key_sha256 = Sha256::digest(&current).to_vec().into();
        self.current.insert(root, current);
        if there {
            return Ok(false);
        }
        let key = self.custody.recovered(of).await?;
        let because = "recovery".to_owned();
        let record = of_key(Kind::KeyRewrapped, of, &key);
        let record = RecordDraft::new(Record { root_key_sha256, because, ..record })
            .map_err(|error| Why::Internal(error.to_string()))?;
        let change = Change::RewrapKey(key, of.key.wrapped.clone());
        match self.store.apply(&change, &record).await {
            Ok(_) => Ok(true),
            // Someone else was first.
            Err(StoreError::Changed(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
