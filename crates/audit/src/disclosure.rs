use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use strongroom_proto::v1;
use thiserror::Error;

use crate::{Hash, Record};

/// Who stands behind a commitment in a record: the SPIFFE ID of a person, and the salt without which
/// nobody can try ids out. A record holds `SHA-256(salt ‖ id)` only, so that forgetting both leaves
/// the log as it is.
#[derive(Clone, Eq, PartialEq)]
pub struct Disclosure {
    commitment: Hash,
    salt: Hash,
    value: String,
}

/// Salt and id are not those of the commitment.
#[derive(Debug, Error)]
#[error("the name is not the one that the record commits to")]
pub struct NotDisclosed;

impl Disclosure {
    /// The commitment to a value under a salt, which must be random and of no other use.
    pub fn new(salt: Hash, value: &str) -> Self {
        let commitment = Sha256::new().chain_update(salt).chain_update(value).finalize().into();
        Self { commitment, salt, value: value.to_owned() }
    }

    /// What somebody says is behind a commitment, if it is.
    pub fn check(commitment: &[u8], salt: &[u8], value: &str) -> Result<Self, NotDisclosed> {
        let made = Self::new(salt.try_into().map_err(|_| NotDisclosed)?, value);
        if made.commitment == commitment { Ok(made) } else { Err(NotDisclosed) }
    }

    /// What records hold.
    pub fn commitment(&self) -> &Hash {
        &self.commitment
    }

    /// The salt.
    pub fn salt(&self) -> &Hash {
        &self.salt
    }

    /// The SPIFFE ID.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl std::fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disclosure({})", hex::encode(self.commitment))
    }
}

/// The people whose names are known.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<Hash, Disclosure>);

impl Names {
    /// Takes a name.
    pub fn know(&mut self, name: Disclosure) {
        self.0.insert(*name.commitment(), name);
    }

    /// The names that a broker tells, as far as they are those that the records commit to.
    pub fn told(disclosures: &[v1::Disclosure]) -> Self {
        let check = |it: &v1::Disclosure| Disclosure::check(&it.commitment, &it.salt, &it.value);
        disclosures.iter().map(check).filter_map(Result::ok).collect()
    }

    /// Takes all of these names.
    pub fn know_all(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The commitment to a name, if it is known.
    pub fn commitment_to(&self, value: &str) -> Option<Hash> {
        let mut known = self.0.values();
        known.find(|name| name.value() == value).map(|name| *name.commitment())
    }

    /// The SPIFFE ID behind a commitment, if it is known.
    pub fn behind(&self, commitment: &Hash) -> Option<&str> {
        self.0.get(commitment).map(Disclosure::value)
    }

    /// The SPIFFE ID of who did what a record tells, if it is there or known.
    pub fn actor<'a>(&'a self, record: &'a Record) -> Option<&'a str> {
        self.find(&record.actor, &record.actor_commitment)
    }

    /// The SPIFFE ID of whom a record is about, if it is there or known.
    pub fn subject<'a>(&'a self, record: &'a Record) -> Option<&'a str> {
        self.find(&record.subject, &record.subject_commitment)
    }

    /// The actor for people to read: the SPIFFE ID, or the commitment to it, or nothing.
    pub fn show_actor(&self, record: &Record) -> String {
        show(self.actor(record), &record.actor_commitment)
    }

    /// The subject for people to read: the SPIFFE ID, or the commitment to it, or nothing.
    pub fn show_subject(&self, record: &Record) -> String {
        show(self.subject(record), &record.subject_commitment)
    }

    /// Every name, in the order of the commitments.
    pub fn all(&self) -> Vec<&Disclosure> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|name| *name.commitment());
        all
    }

    fn find<'a>(&'a self, name: &'a str, commitment: &[u8]) -> Option<&'a str> {
        if name.is_empty() { self.0.get(commitment).map(Disclosure::value) } else { Some(name) }
    }
}

impl FromIterator<Disclosure> for Names {
    fn from_iter<I: IntoIterator<Item = Disclosure>>(names: I) -> Self {
        let mut known = Self::default();
        names.into_iter().for_each(|name| known.know(name));
        known
    }
}

fn show(name: Option<&str>, commitment: &[u8]) -> String {
    match name {
        Some(name) => name.to_owned(),
        None if commitment.is_empty() => String::new(),
        None => format!("sha256:{}", hex::encode(commitment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_is_to_one_salt_and_one_value() {
        let made = Disclosure::new([1; 32], "spiffe://a.b/admin/ann");
        let check = |salt: &[u8], value| Disclosure::check(made.commitment(), salt, value).is_ok();
        assert!(check(&[1; 32], "spiffe://a.b/admin/ann"));
        assert!(!check(&[2; 32], "spiffe://a.b/admin/ann"));
        assert!(!check(&[1; 32], "spiffe://a.b/admin/bob"));
        assert!(!check(&[1; 31], "spiffe://a.b/admin/ann"));
    }

    #[test]
    fn a_name_is_shown_where_it_is_known_and_the_commitment_where_not() {
        let ann = Disclosure::new([1; 32], "spiffe://a.b/admin/ann");
        let names = Names::from_iter([ann.clone()]);
        let by = |commitment: &[u8]| Record {
            actor_commitment: commitment.to_vec().into(),
            ..Record::default()
        };
        assert_eq!(names.show_actor(&by(ann.commitment())), "spiffe://a.b/admin/ann");
        assert_eq!(names.show_actor(&by(&[2; 32])), format!("sha256:{}", "02".repeat(32)));
        assert_eq!(
            names.show_actor(&Record { actor: "spiffe://a.b/c".into(), ..by(&[]) }),
            "spiffe://a.b/c"
        );
        assert_eq!(names.show_actor(&by(&[])), "");
    }

    #[test]
    fn debug_does_not_name_anyone() {
        let made = Disclosure::new([1; 32], "spiffe://a.b/admin/ann");
        assert!(!format!("{made:?}").contains("ann"));
    }
}
