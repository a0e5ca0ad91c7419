use std::str::FromStr;

use audit::{Entry, Frontier};
use domain::{
    CredentialName, KeyTerms, OnMissing, ProviderId, RateLimits, Rotation, Scope, Timestamp, Uid,
};
use serde::de::DeserializeOwned;

use crate::{
    CredentialRow, Head, KeyPurpose, KeyRow, KeyWork, PersonRow, PreviousKey, SinkRow, StoreError,
    TenantKey, TenantRow, TestRow, VersionRow, VirtualKeyRow, backend::Row,
    rotation::read_rotation, routing::read_rules,
};

mod usage;

pub(crate) use usage::{usage_call, usage_id, usage_sum};

/// Reads the columns of one table.
pub(crate) struct Columns<'a> {
    pub(crate) row: &'a Row,
    pub(crate) table: &'static str,
}

impl Columns<'_> {
    pub(crate) fn corrupt(&self, column: &str) -> StoreError {
        StoreError::Corrupt(format!("{}.{column}", self.table))
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        let number: i64 = self.row.read(self.table, column)?;
        T::try_from(number).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn optional_number(&self, column: &str) -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = self.row.read(self.table, column)?;
        number.map(|number| u64::try_from(number).map_err(|_| self.corrupt(column))).transpose()
    }

    pub(crate) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.number(column).map(Timestamp::from_millis)
    }

    pub(crate) fn optional_time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        let millis: Option<i64> = self.row.read(self.table, column)?;
        Ok(millis.map(Timestamp::from_millis))
    }

    pub(crate) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        self.row.read(self.table, column)
    }

    pub(crate) fn text(&self, column: &str) -> Result<String, StoreError> {
        self.row.read(self.table, column)
    }

    pub(crate) fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.row.read(self.table, column)
    }

    pub(crate) fn parsed<T: FromStr>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| self.corrupt(column))
    }

    pub(crate) fn optional_parsed<T: FromStr>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.optional_text(column)?;
        text.map(|text| text.parse().map_err(|_| self.corrupt(column))).transpose()
    }

    pub(crate) fn pairs(&self, column: &str) -> Result<Vec<(String, String)>, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn list<T: FromStr>(&self, column: &str) -> Result<Vec<T>, StoreError> {
        let texts: Vec<String> =
            serde_json::from_str(&self.text(column)?).map_err(|_| self.corrupt(column))?;
        texts.iter().map(|text| text.parse().map_err(|_| self.corrupt(column))).collect()
    }

    pub(crate) fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        self.row.read(self.table, column)
    }

    pub(crate) fn array<const N: usize>(&self, column: &str) -> Result<[u8; N], StoreError> {
        self.bytes(column)?.try_into().map_err(|_| self.corrupt(column))
    }

    pub(crate) fn uid(&self, column: &str) -> Result<Uid, StoreError> {
        self.array(column).map(Uid::from_bytes)
    }
}

/// Texts as one column.
pub(crate) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts.into_iter().map(|text| text.as_ref().into()).collect();
    serde_json::Value::Array(texts).to_string()
}

pub(crate) fn head(row: &Row) -> Result<Head, StoreError> {
    let of = Columns { row, table: "head" };
    let frontier =
        Frontier::from_bytes(&of.bytes("frontier")?).map_err(|_| of.corrupt("frontier"))?;
    let size: u64 = of.number("size")?;
    let changed = of.number("changed")?;
    if frontier.size() != size {
        return Err(of.corrupt("size"));
    }
    if changed > size {
        return Err(of.corrupt("changed"));
    }
    Ok(Head { frontier, time: of.time("time")?, changed })
}

pub(crate) fn now(row: &Row) -> Result<Timestamp, StoreError> {
    Columns { row, table: "head" }.time("now")
}

pub(crate) fn deployment(row: &Row) -> Result<Uid, StoreError> {
    Columns { row, table: "head" }.uid("deployment")
}

pub(crate) fn entry(row: &Row) -> Result<Entry, StoreError> {
    let of = Columns { row, table: "record" };
    Ok(Entry { index: of.number("idx")?, body: of.bytes("body")? })
}

/// The index of a change and the tenant that it names.
pub(crate) fn change(row: &Row) -> Result<(u64, Option<String>), StoreError> {
    let of = Columns { row, table: "record" };
    Ok((of.number("idx")?, of.optional_text("tenant")?))
}

/// A leaf hash and its place.
pub(crate) fn placed_leaf(row: &Row) -> Result<(u64, audit::Hash), StoreError> {
    let of = Columns { row, table: "record" };
    Ok((of.number("idx")?, of.array("leaf_hash")?))
}

