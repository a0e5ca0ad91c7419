use std::{collections::BTreeSet, sync::Arc, time::Duration};

use audit::{Disclosure, Entry, Hash, Record};
use domain::{Fields, Key, SpiffeId, SpiffePattern, TenantId, Uid};
use moka::sync::Cache;
use store::{KeyPurpose, PersonRow, Stale, Store};
use strongroom_proto::v1;

use crate::{
    access::Access,
    custody::{Custody, PersonKey},
    directory::Directory,
    refused::Why,
};

/// The people among the callers. Records hold a commitment to a person's SPIFFE ID; the ID itself is
/// kept beside the log under a tenant's key, so that it can be forgotten and every proof still stands.
#[derive(Debug)]
pub(crate) struct People {
    patterns: Vec<SpiffePattern>,
    access: Arc<Access>,
    custody: Arc<Custody>,
    directory: Arc<Directory>,
    store: Arc<dyn Store>,
    pepper: Arc<Key>,
    /// Of who has been met, and of who is known to be no person.
    commitments: Cache<SpiffeId, Option<Hash>>,
    names: Cache<Hash, Arc<Disclosure>>,
}

/// What records call somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Called {
    /// The SPIFFE ID.
    ById,
    /// The commitment to a person's SPIFFE ID.
    By(Hash),
    /// Nothing: a person whom no key was at hand for. The certificate's hash is all there is.
    ByNothing,
}

impl Called {
    /// Makes an identity that is called so the subject of a record.
    pub(crate) fn put_subject(self, identity: &SpiffeId, record: Record) -> Record {
        match self {
            Self::By(commitment) => {
                Record { subject_commitment: commitment.to_vec().into(), ..record }
            }
            Self::ById | Self::ByNothing => Record { subject: identity.to_string(), ..record },
        }
    }
}

/// People in memory; more are read again when they are needed.
const PEOPLE: u64 = 10_000;

/// How long a name that was disclosed stays in memory.
const DISCLOSED: Duration = Duration::from_mins(1);

impl People {
    pub(crate) fn new(
        patterns: Vec<SpiffePattern>,
        access: Arc<Access>,
        directory: Arc<Directory>,
        custody: Arc<Custody>,
        store: Arc<dyn Store>,
        pepper: Arc<Key>,
    ) -> Self {
        let names = Cache::builder().max_capacity(PEOPLE).time_to_live(DISCLOSED).build();
        let commitments = Cache::new(PEOPLE);
        Self { patterns, access, custody, directory, store, pepper, commitments, names }
    }

    /// What records call an identity. A person who is new is kept first.
    pub(crate) async fn call(&self, identity: &SpiffeId) -> Result<Called, Why> {
        match self.commitment(identity).await? {
            Some(commitment) => Ok(Called::By(commitment)),
            None if self.is_person(identity) => self.enroll(identity).await.map(Called::By),
            None => Ok(Called::ById),
        }
    }

    /// What records call somebody who has been met as a person: once a person, always one, whatever
    /// the configuration says now, or a block would end with a change of it.
    pub(crate) async fn commitment(&self, identity: &SpiffeId) -> Result<Option<Hash>, Why> {
        if let Some(known) = self.commitments.get(identity) {
            return Ok(known);
        }
        let row = self.store.person(&self.handle(identity)).await?;
        if let Some(row) = &row {
            self.check(row)?;
        }
        let commitment = row.map(|row| row.commitment);
        if commitment.is_some() || !self.is_person(identity) {
            self.commitments.insert(identity.clone(), commitment);
        }
        Ok(commitment)
    }

    /// Who it is that records name so, for people to read.
    pub(crate) async fn tell(&self, name: String) -> String {
        let mut commitment: Hash = [0; 32];
        if hex::decode_to_slice(&name, &mut commitment).is_err() {
            return name;
        }
        match self.name(&commitment).await {
            Ok(Some(person)) => person.value().to_owned(),
            Ok(None) | Err(_) => format!("sha256:{name}"),
        }
    }

    /// The people whom records name, as far as their names can still be told.
    pub(crate) async fn disclose(&self, entries: &[Entry]) -> Vec<v1::Disclosure> {
        let records = entries.iter().filter_map(|entry| entry.record().ok());
        let named = records.flat_map(|it| [it.actor_commitment, it.subject_commitment]);
        let named: BTreeSet<Hash> = named.filter_map(|it| Hash::try_from(&*it).ok()).collect();
        let mut disclosures = Vec::with_capacity(named.len());
        for commitment in named {
            match self.name(&commitment).await {
                Ok(Some(name)) => disclosures.push(v1::Disclosure {
                    commitment: name.commitment().to_vec().into(),
                    salt: name.salt().to_vec().into(),
                    value: name.value().to_owned(),
                }),
                Ok(None) => {}
                // The record is as true without.
                Err(why) => tracing::warn!(%why, "a person's name cannot be told"),
            }
        }
        disclosures
    }

