use std::{sync::Arc, time::Duration};

use audit::{Hash, Kind, Record, proto_time, timestamp};
use domain::{TenantId, Timestamp};
use metering::{
    DatedTable, Moment, PriceChange, PriceDocument, PriceTable, PriceTableError, Terms, diff,
    diff_terms,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use store::{Change, PriceRow, StoreError};
use strongroom_proto::v1::{self, prices_server::Prices};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, parse_tenant},
    prices::{Revision, Revisions, last},
    refused::{About, Refused, Why},
};

/// `strongroom.v1.Prices`.
#[derive(Clone, Debug)]
pub(crate) struct PriceService(pub(crate) Arc<Core>);

/// No lease of now lasts longer, clocks that are apart included: whoever calls then has been told.
const SOONEST: Duration = Duration::from_secs(310);

/// Calls that began longer ago are not priced any more.
const OLDEST_CALL: Duration = Duration::from_hours(24);

#[tonic::async_trait]
impl Prices for PriceService {
    async fn get_prices(
        &self,
        request: Request<v1::GetPricesRequest>,
    ) -> Result<Response<v1::GetPricesResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.get_prices(&caller, &request)).await
    }

    async fn import_prices(
        &self,
        request: Request<v1::ImportPricesRequest>,
    ) -> Result<Response<v1::ChangedPrices>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.import_prices(&caller, &request)).await
    }

    async fn set_tenant_prices(
        &self,
        request: Request<v1::SetTenantPricesRequest>,
    ) -> Result<Response<v1::ChangedPrices>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.set_tenant_prices(&caller, &request)).await
    }
}

/// A document that counts from a moment on.
trait Dated: DeserializeOwned + Serialize {
    fn from(&self) -> Option<Moment>;
}

impl Dated for DatedTable {
    fn from(&self) -> Option<Moment> {
        self.effective_time
    }
}

impl Dated for Terms {
    fn from(&self) -> Option<Moment> {
        self.effective_time
    }
}

impl Core {
    pub(crate) async fn get_prices(
        &self,
        caller: &Caller,
        request: &v1::GetPricesRequest,
    ) -> Result<v1::GetPricesResponse, Refused> {
        let tenant = match &*request.tenant {
            "" => None,
            name => Some(parse_tenant(name)?),
        };
        if let Some(tenant) = &tenant {
            caller.concerns(tenant.into());
            let found = self.tenant(caller, tenant).await;
            found.map_err(|why| Refused::about(why, &tenant.into()))?;
        }
        let revisions = self.directory.prices().revisions(tenant.as_ref());
        let document = if revisions.version == request.known_version {
            Vec::new()
        } else {
            let document = self.price_document(&revisions).await?;
            document.to_bytes().map_err(|error| unwritable(&error))?
        };
        Ok(v1::GetPricesResponse {
            document: document.into(),
            list_revision: last(&revisions.list),
            tenant_revision: last(&revisions.own),
            version: revisions.version,
        })
    }

    pub(crate) async fn import_prices(
        &self,
        caller: &Caller,
        request: &v1::ImportPricesRequest,
    ) -> Result<v1::ChangedPrices, Refused> {
        self.access.permit_all(caller)?;
        self.catch_up().await?;
        let table = table(&request.table)?;
        let effective = self.effective(request.effective_time.as_ref())?;
        let known = self.directory.prices().revisions(None).list;
        check_revision(request.list_revision, last(&known))?;
        let old = match known.last() {
            Some(last) => self.dated::<DatedTable>(last).await?.table,
            None => builtin()?,
        };
        let changes = diff(&old, &table);
        if table != old && table.version <= old.version {
            return Err(Why::InvalidField(format!(
                "another table needs another version: {} or more, the one before has {}",
                u64::from(old.version) + 1,
                old.version
            ))
            .into());
        }
        if table == old || request.validate_only {
            let revision = last(&known) + u64::from(table != old);
            return Ok(changed(&changes, effective, revision, 0));
        }
        let document = DatedTable { effective_time: Some(Moment(effective)), table };
        let revision = last(&known) + 1;
        let index = self.put_prices(caller, None, revision, &document).await?;
        Ok(changed(&changes, effective, revision, index))
    }

