use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::Slot,
    types::RawAuthPin,
};
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::{KmsError, KmsOpenError, Pkcs11Config, TokenKey, private_file};

/// A token and the sessions with it that are idle. Its calls block.
pub(super) struct Token {
    module: Pkcs11,
    label: String,
    pin_file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// The PIN that was wrong. Held while someone logs in, so that nobody else tries it too.
    wrong_pin: Mutex<Option<Zeroizing<Vec<u8>>>>,
}

/// A session whose user is logged in, and the keys that it has found.
struct Connection {
    session: Session,
    keys: HashMap<TokenKey, ObjectHandle>,
}

impl Token {
    pub(super) fn open(config: &Pkcs11Config) -> Result<Self, KmsOpenError> {
        private_file::read(&config.pin_file)?;
        let failed = |error: Error| KmsOpenError::Module(config.module.clone(), error.into());
        let module = Pkcs11::new(&config.module).map_err(failed)?;
        initialize(&module).map_err(failed)?;
        Ok(Self {
            module,
            label: config.token.clone(),
            pin_file: config.pin_file.clone(),
            idle: Mutex::default(),
            wrong_pin: Mutex::default(),
        })
    }

    /// Does something with a key. When the session turns out to be gone, everything is opened anew
    /// and the work done again, once.
    pub(super) fn with_key<T>(
        &self,
        name: &TokenKey,
        mut work: impl FnMut(&Session, ObjectHandle) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        self.with_connection(|connection| {
            let key = connection.key(name)?;
            work(&connection.session, key)
        })
    }

    /// Fills with random bytes, from the token's source and from the machine's: neither alone can
    /// make them repeat, as when a machine is cloned.
    pub(super) fn randomize(&self, bytes: &mut [u8]) -> Result<(), KmsError> {
        let mut theirs = Zeroizing::new(vec![0; bytes.len()]);
        self.with_connection(|connection| {
            Ok(connection.session.generate_random_slice(&mut theirs)?)
        })?;
        getrandom::fill(bytes).map_err(KmsError::unavailable)?;
        for (byte, other) in bytes.iter_mut().zip(theirs.iter()) {
            *byte ^= other;
        }
        Ok(())
    }

    fn with_connection<T>(
        &self,
        mut work: impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        match self.attempt(&mut work) {
            Err(Failure::Lost(error)) => {
                tracing::warn!(token = self.label, %error, "the token is gone: logging in anew");
                // The other sessions went with it. Closed before anything is opened, or else their
                // handles may by then be those of new ones; and not under the lock, which may take.
                let gone = std::mem::take(&mut *self.idle());
                drop(gone);
                if matches!(error, Error::Pkcs11(RvError::CryptokiNotInitialized, _)) {
                    initialize(&self.module).map_err(KmsError::unavailable)?;
                }
                self.attempt(&mut work).map_err(Failure::into_error)
            }
            answer => answer.map_err(Failure::into_error),
        }
    }

    fn attempt<T>(
        &self,
        work: &mut impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = work(&mut connection);
        // A session in which anything else went wrong is closed: it may have half a call in it.
        if matches!(answer, Ok(_) | Err(Failure::Answered(KmsError::Corrupt))) {
            self.idle().push(connection);
        }
        answer
    }

    fn connect(&self) -> Result<Connection, Failure> {
        let slot = self.slot()?;
        let session = self.module.open_ro_session(slot)?;
        self.log_in(slot, &session)?;
        Ok(Connection { session, keys: HashMap::new() })
    }

    /// The slot in which the token is. Slots are numbered anew with each start of most modules.
    fn slot(&self) -> Result<Slot, Failure> {
        let mut found = None;
        for slot in self.module.get_slots_with_token()? {
            let info = self.module.get_token_info(slot)?;
            if info.token_initialized() && info.label() == self.label {
                if found.is_some() {
                    return Err(refused(format!("several tokens are called `{}`", self.label)));
                }
                found = Some(slot);
            }
        }
        let absent = || {
            let why = format!("no token called `{}` is there", self.label);
            Failure::Answered(KmsError::unavailable(why))
        };
        found.ok_or_else(absent)
    }

    /// Logs in unless this process has. A PIN that was wrong is never tried again: tokens lock
    /// themselves after a few, and then only their security officer can help.
    fn log_in(&self, slot: Slot, session: &Session) -> Result<(), Failure> {
        let mut wrong = self.wrong_pin.lock().unwrap_or_else(PoisonError::into_inner);
        match session.get_session_info()?.session_state() {
            SessionState::RoUser | SessionState::RwUser => return Ok(()),
            SessionState::RoPublic | SessionState::RwPublic | SessionState::RwSecurityOfficer => {}
        }
        let file = private_file::read(&self.pin_file)
            .map_err(|error| Failure::Answered(KmsError::refused(error)))?;
        if wrong.as_deref() == Some(&*file) {
            let path = self.pin_file.display();
            return Err(refused(format!("the PIN in `{path}` was wrong, and is not tried again")));
        }
        let info = self.module.get_token_info(slot)?;
        if info.user_pin_locked() || info.user_pin_final_try() {
            return Err(refused(format!(
                "the PIN of the token `{}` is locked, or has one try left that is not spent here: \
                 reset it, or log in with the token's own tool",
                self.label
            )));
        }
        let pin = RawAuthPin::new(Box::new(private_file::without_line_break(&file).to_vec()));
        match session.login_with_raw(UserType::User, &pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *wrong = None;
                Ok(())
            }
            Err(Error::Pkcs11(
                code @ (RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange),
                _,
            )) => {
                *wrong = Some(file);
                let path = self.pin_file.display();
                Err(refused(format!("the PIN in `{path}` is wrong: {code}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The handle of a key, once the key is known to be fit.
    fn key(&mut self, name: &TokenKey) -> Result<ObjectHandle, Failure> {
        if let Some(key) = self.keys.get(name) {
            return Ok(*key);
        }
        let of_that_name = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            match name {
                TokenKey::Label(label) => Attribute::Label(label.clone().into_bytes()),
                TokenKey::Id(id) => Attribute::Id(id.clone()),
            },
        ];
        let found = self.session.find_objects(&of_that_name)?;
        let [key] = found[..] else {
            let why = format!("the token has {} keys `{name}`, and not one", found.len());
            return Err(refused(why));
        };
        if !self.is_fit(key)? {
            return Err(refused(format!(
                "the key `{name}` must be AES with 32 bytes, sensitive and not extractable"
            )));
        }
        self.keys.insert(name.clone(), key);
        Ok(key)
    }

    fn is_fit(&self, key: ObjectHandle) -> Result<bool, Failure> {
        let asked = [
            AttributeType::KeyType,
            AttributeType::ValueLen,
            AttributeType::Sensitive,
            AttributeType::Extractable,
        ];
        let said = self.session.get_attributes(key, &asked)?;
        let fit = [
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        Ok(fit.iter().all(|attribute| said.contains(attribute)))
    }
}

fn initialize(module: &Pkcs11) -> Result<(), Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another KMS of this process uses the same module.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn refused(why: String) -> Failure {
    Failure::Answered(KmsError::refused(why))
}
