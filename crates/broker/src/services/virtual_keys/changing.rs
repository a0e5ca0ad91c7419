use std::time::Duration;

use audit::{Kind, Record, proto_time};
use domain::{LONGEST_TTL, Timestamp, VirtualKeyName};
use store::{Change, PreviousKey, VirtualKeyRow};
use strongroom_proto::v1;

use super::{
    about, record,
    terms::{endpoints, labels, message, models, networks, rates},
};
use crate::{
    caller::Caller,
    core::{Core, check_etag, display_name, parse, parse_optional},
    custody::Sealed as _,
    refused::{Refused, Why},
    services::leases::ask::duration,
    virtual_key::MOST_PREVIOUS,
};

/// For how long older values are accepted after a rotation, unless told.
const OVERLAP: Duration = Duration::from_hours(24);

/// For how long they may be.
const LONGEST_OVERLAP: Duration = Duration::from_hours(90 * 24);

/// What was done to a key.
struct Done {
    kind: Kind,
    /// Whether leases from before may do what the key may not do any more.
    ends_leases: bool,
}

impl Core {
    pub(super) async fn update_virtual_key(
        &self,
        caller: &Caller,
        request: &v1::UpdateVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Refused> {
        let nothing = v1::VirtualKey::default();
        let asked = request.virtual_key.as_ref().unwrap_or(&nothing);
        let mask = request.update_mask.as_ref();
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        self.change_key(caller, &asked.name, |row| {
            check_etag(&asked.etag, row.revision)?;
            refuse_revoked(row)?;
            let before = row.clone();
            for path in paths {
                self.update_field(row, asked, path)?;
            }
            let ends_leases = !is_used_alike(&before, row);
            Ok((*row != before).then_some(Done { kind: Kind::VirtualKeyUpdated, ends_leases }))
        })
        .await
    }

    fn update_field(
        &self,
        row: &mut VirtualKeyRow,
        asked: &v1::VirtualKey,
        path: &str,
    ) -> Result<(), Why> {
        match path {
            "display_name" => row.display_name = display_name(&asked.display_name)?,
            "providers" => row.terms.scope.providers = self.providers(asked)?,
            "models" => row.terms.scope.models = models(asked)?,
            "endpoints" => row.terms.endpoints = endpoints(asked)?,
            "networks" => row.terms.networks = networks(asked)?,
            "expire_time" => row.terms.expires_at = self.expires_at(asked)?,
            "labels" => row.terms.labels = labels(asked)?,
            "owner" => row.terms.owner = parse_optional(&asked.owner)?,
            "group" => row.group = parse_optional(&asked.group)?,
            "requests_per_minute" => {
                row.rates.requests_per_minute = rates(asked)?.requests_per_minute;
            }
            "tokens_per_minute" => row.rates.tokens_per_minute = rates(asked)?.tokens_per_minute,
            "concurrent" => row.rates.concurrent = rates(asked)?.concurrent,
            _ => {
                let what = "update_mask may name display_name, providers, models, endpoints, \
                            networks, expire_time, labels, owner, group, requests_per_minute, \
                            tokens_per_minute, concurrent";
                return Err(Why::InvalidField(what.into()));
            }
        }
        Ok(())
    }

    pub(super) async fn rotate_virtual_key(
        &self,
        caller: &Caller,
        request: &v1::RotateVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Refused> {
        self.change_key(caller, &request.name, |row| {
            refuse_revoked(row)?;
            let verifier = self.verifier(&row.id, &request.key_sha256)?;
            let overlap = duration(request.overlap, "overlap")?.unwrap_or(OVERLAP);
            if overlap > LONGEST_OVERLAP {
                return Err(Why::InvalidField("overlap is 90 days at most".into()));
            }
            let now = self.clock.now();
            // The same value again: the answer to its rotation may have been lost.
            let is_new = row.verifier != verifier;
            if is_new {
                check_etag(&request.etag, row.revision)?;
                add_value(row, verifier, now)?;
            }
            let ended = end_values(row, now + overlap, now);
            // Leases by the value that was the only one know of no end of it.
            let ends_leases = (is_new || ended) && overlap < LONGEST_TTL;
            let kind = Kind::VirtualKeyRotated;
            Ok((is_new || ended).then_some(Done { kind, ends_leases }))
        })
        .await
    }

    pub(super) async fn retire_virtual_key_values(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::VirtualKey, Refused> {
        self.change_key(caller, name, |row| {
            refuse_revoked(row)?;
            let now = self.clock.now();
            let done = Done { kind: Kind::VirtualKeyUpdated, ends_leases: true };
            Ok(end_values(row, now, now).then_some(done))
        })
        .await
    }

    pub(super) async fn block_virtual_key(
        &self,
        caller: &Caller,
        name: &str,
        blocked: bool,
    ) -> Result<v1::VirtualKey, Refused> {
        self.change_key(caller, name, |row| {
            refuse_revoked(row)?;
            let kind = if blocked { Kind::VirtualKeyBlocked } else { Kind::VirtualKeyUnblocked };
            let changes = std::mem::replace(&mut row.blocked, blocked) != blocked;
            Ok(changes.then_some(Done { kind, ends_leases: false }))
        })
        .await
    }

    pub(super) async fn revoke_virtual_key(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::VirtualKey, Refused> {
        self.change_key(caller, name, |row| {
            let changes = !std::mem::replace(&mut row.revoked, true);
            Ok(changes.then_some(Done { kind: Kind::VirtualKeyRevoked, ends_leases: false }))
        })
        .await
    }

    /// Does something to a key, unless that changes nothing.
    async fn change_key(
        &self,
        caller: &Caller,
        name: &str,
        edit: impl FnOnce(&mut VirtualKeyRow) -> Result<Option<Done>, Why>,
    ) -> Result<v1::VirtualKey, Refused> {
        let name: VirtualKeyName = parse(name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let tenant = self.tenant(caller, &name.tenant).await?;
            let mut row = VirtualKeyRow::clone(&*self.virtual_key(caller, &name).await?);
            let Some(done) = edit(&mut row)? else { return Ok(message(&row)) };
            row.revision += 1;
            row.updated_at = self.clock.now();
            row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
            let told = matches!(done.kind, Kind::VirtualKeyUpdated | Kind::VirtualKeyRotated);
            let last = row.previous.iter().map(|value| value.ends_at).max().filter(|_| told);
            let record = Record {
                kind: done.kind.into(),
                ends_leases: done.ends_leases,
                previous_expire_time: last.map(proto_time),
                ..record(&row)
            };
            self.change(&Change::UpdateVirtualKey(row.clone()), caller.stamp(record)).await?;
            Ok::<_, Why>(message(&row))
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }
}

fn refuse_revoked(row: &VirtualKeyRow) -> Result<(), Why> {
    if row.revoked { Err(Why::VirtualKeyRevoked) } else { Ok(()) }
}

/// Whether a lease by one of these says what a lease by the other would.
fn is_used_alike(one: &VirtualKeyRow, other: &VirtualKeyRow) -> bool {
    let terms = |row: &VirtualKeyRow| {
        let terms = row.terms.clone();
        let all = (terms.scope, terms.endpoints, terms.networks, terms.expires_at);
        (all, row.group.clone(), row.rates)
    };
    terms(one) == terms(other)
}

/// Puts a new value in the place of the current one, which becomes an older one.
fn add_value(row: &mut VirtualKeyRow, verifier: [u8; 32], now: Timestamp) -> Result<(), Why> {
    if row.previous.iter().any(|value| value.verifier == verifier && value.ends_at > now) {
        let what = "key_sha256 is that of an older value of the key; make a new one";
        return Err(Why::InvalidField(what.into()));
    }
    row.previous.retain(|value| value.ends_at > now);
    // None makes room for another before its time: whoever rotates again, because the new value was
    // lost on the way, would end the one in use.
    if row.previous.len() >= MOST_PREVIOUS {
        return Err(Why::TooManyKeyValues);
    }
    let current = std::mem::replace(&mut row.verifier, verifier);
    let forever = Timestamp::from_millis(i64::MAX);
    row.previous.insert(0, PreviousKey { verifier: current, ends_at: forever });
    Ok(())
}

/// Sees to it that no older value is accepted at this time or after; says whether one would have been.
fn end_values(row: &mut VirtualKeyRow, end: Timestamp, now: Timestamp) -> bool {
    let mut changed = false;
    for value in &mut row.previous {
        changed |= value.ends_at > end;
        value.ends_at = value.ends_at.min(end);
    }
    if changed {
        row.previous.retain(|value| value.ends_at > now);
    }
    changed
}
