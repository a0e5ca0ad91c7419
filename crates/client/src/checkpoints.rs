use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use audit::{Checkpoint, VerifierKey};

use crate::ClientError;

/// The largest checkpoint of the log that this process saw signed, from any broker, for as long as it
/// runs. Telling it to brokers lets each of them notice when its database has lost records.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// From the configuration, or else from the first session.
    key: Mutex<Key>,
    largest: RwLock<Option<Arc<Seen>>>,
    /// The last note whose signature did not verify: it is not tried, or complained of, again.
    refused: Mutex<String>,
}

#[derive(Debug, Default)]
enum Key {
    #[default]
    Unknown,
    Pinned(VerifierKey),
    Told(VerifierKey),
}

#[derive(Debug)]
struct Seen {
    size: u64,
    note: String,
}

impl Checkpoints {
    /// Believes this key only.
    pub(crate) fn pinned(key: VerifierKey) -> Self {
        Self { key: Mutex::new(Key::Pinned(key)), ..Self::default() }
    }

    /// Takes the key that a broker named at the opening of a session. With a pinned key, another one
    /// is an error; without, the first one stays.
    pub(crate) fn learn_key(&self, text: &str) -> Result<(), ClientError> {
        if text.is_empty() {
            return Ok(());
        }
        let told: VerifierKey = text
            .parse()
            .map_err(|_| ClientError::BadAnswer("the log's verifier key is malformed"))?;
        let mut key = lock(&self.key);
        match &*key {
            Key::Unknown => *key = Key::Told(told),
            Key::Pinned(pinned) if *pinned != told => return Err(ClientError::OtherLog),
            Key::Told(first) if *first != told => {
                tracing::warn!(
                    "a broker names another log key than before: checkpoints by it are ignored \
                     until this process is started again"
                );
            }
            Key::Pinned(_) | Key::Told(_) => {}
        }
        Ok(())
    }

    /// Takes in what came with a lease. What is not larger than what is known costs a comparison.
    pub(crate) fn see(&self, note: &str) {
        let largest = self.largest();
        if note.is_empty() || largest.as_ref().is_some_and(|largest| largest.note == note) {
            return;
        }
        let known = largest.map(|largest| largest.size);
        let Some(size) = Checkpoint::claimed_size(note).filter(|size| Some(*size) > known) else {
            return;
        };
        let key = match &*lock(&self.key) {
            Key::Unknown => return,
            Key::Pinned(key) | Key::Told(key) => key.clone(),
        };
        if *lock(&self.refused) == note {
            return;
        }
        match Checkpoint::verify(note, &key) {
            Ok(_) => self.advance(Seen { size, note: note.to_owned() }),
            Err(error) => {
                metrics::counter!("strongroom_client_bad_checkpoints_total").increment(1);
                tracing::warn!(%error, "a broker's checkpoint is not signed by the log's key");
                note.clone_into(&mut lock(&self.refused));
            }
        }
    }

    /// What to tell a broker; empty before the first.
    pub(crate) fn note(&self) -> String {
        self.largest().map(|largest| largest.note.clone()).unwrap_or_default()
    }

    fn largest(&self) -> Option<Arc<Seen>> {
        self.largest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn advance(&self, seen: Seen) {
        let mut largest = self.largest.write().unwrap_or_else(PoisonError::into_inner);
        if largest.as_ref().is_none_or(|largest| largest.size < seen.size) {
            *largest = Some(Arc::new(seen));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use audit::SignerKey;

    use super::*;

    fn signer(seed: u8) -> SignerKey {
        SignerKey::from_seed("strongroom.test/log", &[seed; 32]).unwrap()
    }

    fn note(size: u64, seed: u8) -> String {
        Checkpoint::sign(size, &[9; 32], &signer(seed)).unwrap()
    }

    #[test]
    fn the_largest_signed_checkpoint_stays() {
        let seen = Checkpoints::default();
        seen.see(&note(4, 1));
        assert_eq!(seen.note(), "", "no key, no belief");
        seen.learn_key(&signer(1).verifier().to_string()).unwrap();
        for (size, seed, largest) in [(4, 1, 4), (3, 1, 4), (9, 2, 4), (9, 1, 9), (9, 2, 9)] {
            seen.see(&note(size, seed));
            assert_eq!(seen.note(), note(largest, 1));
        }
        for malformed in ["", "x", "log\n99\n", "log\n99999999999999999999\n"] {
            seen.see(malformed);
            assert_eq!(seen.note(), note(9, 1));
        }
    }

    #[test]
    fn a_pinned_key_is_believed_alone_and_the_first_of_others_stays() {
        let text = |seed| signer(seed).verifier().to_string();
        let pinned = Checkpoints::pinned(signer(1).verifier().clone());
        assert!(matches!(pinned.learn_key(&text(2)), Err(ClientError::OtherLog)));
        pinned.learn_key(&text(1)).unwrap();
        pinned.learn_key("").unwrap();

        let told = Checkpoints::default();
        told.learn_key(&text(1)).unwrap();
        told.learn_key(&text(2)).unwrap();
        told.see(&note(5, 2));
        assert_eq!(told.note(), "");
        assert!(matches!(told.learn_key("no key"), Err(ClientError::BadAnswer(_))));
    }
}
