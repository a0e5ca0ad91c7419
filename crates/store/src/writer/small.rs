use std::time::Duration;

use audit::Hash;
use domain::{Timestamp, Uid};

use super::Writer;
use crate::{
    HealthRow, SinkRow, StoreError, UsageRow,
    backend::{Backend, Value},
    error::is_lost,
    health, usage,
};

/// What is not part of the log, and has a transaction of its own.
impl<B: Backend> Writer<B> {
    pub(super) async fn put_policy(
        &mut self,
        sha256: &Hash,
        document: &[u8],
    ) -> Result<(), StoreError> {
        const SQL: &str = "\
            INSERT INTO policy (sha256, document) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING";
        self.execute(SQL, &[Value::Bytes(sha256), Value::Bytes(document)]).await.map(drop)
    }

    pub(super) async fn put_proposal(
        &mut self,
        sha256: &Hash,
        request: &[u8],
        [until, now]: [Timestamp; 2],
    ) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM proposal WHERE until <= $1";
        const SQL: &str = "\
            INSERT INTO proposal (sha256, document, until) VALUES ($1, $2, $3) \
            ON CONFLICT (sha256) DO UPDATE SET until = excluded.until \
            WHERE excluded.until > proposal.until";
        self.execute(FORGET, &[now.into()]).await?;
        let values = [Value::Bytes(sha256), Value::Bytes(request), until.into()];
        self.execute(SQL, &values).await.map(drop)
    }

    pub(super) async fn put_checkpoint(&mut self, size: u64, note: &str) -> Result<(), StoreError> {
        const SQL: &str = "\
            INSERT INTO checkpoint (one, size, note) VALUES (1, $1, $2) \
            ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note \
            WHERE excluded.size >= checkpoint.size";
        let values = [size.into(), Value::Text(Some(note))];
        self.execute(SQL, &values).await.map(drop)
    }

    pub(super) async fn drop_checkpoint(&mut self, size: u64) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM checkpoint WHERE size >= $1";
        self.execute(SQL, &[size.into()]).await.map(drop)
    }

    pub(super) async fn lead(&mut self, holder: Uid, term: Duration) -> Result<bool, StoreError> {
        let term = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
        Ok(self.execute(B::LEAD, &[holder.as_ref().into(), term.into()]).await? > 0)
    }

    pub(super) async fn resign(&mut self, holder: Uid) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM leader WHERE holder = $1";
        self.execute(SQL, &[holder.as_ref().into()]).await.map(drop)
    }

    pub(super) async fn put_sink(&mut self, row: &SinkRow) -> Result<(), StoreError> {
        const SQL: &str = "\
            INSERT INTO sink (name, next_index, row_mac) VALUES ($1, $2, $3) \
            ON CONFLICT (name) DO UPDATE SET \
                next_index = excluded.next_index, row_mac = excluded.row_mac";
        let values = [row.name.as_str().into(), row.next_index.into(), Value::Bytes(&row.row_mac)];
        self.execute(SQL, &values).await.map(drop)
    }

    pub(super) async fn put_health(&mut self, row: &HealthRow) -> Result<(), StoreError> {
        let mut connection = self.connected().await?;
        let done = health::put::<B>(&mut connection, row).await;
        if !done.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
        }
        done.map(drop).map_err(|error| StoreError::writing(error, "credential"))
    }

    pub(super) async fn claim_probe(
        &mut self,
        credential: Uid,
        [since, now, lost]: [Timestamp; 3],
    ) -> Result<bool, StoreError> {
        let values = [credential.as_ref().into(), since.into(), now.into(), lost.into()];
        Ok(self.execute(B::CLAIM_PROBE, &values).await? > 0)
    }

    /// An answer that is lost leaves the outcome open: whoever asks again is told what is new then.
    pub(super) async fn count_usage(
        &mut self,
        calls: &[UsageRow],
    ) -> Result<Vec<bool>, StoreError> {
        let mut connection = self.connected().await?;
        let counted = usage::count::<B>(&mut connection, calls).await;
        if counted.is_ok() {
            self.connection = Some(connection);
        }
        counted.map_err(StoreError::from_sqlx)
    }

    pub(super) async fn forget_usage(
        &mut self,
        calls_before: Timestamp,
        sums_before: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut connection = self.connected().await?;
        let forgotten = usage::forget::<B>(&mut connection, calls_before, sums_before).await;
        if !forgotten.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
        }
        forgotten.map_err(StoreError::from_sqlx)
    }
}