    pub(crate) async fn set_tenant_prices(
        &self,
        caller: &Caller,
        request: &v1::SetTenantPricesRequest,
    ) -> Result<v1::ChangedPrices, Refused> {
        let tenant = parse_tenant(&request.tenant)?;
        let about = About::from(&tenant);
        caller.concerns(about.clone());
        let work = self.set_terms(caller, request, &tenant);
        work.await.map_err(|why| Refused::about(why, &about))
    }

    async fn set_terms(
        &self,
        caller: &Caller,
        request: &v1::SetTenantPricesRequest,
        tenant: &TenantId,
    ) -> Result<v1::ChangedPrices, Why> {
        self.catch_up().await?;
        self.tenant(caller, tenant).await?;
        let terms = Terms::parse(&request.terms).map_err(|error| unreadable(&error))?;
        if terms.effective_time.is_some() {
            let what = "terms have no time of their own: give effective_time in the request";
            return Err(Why::InvalidField(what.into()));
        }
        let effective = self.effective(request.effective_time.as_ref())?;
        let known = self.directory.prices().revisions(Some(tenant)).own;
        check_revision(request.tenant_revision, last(&known))?;
        let old = match known.last() {
            Some(last) => self.dated::<Terms>(last).await?,
            None => Terms::default(),
        };
        let changes = diff_terms(&old, &terms);
        let same = old.overrides == terms.overrides && old.discounts == terms.discounts;
        if same || request.validate_only {
            let revision = last(&known) + u64::from(!same);
            return Ok(changed(&changes, effective, revision, 0));
        }
        let document = Terms { effective_time: Some(Moment(effective)), ..terms };
        let revision = last(&known) + 1;
        let index = self.put_prices(caller, Some(tenant), revision, &document).await?;
        Ok(changed(&changes, effective, revision, index))
    }

    /// Keeps a document of prices and the record that names it.
    async fn put_prices(
        &self,
        caller: &Caller,
        tenant: Option<&TenantId>,
        revision: u64,
        document: &impl Serialize,
    ) -> Result<u64, Why> {
        let document = serde_json::to_vec(document).map_err(|error| unwritable(&error.into()))?;
        let row = PriceRow {
            tenant: tenant.cloned(),
            revision,
            sha256: Sha256::digest(&document).into(),
            document,
            created_at: self.clock.now(),
        };
        let record = Record {
            kind: Kind::PricesChanged.into(),
            tenant: tenant.map(ToString::to_string).unwrap_or_default(),
            revision,
            prices_sha256: row.sha256.to_vec().into(),
            ..Record::default()
        };
        match self.change(&Change::SetPrices(row), caller.stamp(record)).await {
            // Somebody else was first.
            Err(Why::Store(StoreError::Exists(_))) => Err(Why::EtagMismatch),
            changed => Ok(changed?.index),
        }
    }

    /// From when on a change counts.
    fn effective(&self, asked: Option<&prost_types::Timestamp>) -> Result<Timestamp, Why> {
        let soonest = self.clock.now() + SOONEST;
        let Some(asked) = asked else { return Ok(soonest) };
        let wrong = "effective_time is a time of whole milliseconds, 310 s from now or later: until \
                     then there are leases with the prices before";
        timestamp(asked)
            .filter(|asked| *asked >= soonest)
            .ok_or_else(|| Why::InvalidField(wrong.into()))
    }

