use std::{collections::BTreeMap, sync::Arc, time::Duration};

use audit::{Entry, Kind, Record, proto_time};
use domain::{CredentialName, TenantId};
use store::{Change, ErasureRow, PersonRow, StoreError};
use strongroom_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller,
    core::{Core, check_etag, parse, parse_tenant},
    custody::OwnRow as _,
    directory::Tenant,
    leadership,
    refused::{About, Refused, Why},
    services::credentials::record,
};

/// Finishes erasures that were begun, until `stop`: on whichever broker leads, from what is stored, so that
/// one goes on that a crash or a store of shares that was away has interrupted.
pub(crate) async fn go_on(core: Arc<Core>, leads: watch::Receiver<bool>, stop: CancellationToken) {
    while leadership::next_turn(LOOK, &leads, &stop).await {
        if let Err(why) = core.finish_erasures().await {
            metrics::counter!("strongroom_erasure_failures_total").increment(1);
            tracing::warn!(error = %Refused::from(why), "shares that are to be destroyed are not yet");
        }
    }
}

/// How often a leader looks for erasures that somebody began and did not finish.
const LOOK: Duration = Duration::from_secs(2);

/// People read at a time.
const PEOPLE: u32 = 1000;

impl Core {
    pub(crate) async fn shred_credential(
        &self,
        caller: &Caller,
        request: &v1::ShredCredentialRequest,
    ) -> Result<v1::Erasure, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = About::from(&name);
        caller.concerns(about.clone());
        let work = async {
            self.access.permit(caller, &name.tenant)?;
            self.catch_up().await?;
            let begun = match self.begin_credential(caller, &name, request).await {
                Err(Why::NoSuchCredential | Why::NoSuchTenant) => {
                    let known = self.last_shredded(Kind::CredentialShredded, &request.name).await?;
                    known.ok_or(Why::NoSuchCredential)?
                }
                begun => begun?,
            };
            self.erased(caller, begun, &request.name).await
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    pub(crate) async fn shred_tenant(
        &self,
        caller: &Caller,
        request: &v1::ShredTenantRequest,
    ) -> Result<v1::Erasure, Refused> {
        let id = parse_tenant(&request.name)?;
        let about = About::from(&id);
        caller.concerns(about.clone());
        let work = async {
            self.access.permit(caller, &id)?;
            if id == TenantId::platform() {
                return Err(Why::NotErasable);
            }
            self.catch_up().await?;
            let begun = if self.directory.is_erased(&id) {
                let known = self.last_shredded(Kind::TenantShredded, id.as_str()).await?;
                known.ok_or(Why::NoSuchTenant)?
            } else {
                self.begin_tenant(caller, &id, request).await?
            };
            self.erased(caller, begun, &request.name).await
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    async fn begin_credential(
        &self,
        caller: &Caller,
        name: &CredentialName,
        request: &v1::ShredCredentialRequest,
    ) -> Result<Entry, Why> {
        let (tenant, mut row) = self.found(caller, name).await?;
        check_etag(&request.etag, row.revision)?;
        let leave = self.second_person(caller, request, Some(&name.tenant)).await?;
        // Afterwards there is nothing left to delete them with.
        let made = self.made_of(&tenant, &row).await;
        row.revision += 1;
        let erasure = ErasureRow {
            id: row.uid,
            tenant: row.tenant.clone(),
            credential: Some(name.clone()),
            shares: vec![row.uid],
            begun_at: self.store.now().await?,
            row_mac: [0; 32],
        }
        .sealed(&self.row_key);
        let told = Record {
            erasure_id: row.uid.as_bytes().to_vec().into(),
            ..record(Kind::CredentialShredded, &row)
        };
        let change = Change::EraseCredential(row, erasure);
        let entry = self.carry_out(caller, leave, Some(&change), told).await?;
        if let Some((made, order)) = made {
            self.tokens.exchange.discard(made, order);
        }
        Ok(entry)
    }

    async fn begin_tenant(
        &self,
        caller: &Caller,
        id: &TenantId,
        request: &v1::ShredTenantRequest,
    ) -> Result<Entry, Why> {
        let tenant = self.tenant(caller, id).await?;
        check_etag(&request.etag, tenant.row.revision)?;
        let leave = self.second_person(caller, request, Some(id)).await?;
        let mut row = tenant.row.clone();
        row.revision += 1;
        let credentials = tenant.credentials.iter().map(|held| held.row.uid);
        let erasure = ErasureRow {
            id: row.uid,
            tenant: id.clone(),
            credential: None,
            shares: std::iter::once(row.uid).chain(credentials).collect(),
            begun_at: self.store.now().await?,
            row_mac: [0; 32],
        }
        .sealed(&self.row_key);
        let kek_id = tenant.keys.first().map(|key| key.uid.as_bytes().to_vec());
        let told = Record {
            kind: Kind::TenantShredded.into(),
            tenant: id.to_string(),
            revision: row.revision,
            erasure_id: row.uid.as_bytes().to_vec().into(),
            kek_id: kek_id.unwrap_or_default().into(),
            ..Record::default()
        };
        let people = self.nameless(&tenant).await?;
        let change = Change::EraseTenant(row, people, erasure);
        let entry = self.carry_out(caller, leave, Some(&change), told).await?;
        self.people.forget_names();
        Ok(entry)
    }

    /// A tenant's people as they are kept once their names are forgotten: whoever is blocked stays so.
    async fn nameless(&self, tenant: &Tenant) -> Result<Vec<PersonRow>, Why> {
        let platform = self.directory.tenant(&TenantId::platform()).await?;
        let platform =
            platform.ok_or_else(|| Why::Corrupt("the platform tenant is missing".into()))?;
        let mut people: Vec<PersonRow> = Vec::new();
        loop {
            let after = people.last().map(|row| row.handle);
            let read = self.store.people(tenant.row.uid, after, PEOPLE).await?;
            let full = read.len() == PEOPLE as usize;
            for row in read {
                people.push(self.people.nameless(&row, platform.row.uid)?);
            }
            if !full {
                return Ok(people);
            }
        }
    }

    /// The record by which something of this name was last erased.
    async fn last_shredded(&self, kind: Kind, name: &str) -> Result<Option<Entry>, Why> {
        for entry in self.store.changes_of_kind(kind).await?.into_iter().rev() {
            let told = read(&entry)?;
            let called = if told.credential.is_empty() { &told.tenant } else { &told.credential };
            if called == name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Destroys the shares of an erasure that was begun, unless that is done, and says what became of it.
    async fn erased(&self, caller: &Caller, begun: Entry, name: &str) -> Result<v1::Erasure, Why> {
        let id = read(&begun)?.erasure_id;
        let waiting = self
            .erasures_to_finish()
            .await?
            .into_iter()
            .find(|erasure| erasure.id.as_bytes()[..] == id[..]);
        if let Some(erasure) = waiting
            && let Err(why) = self.destroy(&erasure, |record| caller.stamp(record)).await
        {
            tracing::warn!(error = %Refused::from(why), "shares that are to be destroyed are not yet");
        }
        let mut erasure =
            v1::Erasure { name: name.to_owned(), log_index: begun.index, ..v1::Erasure::default() };
        for entry in self.store.changes_of_kind(Kind::SharesDestroyed).await?.into_iter().rev() {
            let receipt = read(&entry)?;
            if receipt.erasure_id == id {
                erasure.receipt_index = Some(entry.index);
                erasure.destroy_time = receipt.time;
                erasure.copies_until_time = receipt.copies_until_time;
                break;
            }
        }
        Ok(erasure)
    }

    /// Finishes what was begun.
    pub(crate) async fn finish_erasures(&self) -> Result<(), Why> {
        let mut failure = Ok(());
        for erasure in self.erasures_to_finish().await? {
            // One that cannot go on does not hold the others up.
            if let Err(why) = self.destroy(&erasure, |record| record).await {
                failure = Err(why);
            }
        }
        failure
    }

    /// What was begun and has no receipt. Shares do not come back, so a row alone is not enough: a broker has
    /// written it, it is as it was then, and the log says that the same was asked for and is not done.
    async fn erasures_to_finish(&self) -> Result<Vec<ErasureRow>, Why> {
        let genuine = self.passed.genuine(self.store.erasures().await?, &self.row_key);
        if genuine.is_empty() {
            return Ok(genuine);
        }
        let mut asked = BTreeMap::new();
        for kind in [Kind::CredentialShredded, Kind::TenantShredded] {
            for entry in self.store.changes_of_kind(kind).await? {
                let told = read(&entry)?;
                asked.insert(told.erasure_id, (told.tenant, told.credential));
            }
        }
        for entry in self.store.changes_of_kind(Kind::SharesDestroyed).await? {
            asked.remove(&read(&entry)?.erasure_id);
        }
        let is_asked = |row: &ErasureRow| {
            let credential = row.credential.as_ref().map(ToString::to_string);
            asked.get(row.id.as_ref() as &[u8]).is_some_and(|(tenant, of)| {
                tenant == row.tenant.as_str() && *of == credential.unwrap_or_default()
            })
        };
        Ok(genuine.into_iter().filter(is_asked).collect())
    }

    /// Destroys shares, and only then puts the receipt on record. Who is interrupted in between does both
    /// again: what is destroyed stays destroyed, and there is one receipt.
    async fn destroy(
        &self,
        erasure: &ErasureRow,
        stamp: impl FnOnce(Record) -> Record,
    ) -> Result<(), Why> {
        let now = self.store.now().await?;
        let destroyed = self.custody.shares().destroy_shares(&erasure.shares, now).await?;
        let credential = erasure.credential.as_ref().map(ToString::to_string);
        let record = Record {
            kind: Kind::SharesDestroyed.into(),
            tenant: erasure.tenant.to_string(),
            credential: credential.unwrap_or_default(),
            erasure_id: erasure.id.as_bytes().to_vec().into(),
            copies_until_time: Some(proto_time(destroyed + self.share_backups)),
            count: u32::try_from(erasure.shares.len()).unwrap_or(u32::MAX),
            ..Record::default()
        };
        match self.change(&Change::EndErasure(erasure.id), stamp(record)).await {
            // Another broker was first.
            Ok(_) | Err(Why::Store(StoreError::Changed(_))) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

fn read(entry: &Entry) -> Result<Record, Why> {
    entry.record().map_err(|error| Why::Corrupt(error.to_string()))
}
