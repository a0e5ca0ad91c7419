use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use audit::SignerKey;
use domain::{Clock, Key, OnMissing, RoutingRules, TenantId, Uid};
use envelope::{Kms as _, KmsError, WrappedKey};
use providers::Catalogue;
use store::{Change, KeyPurpose, KeyRow, ShareStore, Store, StoreError, TenantRow};
use tokio::fs;

use crate::{
    config::Config,
    custody::{Custody, Sealed as _},
    refused::Why,
};

/// Reads the key that signs checkpoints, unless others can read it too.
pub(crate) async fn signing_key(path: &Path) -> anyhow::Result<SignerKey> {
    let file = fs::File::open(path).await.with_context(|| format!("reading {}", path.display()))?;
    let mode = file.metadata().await?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others; make it yours alone: chmod 0400", path.display());
    }
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).await?);
    SignerKey::parse(text.trim_end()).with_context(|| format!("{}", path.display()))
}

/// The store of everything, and that of shares.
pub(crate) async fn stores(
    config: &Config,
) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn ShareStore>)> {
    let store = store::open(&config.store).await.context("opening the store")?;
    let shares = store::open_shares(&config.shares.store, &config.store).await;
    Ok((store, shares.context("opening the store of shares")?))
}

/// The providers, at the addresses that the configuration gives them.
pub(crate) fn catalogue(config: &Config) -> anyhow::Result<Catalogue> {
    let mut catalogue = Catalogue::builtin()?;
    for (provider, other) in &config.providers {
        let place = || format!("[providers.{provider}]");
        if let Some(origin) = &other.origin {
            catalogue = catalogue.with_base_url(provider, origin).with_context(place)?;
        }
        if let Some(origin) = &other.token_origin {
            catalogue = catalogue.with_token_origin(provider, origin).with_context(place)?;
        }
    }
    Ok(catalogue)
}

/// The deployment's pepper. The first broker on a new store makes it, with the platform tenant that
/// owns it; of several that start at once, one wins and the others read what it made.
pub(crate) async fn pepper(
    store: &Arc<dyn Store>,
    custody: &Custody,
    clock: &dyn Clock,
) -> anyhow::Result<Key> {
    loop {
        if let Some(platform) = store.tenant(&TenantId::platform()).await? {
            let keys = store.keys(platform.uid, KeyPurpose::Pepper).await?;
            let row = keys.first().context("the platform tenant has lost its pepper")?;
            return match custody.unwrap(row).await {
                Ok(pepper) => Ok(pepper),
                Err(why) => Err(locked(custody, row, &why).await),
            };
        }
        match make_platform(store, custody, clock).await {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error.context("making the platform tenant")),
        }
    }
}

/// What keeps the first key from being opened, and what to do about it.
async fn locked(custody: &Custody, row: &KeyRow, why: &Why) -> anyhow::Error {
    if !matches!(why, Why::Kms(KmsError::Corrupt)) {
        return anyhow!("opening the deployment's first key, the pepper: {why}");
    }
    let has = custody.roots().status().await.key_ref;
    let under = WrappedKey::from_bytes(row.wrapped.clone()).local_key();
    let under = under.map(|key| format!(": they are under {key}")).unwrap_or_default();
    anyhow!(
        "[kms] has {has}, and the deployment's keys do not open by it{under}. Put the root key back that \
         they are under; if it is lost, `broker recover` opens them by the recovery root \
         (docs/operations.md, \"A second root key, for the day on which the first is lost\")"
    )
}

async fn make_platform(
    store: &Arc<dyn Store>,
    custody: &Custody,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let now = clock.now();
    let mut row = TenantRow {
        uid: Uid::random()?,
        id: TenantId::platform(),
        display_name: "Managed credentials".to_owned(),
        preferred_provider: None,
        on_missing: OnMissing::Refuse,
        rules: RoutingRules::default(),
        suspended: false,
        revision: 1,
        request_id: None,
        created_at: now,
        updated_at: now,
        row_mac: [0; 36],
    };
    let new_key = async |purpose| {
        let made = custody.new_key((&row.id, row.uid), purpose, now).await;
        made.map_err(|why| anyhow!("asking the KMS for a key: {why}"))
    };
    let (key, kek) = new_key(KeyPurpose::Kek).await?;
    let (_, pepper) = new_key(KeyPurpose::Pepper).await?;
    let record = crate::custody::tenant_created(&row, &kek);
    row.row_mac = row.mac_under(&Custody::kek_of(key, &kek));
    let record = audit::RecordDraft::new(record)?;
    store.apply(&Change::CreateTenant(row, vec![kek, pepper]), &record).await?;
    Ok(())
}

fn is_taken(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Exists(_)))
}

/// How long records are kept. Shorter than a day cannot be meant, and would reach into leases that
/// go on.
pub(crate) fn keep(keep: Option<Duration>) -> anyhow::Result<Option<Duration>> {
    match keep {
        Some(keep) if keep < SHORTEST_KEEP => {
            bail!("`keep` in [log] is a day at the least, or absent: nothing is pruned")
        }
        Some(_) | None => Ok(keep),
    }
}

const SHORTEST_KEEP: Duration = Duration::from_hours(24);
