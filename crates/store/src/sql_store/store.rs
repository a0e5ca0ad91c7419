use std::{mem, ops::Range, sync::PoisonError, time::Duration};

use async_trait::async_trait;
use audit::{BUNDLE_WIDTH, Entry, Hash, Kind, RecordDraft};
use domain::{CredentialId, CredentialName, TenantId, Timestamp, Uid, VirtualKeyId};
use tokio::sync::watch;

use super::{SqlStore, hand};
use crate::{
    Appended, CallQuery, Change, CredentialRow, ErasureRow, Head, HealthRow, KeyPurpose, KeyRow,
    Legible, Page, Pending, PersonRow, SinkRow, Store, StoreError, TenantRow, TestRow, UsageQuery,
    UsageRow, UsageSum, VersionRow, VirtualKeyRow,
    backend::{Backend, Value},
    erasure, health, mapping,
    prune::{self, first_kept},
    usage,
    writer::{Approved, Job},
};

#[async_trait]
impl<B: Backend> Store for SqlStore<B> {
    fn deployment(&self) -> Uid {
        self.deployment
    }

    async fn head(&self) -> Result<Head, StoreError> {
        const SQL: &str = "SELECT size, time, frontier, changed FROM head";
        let head = self.one(SQL, &[], mapping::head).await?;
        head.ok_or_else(|| StoreError::Corrupt("head".to_owned()))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let now = self.one(B::NOW, &[], mapping::now).await?;
        now.ok_or_else(|| StoreError::Corrupt("now".to_owned()))
    }