/// A pruned bundle and its leaf hashes.
pub(crate) fn pruned_bundle(row: &Row) -> Result<(u64, Vec<audit::Hash>), StoreError> {
    let of = Columns { row, table: "pruned_bundle" };
    let bytes = of.bytes("leaves")?;
    let (leaves, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() && leaves.len() == 256 {
        Ok((of.number("bundle")?, leaves.to_vec()))
    } else {
        Err(of.corrupt("leaves"))
    }
}

pub(crate) fn node(row: &Row) -> Result<audit::Hash, StoreError> {
    Columns { row, table: "tree_node" }.array("hash")
}

pub(crate) fn count(row: &Row) -> Result<u64, StoreError> {
    Columns { row, table: "record" }.number("found")
}

pub(crate) fn sink(row: &Row) -> Result<SinkRow, StoreError> {
    let of = Columns { row, table: "sink" };
    Ok(SinkRow {
        name: of.text("name")?,
        next_index: of.number("next_index")?,
        row_mac: of.array("row_mac")?,
    })
}

pub(crate) fn document(row: &Row) -> Result<Vec<u8>, StoreError> {
    Columns { row, table: "policy" }.bytes("document")
}

pub(crate) fn person(row: &Row) -> Result<PersonRow, StoreError> {
    let of = Columns { row, table: "person" };
    Ok(PersonRow {
        handle: of.array("handle")?,
        commitment: of.array("commitment")?,
        tenant_uid: of.uid("tenant_uid")?,
        sealed: of.bytes("sealed")?,
        row_mac: of.array("row_mac")?,
    })
}

pub(crate) fn note(row: &Row) -> Result<String, StoreError> {
    Columns { row, table: "checkpoint" }.text("note")
}

pub(crate) fn tenant(row: &Row) -> Result<TenantRow, StoreError> {
    let of = Columns { row, table: "tenant" };
    let on_missing: Result<OnMissing, ()> = of.text("on_missing")?.parse();
    Ok(TenantRow {
        uid: of.uid("uid")?,
        id: of.parsed("id")?,
        display_name: of.text("display_name")?,
        preferred_provider: of.optional_parsed("preferred_provider")?,
        on_missing: on_missing.map_err(|()| of.corrupt("on_missing"))?,
        rules: read_rules(&of.text("rules")?)?,
        suspended: of.flag("suspended")?,
        revision: of.number("revision")?,
        request_id: of.optional_parsed("request_id")?,
        created_at: of.time("created_at")?,
        updated_at: of.time("updated_at")?,
        row_mac: of.array("row_mac")?,
    })
}

pub(crate) fn key(row: &Row) -> Result<KeyRow, StoreError> {
    let of = Columns { row, table: "wrapped_key" };
    let purpose = match of.text("purpose")?.as_str() {
        "kek" => KeyPurpose::Kek,
        "pepper" => KeyPurpose::Pepper,
        _ => return Err(of.corrupt("purpose")),
    };
    Ok(KeyRow {
        uid: of.uid("uid")?,
        tenant_uid: of.uid("tenant_uid")?,
        purpose,
        version: of.number("version")?,
        wrapped: of.bytes("wrapped")?,
        request_id: of.optional_parsed("request_id")?,
        created_at: of.time("created_at")?,
    })
}

pub(crate) fn purpose(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Kek => "kek",
        KeyPurpose::Pepper => "pepper",
    }
}

pub(crate) fn credential(row: &Row) -> Result<CredentialRow, StoreError> {
    let of = Columns { row, table: "credential" };
    let rotation = read_rotation(&of.text("rotation")?)?;
    // Under no MAC, and says when nobody else would look.
    if of.optional_time("rotation_due")? != rotation.as_ref().and_then(Rotation::due) {
        return Err(of.corrupt("rotation_due"));
    }
    Ok(CredentialRow {
        uid: of.uid("uid")?,
        tenant_uid: of.uid("tenant_uid")?,
        tenant: of.parsed("tenant")?,
        id: of.parsed("id")?,
        provider: of.parsed("provider")?,
        kind: of.text("kind")?,
        settings: of.pairs("settings")?,
        enabled: of.flag("enabled")?,
        priority: of.number("priority")?,
        base_url: of.optional_text("base_url")?,
        models: of.list("models")?,
        last_four: of.text("last_four")?,
        current_version: of.number("current_version")?,
        revision: of.number("revision")?,
        created_at: of.time("created_at")?,
        updated_at: of.time("updated_at")?,
        row_mac: of.array("row_mac")?,
        rotation,
    })
}

pub(crate) fn credential_name(row: &Row) -> Result<CredentialName, StoreError> {
    let of = Columns { row, table: "credential" };
    Ok(CredentialName { tenant: of.parsed("tenant")?, credential: of.parsed("id")? })
}

