use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use envelope::{Pkcs11Config, TokenKey};

use crate::{private_file, provided};

pub(crate) const PIN: &str = "4711-0815";
pub(crate) const TOKEN: &str = "strongroom test";
pub(crate) const ROOT: &str = "root-2026";

/// A token of SoftHSM2 that nothing else uses, in a folder of its own, and the rights of its owner.
pub(crate) struct Token {
    pub(crate) folder: PathBuf,
    library: String,
}

/// Runs a test in a process of its own with a token of its own: a PKCS#11 library belongs to a whole
/// process, and reads where its tokens are when it starts.
///
/// The test's name is its path, by which the process finds it again.
#[expect(clippy::disallowed_methods, reason = "the process is told in its environment")]
pub(crate) fn with_a_token(path: &str, test: impl FnOnce(Token)) {
    let Some(library) = provided("TEST_PKCS11_MODULE") else { return };
    if let Ok(folder) = std::env::var(FOLDER) {
        let token = Token { folder: folder.into(), library };
        token.initialize();
        return test(token);
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    fs::write(&configuration, settings).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([path, "--exact", "--nocapture"])
        .env("SOFTHSM2_CONF", configuration)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{path}:\n{said}");
}

const FOLDER: &str = "TEST_TOKEN_FOLDER";

impl Token {
    /// The library, which all who load it in this process share.
    pub(crate) fn library(&self) -> Pkcs11 {
        let library = Pkcs11::new(&self.library).unwrap();
        match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => library,
            Err(error) => panic!("{error}"),
        }
    }

    fn initialize(&self) {
        private_file(&self.folder.join("pin"), &format!("{PIN}\n"));
        let library = self.library();
        let slot = library.get_slots_with_token().unwrap()[0];
        let officer = AuthPin::new("officer-1234".into());
        library.init_token(slot, &officer, TOKEN).unwrap();
        {
            let session = library.open_rw_session(slot).unwrap();
            session.login(UserType::So, Some(&officer)).unwrap();
            session.init_pin(&AuthPin::new(PIN.into())).unwrap();
        }
        self.make_key(ROOT, &[]);
    }

    /// A session of the user's.
    pub(crate) fn session(&self) -> Session {
        let library = self.library();
        let named = |slot: &_| library.get_token_info(*slot).unwrap().label() == TOKEN;
        let slot = library.get_slots_with_token().unwrap().into_iter().find(named).unwrap();
        let session = library.open_rw_session(slot).unwrap();
        match session.login(UserType::User, Some(&AuthPin::new(PIN.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }

    /// A key that cannot be copied out, but for what is said otherwise.
    pub(crate) fn make_key(&self, label: &str, other: &[Attribute]) -> ObjectHandle {
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(label.into()),
            Attribute::ValueLen(32.into()),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        for default in [Attribute::Sensitive(true), Attribute::Extractable(false)] {
            if !other.iter().any(|one| one.attribute_type() == default.attribute_type()) {
                template.push(default);
            }
        }
        template.extend_from_slice(other);
        self.session().generate_key(&Mechanism::AesKeyGen, &template).unwrap()
    }

    /// Allows or forbids the use of the root key.
    pub(crate) fn allow_root(&self, allowed: bool) {
        let session = self.session();
        let root = session.find_objects(&[Attribute::Label(ROOT.into())]).unwrap()[0];
        let use_of_it = [Attribute::Encrypt(allowed), Attribute::Decrypt(allowed)];
        session.update_attributes(root, &use_of_it).unwrap();
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    pub(crate) fn config(&self) -> Pkcs11Config {
        Pkcs11Config {
            module: Path::new(&self.library).to_owned(),
            token: TOKEN.to_owned(),
            pin_file: self.pin_file(),
            key: TokenKey::Label(ROOT.to_owned()),
            retired_keys: Vec::new(),
            concurrent_sessions: 4,
        }
    }
}
