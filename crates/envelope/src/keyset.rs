use std::fmt::Write as _;

use argon2::{Algorithm, Argon2, Params, Version};
use domain::{Fields, Key, Secret, Uid};
use zeroize::Zeroizing;

use crate::Kek;

/// Root keys in versions, as a key file holds them. New keys are wrapped under the last.
pub(crate) struct Keyset {
    pub(crate) id: Uid,
    pub(crate) lock: Lock,
    /// Ascending by version, never empty.
    pub(crate) keys: Vec<(u32, Key)>,
}

/// What keeps the keys in the file from whoever reads it.
pub(crate) enum Lock {
    /// Nothing but the file's mode.
    None,
    /// Argon2id of a passphrase and this salt.
    Passphrase([u8; 16]),
}

/// Why a text is not the keyset that was asked for.
pub(crate) enum Unreadable {
    Malformed,
    /// Locked and no passphrase, or the other way round.
    Lock,
    WrongPassphrase,
}

impl Keyset {
    pub(crate) fn random(locked: bool) -> Result<Self, getrandom::Error> {
        let lock = if locked {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt)?;
            Lock::Passphrase(salt)
        } else {
            Lock::None
        };
        Ok(Self { id: Uid::random()?, lock, keys: vec![(1, Key::random()?)] })
    }

    /// Adds a version, under which keys are wrapped from now on.
    pub(crate) fn add_version(&mut self) -> Result<u32, getrandom::Error> {
        let next = self.keys.last().map_or(1, |(version, _)| version.saturating_add(1));
        self.keys.push((next, Key::random()?));
        Ok(next)
    }

    pub(crate) fn parse(text: &[u8], passphrase: Option<&[u8]>) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(text).map_err(|_| Unreadable::Malformed)?;
        let mut lines = text.strip_suffix('\n').ok_or(Unreadable::Malformed)?.split('\n');
        if lines.next() != Some(TITLE) {
            return Err(Unreadable::Malformed);
        }
        let id = lines.next().and_then(|line| line.strip_prefix("id ")).and_then(from_hex);
        let id = Uid::from_bytes(id.ok_or(Unreadable::Malformed)?);
        let lock = match lines.next().and_then(|line| line.strip_prefix("lock ")) {
            Some("none") => Lock::None,
            // Other costs are another format: a file must not talk its reader into cheaper ones.
            Some(line) => {
                let salt = line.strip_prefix(ARGON2ID).and_then(from_hex);
                Lock::Passphrase(salt.ok_or(Unreadable::Malformed)?)
            }
            None => return Err(Unreadable::Malformed),
        };
        let kek = locking_key(id, &lock, passphrase)?;
        let mut keys: Vec<(u32, Key)> = Vec::new();
        for line in lines {
            let entry = line.strip_prefix("key ").and_then(|line| line.split_once(' '));
            let (version, key) = entry.ok_or(Unreadable::Malformed)?;
            let version = version.parse::<u32>().map_err(|_| Unreadable::Malformed)?;
            if keys.last().map_or(0, |(last, _)| *last) >= version {
                return Err(Unreadable::Malformed);
            }
            keys.push((version, read_key(id, version, key, kek.as_ref())?));
        }
        if keys.is_empty() { Err(Unreadable::Malformed) } else { Ok(Self { id, lock, keys }) }
    }

    /// The text of the file. The passphrase is the one that the keyset was parsed with.
    pub(crate) fn print(&self, passphrase: Option<&[u8]>) -> Result<Zeroizing<String>, Unreadable> {
        let kek = locking_key(self.id, &self.lock, passphrase)?;
        // Large enough for every line, so that growing leaves no copy of a key behind.
        let mut text = Zeroizing::new(String::with_capacity(256 + 640 * self.keys.len()));
        text.push_str(TITLE);
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\nid {}\nlock ", self.id);
        match &self.lock {
            Lock::None => text.push_str("none"),
            Lock::Passphrase(salt) => {
                let _ = write!(text, "{ARGON2ID}{}", hex::encode(salt));
            }
        }
        for (version, key) in &self.keys {
            let bytes = match &kek {
                None => Zeroizing::new(key.expose().to_vec()),
                Some(kek) => {
                    let secret = Secret::new(key.expose().to_vec());
                    let sealed = kek.seal_in(&context(self.id, *version), &secret);
                    Zeroizing::new(sealed.map_err(|_| Unreadable::Malformed)?)
                }
            };
            let _ = write!(text, "\nkey {version} {}", *Zeroizing::new(hex::encode(&*bytes)));
        }
        text.push('\n');
        Ok(text)
    }
}

const TITLE: &str = "strongroom keyset 1";
const ARGON2ID: &str = "argon2id m=65536 t=3 p=4 salt=";

fn context(id: Uid, version: u32) -> Vec<u8> {
    Fields::new("srev1 keyset ctx").field(1, id).number(2, version.into()).finish()
}

fn read_key(id: Uid, version: u32, hex: &str, kek: Option<&Kek>) -> Result<Key, Unreadable> {
    let Some(kek) = kek else {
        let mut key = Zeroizing::new(from_hex::<32>(hex).ok_or(Unreadable::Malformed)?);
        return Ok(Key::take(&mut key));
    };
    let sealed = hex::decode(hex).map_err(|_| Unreadable::Malformed)?;
    let secret =
        kek.open_in(&context(id, version), &sealed).map_err(|_| Unreadable::WrongPassphrase)?;
    let mut key = Zeroizing::new([0; 32]);
    if secret.len() != key.len() {
        return Err(Unreadable::Malformed);
    }
    key.copy_from_slice(secret.expose());
    Ok(Key::take(&mut key))
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// The key that locks the others: the file's id, version 0.
fn locking_key(id: Uid, lock: &Lock, passphrase: Option<&[u8]>) -> Result<Option<Kek>, Unreadable> {
    let (salt, passphrase) = match (lock, passphrase) {
        (Lock::None, None) => return Ok(None),
        (Lock::Passphrase(salt), Some(passphrase)) => (salt, passphrase),
        (Lock::None, Some(_)) | (Lock::Passphrase(_), None) => return Err(Unreadable::Lock),
    };
    let params = Params::new(64 * 1024, 3, 4, Some(32)).map_err(|_| Unreadable::Malformed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut_slice())
        .map_err(|_| Unreadable::WrongPassphrase)?;
    Ok(Some(Kek::new(id, 0, Key::take(&mut key))))
}