    /// What calls that begin now, or began not too long ago, are priced by.
    async fn price_document(&self, revisions: &Revisions) -> Result<PriceDocument, Why> {
        let now = self.clock.now().as_millis();
        let millis = i64::try_from(OLDEST_CALL.as_millis()).unwrap_or(i64::MAX);
        let oldest = Timestamp::from_millis(now.saturating_sub(millis));
        let mut tables: Vec<DatedTable> = self.in_force(&revisions.list, oldest).await?;
        let reaches = |table: &DatedTable| table.effective_time.is_some_and(|it| it.0 <= oldest);
        if !tables.first().is_some_and(reaches) {
            tables.insert(0, DatedTable { effective_time: None, table: builtin()? });
        }
        let terms = self.in_force(&revisions.own, oldest).await?;
        Ok(PriceDocument { version: revisions.version.clone(), tables, terms })
    }

    /// Of some documents those that count at a moment or later, in that order. One that was put in
    /// later stands in the place of those that were to count from the same moment or after it.
    async fn in_force<T: Dated>(
        &self,
        revisions: &[Revision],
        oldest: Timestamp,
    ) -> Result<Vec<T>, Why> {
        let mut found: Vec<T> = Vec::new();
        let mut next: Option<Moment> = None;
        for revision in revisions.iter().rev() {
            let document: T = self.dated(revision).await?;
            let from = document.from().ok_or_else(|| corrupt(revision.number))?;
            if next.is_none_or(|next| from < next) {
                next = Some(from);
                found.push(document);
            }
            if next.is_some_and(|next| next.0 <= oldest) {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }

    /// A document, held against the digest that the log has of it.
    async fn dated<T: Dated>(&self, revision: &Revision) -> Result<T, Why> {
        let document = self.store.prices(&revision.sha256).await?;
        let document = document.ok_or_else(|| corrupt(revision.number))?;
        if Hash::from(Sha256::digest(&document)) != revision.sha256 {
            return Err(corrupt(revision.number));
        }
        serde_json::from_slice(&document).map_err(|_| corrupt(revision.number))
    }
}

fn table(bytes: &[u8]) -> Result<PriceTable, Why> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Why::InvalidField("a table of prices is JSON text".into()))?;
    PriceTable::parse(text).map_err(|error| unreadable(&error))
}

fn builtin() -> Result<PriceTable, Why> {
    PriceTable::builtin().map_err(|error| Why::Internal(format!("this build's prices: {error}")))
}

fn check_revision(seen: Option<u64>, last: u64) -> Result<(), Why> {
    if seen.is_none_or(|seen| seen == last) { Ok(()) } else { Err(Why::EtagMismatch) }
}

/// What is wrong with a document that a caller sent, with the place in it.
fn unreadable(error: &PriceTableError) -> Why {
    use std::error::Error as _;
    match error.source() {
        Some(cause) => Why::InvalidField(format!("{error}: {cause}")),
        None => Why::InvalidField(error.to_string()),
    }
}

fn unwritable(error: &PriceTableError) -> Why {
    Why::Internal(format!("prices cannot be written: {error}"))
}

fn corrupt(revision: u64) -> Why {
    Why::Corrupt(format!("revision {revision} of prices is not the document that the log names"))
}

fn changed(
    changes: &[PriceChange],
    effective: Timestamp,
    revision: u64,
    log_index: u64,
) -> v1::ChangedPrices {
    v1::ChangedPrices {
        differences: changes.iter().map(difference).collect(),
        effective_time: Some(proto_time(effective)),
        revision,
        log_index,
    }
}

fn difference(change: &PriceChange) -> v1::PriceDifference {
    let text = |value: &Option<serde_json::Value>| {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let there = || "priced".to_owned();
    match change.clone() {
        PriceChange::Added { provider, model } => {
            v1::PriceDifference { provider, model, to: there(), ..Default::default() }
        }
        PriceChange::Removed { provider, model } => {
            v1::PriceDifference { provider, model, from: there(), ..Default::default() }
        }
        PriceChange::Changed { provider, model, figure, from, to } => {
            let (from, to) = (text(&from), text(&to));
            v1::PriceDifference { provider, model, figure, from, to }
        }
    }
}
