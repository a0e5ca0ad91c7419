use std::sync::Arc;

use domain::{Key, RequestId, Timestamp};
use envelope::{Context, Kek, Kms as _, Roots, WrappedKey};
use store::{KeyRow, PersonRow, Place, Resealed, RowMac, Stale, TenantKey};

use super::{Custody, Holder, Sealed, shares::share_of};
use crate::refused::Why;

impl Custody {
    /// All root keys.
    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The next version of a tenant's key, wrapped under the root that the tenant has now.
    pub(crate) async fn next_key(
        &self,
        newest: &TenantKey,
        request_id: Option<RequestId>,
        now: Timestamp,
    ) -> Result<KeyRow, Why> {
        let version = newest.key.version.checked_add(1);
        let version = version.ok_or_else(|| Why::Internal("no version is left".into()))?;
        let mut row = KeyRow { version, request_id, created_at: now, ..newest.key.clone() };
        self.generate(&newest.tenant, &mut row).await?;
        Ok(row)
    }

    /// A key wrapped under the current key of the root that it is under.
    pub(crate) async fn rewrapped(&self, of: &TenantKey) -> Result<KeyRow, Why> {
        let wrapped = self.wrapped(of)?;
        let anew = self.roots.rewrap(&self.key_context(&of.key), &wrapped).await?;
        Ok(KeyRow { wrapped: anew.as_bytes().to_vec(), ..of.key.clone() })
    }

    /// Opens a key by the recovery root.
    pub(crate) async fn open_by_recovery(&self, of: &TenantKey) -> Result<Key, Why> {
        let wrapped = self.wrapped(of)?;
        Ok(self.roots.open_by_recovery(&self.key_context(&of.key), &wrapped).await?)
    }

    /// A key opened by the recovery root, and wrapped under the root key that there is now.
    pub(crate) async fn recovered(&self, of: &TenantKey) -> Result<KeyRow, Why> {
        let wrapped = self.wrapped(of)?;
        let anew = self.roots.recover(&self.key_context(&of.key), &wrapped).await?;
        Ok(KeyRow { wrapped: anew.as_bytes().to_vec(), ..of.key.clone() })
    }

    /// A key as it is stored, unless it is under a root that is not its tenant's.
    fn wrapped(&self, of: &TenantKey) -> Result<WrappedKey, Why> {
        let wrapped = WrappedKey::from_bytes(of.key.wrapped.clone());
        self.roots.check(&of.tenant, &wrapped)?;
        Ok(wrapped)
    }

    /// A row as it is under the newest version of its tenant's key. What it is under now is checked
    /// first: a row that was changed past the broker must not become a genuine one here. A person's
    /// MAC, which is not the tenant's, is made by `person_mac`.
    pub(crate) async fn reseal(
        &self,
        of: Holder<'_>,
        row: &Stale,
        person_mac: impl Fn(&PersonRow) -> [u8; 32] + Sync,
    ) -> Result<Resealed, Why> {
        let newest = self.kek(of.keys).await?;
        match row {
            Stale::Tenant(row) => self.remac(of, &newest, row, Place::Tenant(row.uid)).await,
            Stale::Credential(row) => {
                self.remac(of, &newest, row, Place::Credential(row.uid)).await
            }
            Stale::VirtualKey(row) => {
                self.remac(of, &newest, row, Place::VirtualKey(row.id.clone())).await
            }
            Stale::Budget(row) => self.remac(of, &newest, row, Place::Budget(row.budget.id)).await,
            Stale::Test(row) => self.remac(of, &newest, row, Place::Test(row.credential_uid)).await,
            Stale::Version(row, provider) => {
                let context = Context {
                    deployment: self.deployment,
                    tenant: of.uid,
                    credential: row.credential_uid,
                    provider: provider.clone(),
                    version: row.version,
                    purpose: "secret",
                };
                let place = Place::Version(row.credential_uid, row.version);
                let share = share_of(&*self.shares, row.credential_uid).await?;
                let under = |kek: &Kek| kek.for_credential(row.credential_uid, &share);
                let (newest, stored) = (under(&newest), row.envelope.as_slice());
                let kek = self.behind(of, stored).await?;
                sealed_anew((&under(&kek), &newest), (&context, stored), place)
            }
            Stale::Person(row) => {
                let context = self.person_context(of.uid, row.commitment);
                let place = Place::Person(row.handle, [0; 32]);
                let kek = self.behind(of, &row.sealed).await?;
                let resealed = sealed_anew((&kek, &newest), (&context, &row.sealed), place)?;
                let row = PersonRow { sealed: resealed.after.clone(), ..row.clone() };
                Ok(Resealed { place: Place::Person(row.handle, person_mac(&row)), ..resealed })
            }
        }
    }

    async fn remac(
        &self,
        of: Holder<'_>,
        newest: &Arc<Kek>,
        row: &impl Sealed,
        place: Place,
    ) -> Result<Resealed, Why> {
        self.verify(of, row).await?;
        let (before, after): (&RowMac, RowMac) = (row.mac(), row.mac_under(newest));
        Ok(Resealed { place, before: before.to_vec(), after: after.to_vec() })
    }

    async fn behind(&self, of: Holder<'_>, stored: &[u8]) -> Result<Arc<Kek>, Why> {
        self.kek_behind(of, stored).await?.ok_or_else(corrupt)
    }
}

fn sealed_anew(
    (kek, newest): (&Kek, &Kek),
    (context, stored): (&impl envelope::StoredAs, &[u8]),
    place: Place,
) -> Result<Resealed, Why> {
    let secret = kek.open(context, stored).map_err(|_| corrupt())?;
    let after = newest
        .seal(context, &secret)
        .map_err(|error| Why::Internal(format!("sealing for storage: {error}")))?;
    Ok(Resealed { place, before: stored.to_vec(), after })
}

fn corrupt() -> Why {
    Why::Corrupt("what is stored does not open".to_owned())
}
