use std::{fmt, path::Path};

use async_trait::async_trait;
use domain::{Key, Secret, Uid};
use zeroize::Zeroizing;

use crate::{
    Kek, KeyContext, KeyFileError, Kms, KmsError, KmsStatus, WrappedKey, key_reference,
    keyset::{Keyset, Unreadable},
    private_file,
};

/// A KMS in a file: its root keys are this process's, protected by the file's mode, or by a
/// passphrase too.
pub struct LocalKms {
    id: Uid,
    /// Ascending by version.
    roots: Vec<Kek>,
    newest: Kek,
}

impl LocalKms {
    /// Makes a key file of mode 0600 with a first root key. Whoever loses the file, or the
    /// passphrase, loses every secret under it. An existing file is left alone, and is an error.
    pub fn create_new(path: &Path, passphrase: Option<&Path>) -> Result<(), KeyFileError> {
        let passphrase = passphrase.map(read_new_passphrase).transpose()?;
        let passphrase = passphrase.as_deref().map(|bytes| private_file::without_line_break(bytes));
        let keyset = Keyset::random(passphrase.is_some())?;
        let text = keyset.print(passphrase).map_err(|why| why.of(path))?;
        private_file::create(path, text.as_bytes())
    }

    /// Adds a root key, under which new keys are wrapped once the file is opened again, and says
    /// which version it is. The former stay, for the keys that they wrapped.
    pub fn rotate(path: &Path, passphrase: Option<&Path>) -> Result<u32, KeyFileError> {
        let (mut keyset, passphrase) = load(path, passphrase)?;
        let version = keyset.add_version()?;
        let passphrase = passphrase.as_deref().map(|bytes| private_file::without_line_break(bytes));
        let text = keyset.print(passphrase).map_err(|why| why.of(path))?;
        private_file::replace(path, text.as_bytes())?;
        Ok(version)
    }

    /// Opens a key file. With a passphrase this takes some hundred milliseconds, by design.
    pub fn open(path: &Path, passphrase: Option<&Path>) -> Result<Self, KeyFileError> {
        let (Keyset { id, keys, .. }, _) = load(path, passphrase)?;
        let mut roots: Vec<_> =
            keys.into_iter().map(|(version, key)| Kek::new(id, version, key)).collect();
        let newest = roots.pop().ok_or_else(|| KeyFileError::Malformed(path.to_owned()))?;
        Ok(Self { id, roots, newest })
    }

    fn wrap_now(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        let secret = Secret::new(key.expose().to_vec());
        Ok(WrappedKey::from_bytes(self.newest.seal_in(&context.encode(), &secret)?))
    }

    fn unwrap_now(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let reference = key_reference(wrapped.as_bytes());
        let root = std::iter::once(&self.newest)
            .chain(&self.roots)
            .find(|root| Some(root.reference()) == reference)
            .ok_or(KmsError::Corrupt)?;
        let secret = root.open_in(&context.encode(), wrapped.as_bytes())?;
        let mut key = Zeroizing::new([0; 32]);
        if secret.len() != key.len() {
            return Err(KmsError::Corrupt);
        }
        key.copy_from_slice(secret.expose());
        Ok(Key::take(&mut key))
    }
}

#[async_trait]
impl Kms for LocalKms {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let key = Key::random().map_err(KmsError::unavailable)?;
        let wrapped = self.wrap_now(context, &key)?;
        Ok((key, wrapped))
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        self.wrap_now(context, key)
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        self.unwrap_now(context, wrapped)
    }

    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        self.wrap_now(context, &self.unwrap_now(context, wrapped)?)
    }

    async fn status(&self) -> KmsStatus {
        KmsStatus { key_ref: key_ref(self.newest.reference()), healthy: true }
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        let reference = key_reference(wrapped.as_bytes())?;
        (reference.0 == self.id).then(|| key_ref(reference))
    }
}

impl fmt::Debug for LocalKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKms({})", key_ref(self.newest.reference()))
    }
}

impl Unreadable {
    fn of(self, path: &Path) -> KeyFileError {
        let path = path.to_owned();
        match self {
            Self::Malformed => KeyFileError::Malformed(path),
            Self::Lock => KeyFileError::Passphrase(path),
            Self::WrongPassphrase => KeyFileError::WrongPassphrase(path),
        }
    }
}

/// What a status calls a root key.
pub(crate) fn key_ref((id, version): (Uid, u32)) -> String {
    format!("local:{id}/{version}")
}

type Passphrase = Option<Zeroizing<Vec<u8>>>;

fn load(path: &Path, passphrase: Option<&Path>) -> Result<(Keyset, Passphrase), KeyFileError> {
    let passphrase = passphrase.map(private_file::read).transpose()?;
    let text = private_file::read(path)?;
    let keyset = Keyset::parse(
        &text,
        passphrase.as_deref().map(|bytes| private_file::without_line_break(bytes)),
    )
    .map_err(|why| why.of(path))?;
    Ok((keyset, passphrase))
}

fn read_new_passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let passphrase = private_file::read(path)?;
    if private_file::without_line_break(&passphrase).len() < 12 {
        return Err(KeyFileError::WeakPassphrase(path.to_owned()));
    }
    Ok(passphrase)
}

#[cfg(test)]
mod tests;