    /// Who stands behind a commitment; nothing when that is forgotten.
    async fn name(&self, commitment: &Hash) -> Result<Option<Arc<Disclosure>>, Why> {
        if let Some(known) = self.names.get(commitment) {
            return Ok(Some(known));
        }
        let Some(row) = self.store.person_behind(commitment).await? else { return Ok(None) };
        self.check(&row)?;
        // Forgotten with the tenant that it was kept for.
        if row.sealed.is_empty() {
            return Ok(None);
        }
        let keys = self.store.keys(row.tenant_uid, KeyPurpose::Kek).await?;
        let name = Arc::new(self.custody.open_person(&keys, &row).await?);
        self.names.insert(*commitment, Arc::clone(&name));
        Ok(Some(name))
    }

    /// The SPIFFE ID behind a commitment; nothing when that is forgotten.
    pub(crate) async fn identity(&self, commitment: &Hash) -> Result<Option<SpiffeId>, Why> {
        let name = self.name(commitment).await?;
        let parse = |name: Arc<Disclosure>| name.value().parse::<SpiffeId>();
        let identity = name.map(parse).transpose();
        identity.map_err(|error| Why::Corrupt(format!("a person's name: {error}")))
    }

    fn is_person(&self, identity: &SpiffeId) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(identity))
    }

    async fn enroll(&self, identity: &SpiffeId) -> Result<Hash, Why> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)?;
        let name = Disclosure::new(salt, identity.as_str());
        for _ in 0..2 {
            let PersonKey { tenant_uid, kek } = self.key_for(identity).await?;
            let mut row = PersonRow {
                handle: self.handle(identity),
                commitment: *name.commitment(),
                tenant_uid,
                sealed: self.custody.seal_person(&kek, tenant_uid, &name)?,
                row_mac: [0; 32],
            };
            row.row_mac = self.mac(&row);
            self.store.put_person(&row).await?;
            // Another broker may have met them first.
            if let Some(kept) = self.commitment(identity).await? {
                return Ok(kept);
            }
            // That version of the key is gone: another one is on record.
            self.directory.catch_up(self.store.head().await?.changed).await?;
        }
        Err(Why::Internal("a person was not kept".into()))
    }

    /// The key of the one tenant that a person acts for, else the platform's.
    async fn key_for(&self, identity: &SpiffeId) -> Result<PersonKey, Why> {
        for id in [self.access.sole_tenant(identity), Some(TenantId::platform())] {
            let Some(id) = id else { continue };
            if let Some(tenant) = self.directory.tenant(&id).await? {
                let kek = self.custody.kek(&tenant.keys).await?;
                return Ok(PersonKey { tenant_uid: tenant.row.uid, kek });
            }
        }
        Err(Why::Corrupt("the platform tenant is missing".into()))
    }

    fn handle(&self, identity: &SpiffeId) -> [u8; 32] {
        let fields = Fields::new("strongroom person v1").field(1, identity.as_str());
        self.pepper.hmac(&fields.finish())
    }

    /// Under the pepper, which is at hand without a KMS: whoever can write to the database must not
    /// put one person's deeds down to another.
    pub(crate) fn mac(&self, row: &PersonRow) -> [u8; 32] {
        let fields = Fields::new("strongroom person row v1")
            .field(1, row.handle)
            .field(2, row.commitment)
            .field(3, row.tenant_uid)
            .field(4, &row.sealed);
        self.pepper.hmac(&fields.finish())
    }

    /// A person's row without the name, under the key of a tenant that stays.
    pub(crate) fn nameless(&self, row: &PersonRow, tenant_uid: Uid) -> Result<PersonRow, Why> {
        self.check(row)?;
        let mut row = PersonRow { tenant_uid, sealed: Vec::new(), ..row.clone() };
        row.row_mac = self.mac(&row);
        Ok(row)
    }

    /// Forgets which names were told.
    pub(crate) fn forget_names(&self) {
        self.names.invalidate_all();
    }

    /// Whether a row that is to be sealed anew is as it was written, if it is a person's.
    pub(crate) fn check_stale(&self, row: &Stale) -> Result<(), Why> {
        if let Stale::Person(row) = row { self.check(row) } else { Ok(()) }
    }

    /// Whether a row is as it was written.
    pub(crate) fn check(&self, row: &PersonRow) -> Result<(), Why> {
        if self.mac(row) == row.row_mac {
            Ok(())
        } else {
            Err(Why::Corrupt("a person was changed past the broker".into()))
        }
    }
}

#[cfg(test)]
mod tests;
