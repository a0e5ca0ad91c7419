use std::fmt;

use async_trait::async_trait;
use domain::{Key, Timestamp, Uid};
use sqlx::Pool;
use zeroize::Zeroizing;

use crate::{
    StoreError,
    backend::{Backend, Options, Row, Value},
    mapping::Columns,
};

/// Shares of keys, kept apart from all else: whoever has everything but a share opens nothing. It has
/// backups of its own, kept for a short time, so that what is destroyed here is soon gone for good.
#[async_trait]
pub trait ShareStore: fmt::Debug + Send + Sync {
    /// Keeps a new share. On `Ok` it is durable; `Exists` when there is or was one with this id.
    async fn put_share(&self, id: Uid, share: &Key) -> Result<(), StoreError>;

    /// What is known of a share.
    async fn share(&self, id: Uid) -> Result<Share, StoreError>;

    /// Destroys shares, for good and durably, and says when the last of them was. One that was destroyed
    /// before stays so, and one that was never there will never be.
    async fn destroy_shares(&self, ids: &[Uid], now: Timestamp) -> Result<Timestamp, StoreError>;
}

/// What is known of a share.
#[derive(Debug)]
pub enum Share {
    /// It is here.
    Held(Key),
    /// It was destroyed.
    Destroyed(Timestamp),
    /// It never was here, or this store is not the one that it was put into.
    Unknown,
}

/// A store of shares over either database.
pub struct SqlShares<B: Backend> {
    readers: Pool<B>,
    options: Options<B>,
    /// Clears what a deletion leaves behind, as far as the database can.
    scrub: &'static str,
}

impl<B: Backend> SqlShares<B> {
    pub(crate) fn new(readers: Pool<B>, options: Options<B>, scrub: &'static str) -> Self {
        Self { readers, options, scrub }
    }

    /// On a connection of its own, which meets every promise of durability.
    async fn write(&self, statements: &[(&'static str, Vec<Value<'_>>)]) -> Result<(), StoreError> {
        let mut connection = B::connect(&self.options).await.map_err(StoreError::from_sqlx)?;
        for (sql, values) in statements {
            let done = B::execute(&mut connection, sql, values).await;
            done.map_err(|error| StoreError::writing(error, "a share"))?;
        }
        Ok(())
    }

    async fn fetch(&self, id: Uid) -> Result<Option<Row>, StoreError> {
        const SQL: &str = "SELECT share, destroyed_at FROM share WHERE id = $1";
        let mut connection = self.readers.acquire().await.map_err(StoreError::from_sqlx)?;
        let rows = B::fetch(&mut connection, SQL, &[id.as_ref().into()]).await;
        if rows.is_err() {
            drop(connection.detach());
        }
        Ok(rows.map_err(StoreError::from_sqlx)?.into_iter().next())
    }
}

#[async_trait]
impl<B: Backend> ShareStore for SqlShares<B> {
    async fn put_share(&self, id: Uid, share: &Key) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO share (id, share) VALUES ($1, $2)";
        let values = vec![Value::Bytes(id.as_ref()), Value::Bytes(share.expose())];
        self.write(&[(SQL, values)]).await
    }

    async fn share(&self, id: Uid) -> Result<Share, StoreError> {
        let Some(row) = self.fetch(id).await? else { return Ok(Share::Unknown) };
        let of = Columns { row: &row, table: "share" };
        if let Some(at) = of.optional_time("destroyed_at")? {
            return Ok(Share::Destroyed(at));
        }
        let mut bytes = Zeroizing::new(of.array("share")?);
        Ok(Share::Held(Key::take(&mut bytes)))
    }

    async fn destroy_shares(&self, ids: &[Uid], now: Timestamp) -> Result<Timestamp, StoreError> {
        const SQL: &str = "\
            INSERT INTO share (id, share, destroyed_at) VALUES ($1, NULL, $2) \
            ON CONFLICT (id) DO UPDATE SET share = NULL, \
                destroyed_at = COALESCE(share.destroyed_at, excluded.destroyed_at)";
        let one = |id| (SQL, vec![Value::Bytes(AsRef::<[u8]>::as_ref(id)), now.into()]);
        let statements: Vec<_> = ids.iter().map(one).chain([(self.scrub, Vec::new())]).collect();
        self.write(&statements).await?;
        let mut last = None;
        for id in ids {
            match self.share(*id).await? {
                Share::Destroyed(at) => last = last.max(Some(at)),
                Share::Held(_) | Share::Unknown => {
                    return Err(StoreError::Corrupt("share.destroyed_at".to_owned()));
                }
            }
        }
        Ok(last.unwrap_or(now))
    }
}

impl<B: Backend> fmt::Debug for SqlShares<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlShares").field("database", &B::NAME).finish_non_exhaustive()
    }
}