    async fn append(&self, batch: &[Pending]) -> Result<Vec<Appended>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.write(|answer| Job::Append(batch.to_vec(), answer)).await
    }

    async fn apply(&self, change: &Change, record: &RecordDraft) -> Result<Entry, StoreError> {
        let work = Box::new((change.clone(), record.clone()));
        self.write(|answer| Job::Apply(work, answer)).await
    }

    async fn apply_approved(
        &self,
        used: &Pending,
        change: Option<&Change>,
        record: &RecordDraft,
    ) -> Result<Appended, StoreError> {
        let (used, change, record) = (used.clone(), change.cloned(), record.clone());
        let work = Box::new(Approved { used, change, record });
        self.write(|answer| Job::ApplyApproved(work, answer)).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, StoreError> {
        const SQL: &str = "SELECT * FROM tenant WHERE id = $1";
        self.one(SQL, &[id.as_str().into()], mapping::tenant).await
    }

    async fn tenants(&self, page: Page<'_>) -> Result<Vec<TenantRow>, StoreError> {
        const SQL: &str = "SELECT * FROM tenant WHERE id > $1 ORDER BY id LIMIT $2";
        self.all(SQL, &[page.after.into(), page.limit.into()], mapping::tenant).await
    }

    async fn keys(&self, tenant: Uid, purpose: KeyPurpose) -> Result<Vec<KeyRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM wrapped_key WHERE tenant_uid = $1 AND purpose = $2 \
            ORDER BY version DESC";
        let values = [tenant.as_ref().into(), mapping::purpose(purpose).into()];
        self.all(SQL, &values, mapping::key).await
    }

    async fn credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
    ) -> Result<Option<CredentialRow>, StoreError> {
        const SQL: &str = "SELECT * FROM credential WHERE tenant = $1 AND id = $2";
        self.one(SQL, &[tenant.as_str().into(), id.as_str().into()], mapping::credential).await
    }

    async fn credentials(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<CredentialRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM credential WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        let values = [tenant.as_str().into(), page.after.into(), page.limit.into()];
        self.all(SQL, &values, mapping::credential).await
    }

    async fn rotations_due(
        &self,
        by: Timestamp,
        after: Option<&CredentialName>,
        limit: u32,
    ) -> Result<Vec<CredentialName>, StoreError> {
        const SQL: &str = "\
            SELECT tenant, id FROM credential \
            WHERE rotation_due <= $1 AND enabled AND (tenant, id) > ($2, $3) \
            ORDER BY tenant, id LIMIT $4";
        // No name is empty.
        let (tenant, id) =
            after.map_or(("", ""), |name| (name.tenant.as_str(), name.credential.as_str()));
        let values = [by.into(), tenant.into(), id.into(), limit.into()];
        self.all(SQL, &values, mapping::credential_name).await
    }

    async fn has_served(
        &self,
        credential: &CredentialName,
        version: u64,
    ) -> Result<bool, StoreError> {
        const SQL: &str = "\
            SELECT status FROM usage_call \
            WHERE credential = $1 AND credential_version = $2 AND status BETWEEN 200 AND 299 LIMIT 1";
        let name = credential.to_string();
        let values = [name.as_str().into(), version.into()];
        Ok(!self.fetch(SQL, &values).await?.is_empty())
    }

    async fn version(
        &self,
        credential: Uid,
        version: u64,
    ) -> Result<Option<VersionRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM credential_version WHERE credential_uid = $1 AND version = $2";
        self.one(SQL, &[credential.as_ref().into(), version.into()], mapping::version).await
    }

    async fn credential_tests(&self, tenant: &TenantId) -> Result<Vec<TestRow>, StoreError> {
        const SQL: &str = "\
            SELECT test.* FROM credential_test AS test \
            JOIN credential ON credential.uid = test.credential_uid WHERE credential.tenant = $1";
        self.all(SQL, &[tenant.as_str().into()], mapping::test).await
    }

    async fn virtual_key(&self, id: &VirtualKeyId) -> Result<Option<VirtualKeyRow>, StoreError> {
        const SQL: &str = "SELECT * FROM virtual_key WHERE id = $1";
        self.one(SQL, &[id.as_str().into()], mapping::virtual_key).await
    }

    async fn virtual_keys(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<VirtualKeyRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM virtual_key WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        let values = [tenant.as_str().into(), page.after.into(), page.limit.into()];
        self.all(SQL, &values, mapping::virtual_key).await
    }

    async fn records(
        &self,
        from: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError> {
        const ALL: &str = concat!(
            "SELECT idx, body FROM record WHERE idx >= $1 AND idx >= ",
            first_kept!(),
            " ORDER BY idx LIMIT $2"
        );
        const OF_TENANT: &str = concat!(
            "SELECT idx, body FROM record WHERE idx >= $1 AND tenant = $3 AND idx >= ",
            first_kept!(),
            " ORDER BY idx LIMIT $2"
        );
        let (from, limit) = (from.into(), limit.into());
        match tenant {
            None => self.all(ALL, &[from, limit], mapping::entry).await,
            Some(tenant) => {
                self.all(OF_TENANT, &[from, limit, tenant.as_str().into()], mapping::entry).await
            }
        }
    }

    async fn records_before(
        &self,
        before: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError> {
        const ALL: &str = concat!(
            "SELECT idx, body FROM record WHERE idx < $1 AND idx >= ",
            first_kept!(),
            " ORDER BY idx DESC LIMIT $2"
        );
        const OF_TENANT: &str = concat!(
            "SELECT idx, body FROM record WHERE idx < $1 AND tenant = $3 AND idx >= ",
            first_kept!(),
            " ORDER BY idx DESC LIMIT $2"
        );
        let (before, limit) = (before.into(), limit.into());
        match tenant {
            None => self.all(ALL, &[before, limit], mapping::entry).await,
            Some(tenant) => {
                self.all(OF_TENANT, &[before, limit, tenant.as_str().into()], mapping::entry).await
            }
        }
    }

    async fn changes(&self, from: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        const SQL: &str = "\
            SELECT idx, body FROM record WHERE mutates AND idx >= $1 ORDER BY idx LIMIT $2";
        self.all(SQL, &[from.into(), limit.into()], mapping::entry).await
    }

    async fn changes_of_kind(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        const SQL: &str = "SELECT idx, body FROM record WHERE mutates AND kind = $1 ORDER BY idx";
        let kind = Value::Integer(Some(i32::from(kind).into()));
        self.all(SQL, &[kind], mapping::entry).await
    }

    fn wakeups(&self) -> Option<watch::Receiver<u64>> {
        self.wakeups.clone()
    }

    async fn lead(&self, holder: Uid, term: Duration) -> Result<bool, StoreError> {
        self.write(|answer| Job::Lead(holder, term, answer)).await
    }

    async fn resign(&self, holder: Uid) -> Result<(), StoreError> {
        self.write(|answer| Job::Resign(holder, answer)).await
    }

    async fn lease_records(&self, lease_hash: &[u8]) -> Result<Vec<Entry>, StoreError> {
        const SQL: &str = concat!(
            "SELECT idx, body FROM record WHERE lease_hash = $1 AND idx >= ",
            first_kept!(),
            " ORDER BY idx"
        );
        self.all(SQL, &[lease_hash.into()], mapping::entry).await
    }

    async fn live_leases(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        const SQL: &str = "\
            SELECT idx, body FROM record AS lease \
            WHERE tenant = $1 AND expires_at > $2 AND idx < $3 AND NOT EXISTS ( \
                SELECT 1 FROM record AS later \
                WHERE later.lease_hash = lease.lease_hash AND later.idx > lease.idx \
                    AND (later.expires_at IS NOT NULL OR later.kind IN ($5, $6))) \
            ORDER BY idx DESC LIMIT $4";
        let before = before.unwrap_or(u64::MAX);
        let ends = [Kind::LeaseReleased, Kind::LeaseRevoked];
        let [released, revoked] = ends.map(|kind| Value::Integer(Some(i32::from(kind).into())));
        let tenant = tenant.as_str().into();
        let values = [tenant, now.into(), before.into(), limit.into(), released, revoked];
        self.all(SQL, &values, mapping::entry).await
    }

    async fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        const KEPT: &str = "\
            SELECT idx, leaf_hash FROM record WHERE idx >= $1 AND idx < $2 ORDER BY idx";
        const PRUNED: &str = "\
            SELECT bundle, leaves FROM pruned_bundle WHERE bundle >= $1 AND bundle <= $2 \
            ORDER BY bundle";
        // In this order: what is pruned in between is then read twice, not missed.
        let values = [range.start.into(), range.end.into()];
        let kept = self.all(KEPT, &values, mapping::placed_leaf).await?;
        if u64::try_from(kept.len()).is_ok_and(|kept| range.start + kept >= range.end) {
            return Ok(kept.into_iter().map(|(_, leaf)| leaf).collect());
        }
        let values = [range.start / BUNDLE_WIDTH, range.end / BUNDLE_WIDTH].map(Value::from);
        let bundles = self.all(PRUNED, &values, mapping::pruned_bundle).await?;
        Ok(prune::joined(&bundles, kept, &range))
    }

    async fn prune(&self, before: u64, record: &RecordDraft) -> Result<Entry, StoreError> {
        prune::check(before, record)?;
        self.write(|answer| Job::Prune(Box::new((before, record.clone())), answer)).await
    }

    async fn first_kept(&self) -> Result<u64, StoreError> {
        const SQL: &str = concat!("SELECT ", first_kept!(), " AS found");
        Ok(self.one(SQL, &[], mapping::count).await?.unwrap_or_default())
    }

    async fn node_hashes(&self, level: u32, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        const SQL: &str = "\
            SELECT hash FROM tree_node WHERE level = $1 AND idx >= $2 AND idx < $3 ORDER BY idx";
        let values = [level.into(), range.start.into(), range.end.into()];
        self.all(SQL, &values, mapping::node).await
    }

    async fn put_policy(&self, sha256: &Hash, document: &[u8]) -> Result<(), StoreError> {
        self.write(|answer| Job::PutPolicy(*sha256, document.to_vec(), answer)).await
    }

    async fn policy(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        const SQL: &str = "SELECT document FROM policy WHERE sha256 = $1";
        self.one(SQL, &[Value::Bytes(sha256)], mapping::document).await
    }

    async fn put_proposal(
        &self,
        sha256: &Hash,
        request: &[u8],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|answer| Job::PutProposal(*sha256, request.to_vec(), [until, now], answer)).await
    }

    async fn proposal(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        const SQL: &str = "SELECT document FROM proposal WHERE sha256 = $1";
        self.one(SQL, &[Value::Bytes(sha256)], mapping::document).await
    }

    async fn put_person(&self, row: &PersonRow) -> Result<(), StoreError> {
        self.write(|answer| Job::PutPerson(Box::new(row.clone()), answer)).await
    }

    async fn person(&self, handle: &[u8; 32]) -> Result<Option<PersonRow>, StoreError> {
        const SQL: &str = "SELECT * FROM person WHERE handle = $1";
        self.one(SQL, &[Value::Bytes(handle)], mapping::person).await
    }

    async fn person_behind(&self, commitment: &Hash) -> Result<Option<PersonRow>, StoreError> {
        const SQL: &str = "SELECT * FROM person WHERE commitment = $1";
        self.one(SQL, &[Value::Bytes(commitment)], mapping::person).await
    }

    async fn people(
        &self,
        tenant: Uid,
        after: Option<[u8; 32]>,
        limit: u32,
    ) -> Result<Vec<PersonRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM person WHERE tenant_uid = $1 AND handle > $2 ORDER BY handle LIMIT $3";
        let after = after.as_ref().map_or(&[][..], |handle| handle.as_slice());
        let values = [tenant.as_ref().into(), Value::Bytes(after), limit.into()];
        self.all(SQL, &values, mapping::person).await
    }

    async fn erasures(&self) -> Result<Legible<ErasureRow>, StoreError> {
        const SQL: &str = "SELECT * FROM erasure ORDER BY begun_at, id";
        self.legible(SQL, erasure::erasure).await
    }

    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError> {
        self.write(|answer| Job::PutCheckpoint(size, note.to_owned(), answer)).await
    }

    async fn drop_checkpoint(&self, size: u64) -> Result<(), StoreError> {
        self.write(|answer| Job::DropCheckpoint(size, answer)).await
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        self.one("SELECT note FROM checkpoint", &[], mapping::note).await
    }

    async fn sink(&self, name: &str) -> Result<Option<SinkRow>, StoreError> {
        const SQL: &str = "SELECT * FROM sink WHERE name = $1";
        self.one(SQL, &[name.into()], mapping::sink).await
    }

    async fn sinks(&self) -> Result<Legible<SinkRow>, StoreError> {
        self.legible("SELECT * FROM sink ORDER BY name", mapping::sink).await
    }

    async fn put_sink(&self, row: &SinkRow) -> Result<(), StoreError> {
        self.write(|answer| Job::PutSink(row.clone(), answer)).await
    }

    async fn put_health(&self, row: &HealthRow) -> Result<(), StoreError> {
        self.write(|answer| Job::PutHealth(Box::new(row.clone()), answer)).await
    }

    async fn claim_probe(
        &self,
        credential: Uid,
        since: Timestamp,
        now: Timestamp,
        lost: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(|answer| Job::ClaimProbe(credential, [since, now, lost], answer)).await
    }

    async fn healths(&self, changed_from: Timestamp) -> Result<Vec<HealthRow>, StoreError> {
        const SQL: &str = "SELECT * FROM credential_health WHERE changed_at >= $1";
        self.all(SQL, &[changed_from.into()], health::read).await
    }

    async fn health(&self, credential: Uid) -> Result<Option<HealthRow>, StoreError> {
        const SQL: &str = "SELECT * FROM credential_health WHERE credential_uid = $1";
        self.one(SQL, &[credential.as_ref().into()], health::read).await
    }

    async fn count_usage(&self, calls: &[UsageRow]) -> Result<Vec<bool>, StoreError> {
        let mut new = Vec::with_capacity(calls.len());
        for some in calls.chunks(usage::AT_ONCE) {
            let counted = hand(&self.aside, |answer| Job::CountUsage(some.to_vec(), answer)).await;
            new.extend(counted?);
        }
        Ok(new)
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        let (sql, values) = usage::sums(query);
        self.all(sql, &values, mapping::usage_sum).await
    }

    async fn calls(&self, query: &CallQuery) -> Result<Vec<UsageRow>, StoreError> {
        let (sql, values) = usage::calls(query);
        self.all(sql, &values, mapping::usage_call).await
    }

    async fn forget_usage(
        &self,
        calls_before: Timestamp,
        sums_before: Timestamp,
    ) -> Result<u64, StoreError> {
        hand(&self.aside, |answer| Job::ForgetUsage(calls_before, sums_before, answer)).await
    }

    async fn prices(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        const SQL: &str = "SELECT document FROM price WHERE sha256 = $1";
        self.one(SQL, &[Value::Bytes(sha256)], mapping::price_document).await
    }

    async fn close(&self) {
        // When nobody receives it, the writer has ended already.
        let _ = self.writer.send(Job::Close).await;
        let _ = self.aside.send(Job::Close).await;
        if let Some(counter) = &self.counter {
            let _ = counter.send(Job::Close).await;
        }
        let mut task = {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            mem::take(&mut *task)
        };
        while task.join_next().await.is_some() {}
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.readers.close().await;
    }
}