pub(crate) fn version(row: &Row) -> Result<VersionRow, StoreError> {
    let of = Columns { row, table: "credential_version" };
    Ok(VersionRow {
        credential_uid: of.uid("credential_uid")?,
        version: of.number("version")?,
        envelope: of.bytes("envelope")?,
        request_id: of.optional_parsed("request_id")?,
        created_at: of.time("created_at")?,
    })
}

pub(crate) fn test(row: &Row) -> Result<TestRow, StoreError> {
    let of = Columns { row, table: "credential_test" };
    Ok(TestRow {
        credential_uid: of.uid("credential_uid")?,
        version: of.number("version")?,
        verdict: of.text("verdict")?,
        tested_at: of.time("tested_at")?,
        row_mac: of.array("row_mac")?,
    })
}

pub(crate) fn virtual_key(row: &Row) -> Result<VirtualKeyRow, StoreError> {
    let of = Columns { row, table: "virtual_key" };
    Ok(VirtualKeyRow {
        id: of.parsed("id")?,
        tenant_uid: of.uid("tenant_uid")?,
        tenant: of.parsed("tenant")?,
        display_name: of.text("display_name")?,
        verifier: of.array("verifier")?,
        previous: previous(&of)?,
        terms: terms(&of)?,
        group: of.optional_parsed("key_group")?,
        rates: RateLimits {
            requests_per_minute: of.optional_number("requests_per_minute")?,
            tokens_per_minute: of.optional_number("tokens_per_minute")?,
            concurrent: of.optional_number("concurrent")?,
        },
        blocked: of.flag("blocked")?,
        revoked: of.flag("revoked")?,
        revision: of.number("revision")?,
        created_at: of.time("created_at")?,
        updated_at: of.time("updated_at")?,
        row_mac: of.array("row_mac")?,
    })
}

/// A document of prices.
pub(crate) fn price_document(row: &Row) -> Result<Vec<u8>, StoreError> {
    Columns { row, table: "price" }.bytes("document")
}

fn previous(of: &Columns<'_>) -> Result<Vec<PreviousKey>, StoreError> {
    let bytes = of.bytes("previous")?;
    let (values, rest) = bytes.as_chunks::<40>();
    if !rest.is_empty() {
        return Err(of.corrupt("previous"));
    }
    let value = |value: &[u8; 40]| {
        let (verifier, ends_at) = value.split_first_chunk::<32>()?;
        let ends_at = i64::from_be_bytes(*ends_at.first_chunk()?);
        Some(PreviousKey { verifier: *verifier, ends_at: Timestamp::from_millis(ends_at) })
    };
    values.iter().map(|it| value(it).ok_or_else(|| of.corrupt("previous"))).collect()
}

fn terms(of: &Columns<'_>) -> Result<KeyTerms, StoreError> {
    let label = |(name, text): (String, String)| {
        let corrupt = |_| of.corrupt("labels");
        Ok((name.parse().map_err(corrupt)?, text.parse().map_err(corrupt)?))
    };
    Ok(KeyTerms {
        scope: Scope { providers: of.list("scope_providers")?, models: of.list("scope_models")? },
        endpoints: of.list("endpoints")?,
        networks: of.list("networks")?,
        expires_at: of.optional_time("expires_at")?,
        labels: of.pairs("labels")?.into_iter().map(label).collect::<Result<_, StoreError>>()?,
        owner: of.optional_parsed("owner")?,
    })
}

pub(crate) fn tenant_key(row: &Row) -> Result<TenantKey, StoreError> {
    let of = Columns { row, table: "wrapped_key" };
    Ok(TenantKey { tenant: of.parsed("tenant")?, key: key(row)? })
}

/// A version, and the provider of its credential.
pub(crate) fn version_of_provider(row: &Row) -> Result<(VersionRow, ProviderId), StoreError> {
    let of = Columns { row, table: "credential" };
    Ok((version(row)?, of.parsed("provider")?))
}

/// A version of a key, and how many rows are under it.
pub(crate) fn references(row: &Row) -> Result<(u32, u64), StoreError> {
    let of = Columns { row, table: "wrapped_key" };
    Ok((u32::from_be_bytes(of.array("version")?), of.number("found")?))
}

pub(crate) fn key_work(row: &Row) -> Result<KeyWork, StoreError> {
    let of = Columns { row, table: "key_work" };
    Ok(KeyWork {
        name: of.text("name")?,
        request_id: of.optional_parsed("request_id")?,
        begun_at: of.time("begun_at")?,
        done: of.flag("done")?,
        row_mac: of.array("row_mac")?,
    })
}
