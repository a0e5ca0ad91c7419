use providers::{CredentialKind as Kind, ServiceAccountFile, UnusableSecret as Unusable};

use crate::{catalogue, provider};

const FILE: &str = r#"{"type":"service_account","project_id":"p-1","private_key_id":"k","private_key":"a\nb",
    "client_email":"x@p-1.iam.gserviceaccount.com","token_uri":"https://oauth2.googleapis.com/token","more":1}"#;

#[track_caller]
fn check(file: &str, expected: Unusable) {
    assert_eq!(ServiceAccountFile::read(file.as_bytes()).unwrap_err(), expected);
}

#[test]
fn a_service_accounts_file_is_whole_and_asks_for_tokens_at_google() {
    let read = ServiceAccountFile::read(FILE.as_bytes()).unwrap();
    assert_eq!((&*read.project_id, &*read.private_key_id), ("p-1", "k"));
    for garbage in ["", "{", "[]", "null", "AIzaSyA", "\u{0}"] {
        check(garbage, Unusable::NotJson);
    }
    check("{}", Unusable::NotAServiceAccount);
    for other in ["external_account", "impersonated_service_account", "authorized_user"] {
        check(&FILE.replace("service_account", other), Unusable::NotAServiceAccount);
    }
    check(&FILE.replace("oauth2.googleapis.com", "evil.example"), Unusable::ForeignTokenUri);
    check(&FILE.replace("https://oauth2", "http://oauth2"), Unusable::ForeignTokenUri);
    for member in ["project_id", "private_key_id", "private_key", "client_email", "token_uri"] {
        let without = FILE.replace(&format!("\"{member}\""), "\"other\"");
        check(&without, Unusable::Lacks(member));
    }
}

#[test]
fn a_secret_that_could_never_be_sent_is_refused_at_once() {
    let usable = |slug: &str, kind, secret: &[u8]| {
        provider(slug).credential_form(kind).unwrap().usable(secret)
    };
    assert_eq!(usable("openai", Kind::ApiKey, b"sk-anything"), Ok(()));
    assert_eq!(usable("openai", Kind::ApiKey, b""), Err(Unusable::Empty));
    for bad in
        [&b"sk-x\n"[..], b"sk-x\r\nhost: evil", b"sk x", b"\xff", b"sk-\0", "schlüssel".as_bytes()]
    {
        assert_eq!(usable("openai", Kind::ApiKey, bad), Err(Unusable::NotSendable));
    }
    assert_eq!(usable("custom", Kind::Header, b"Basic eDp5"), Ok(()));
    assert_eq!(usable("custom", Kind::None, b""), Ok(()));
    assert_eq!(usable("vertex", Kind::GoogleServiceAccount, FILE.as_bytes()), Ok(()));
}

#[test]
fn what_is_said_of_a_secret_repeats_nothing_of_it() {
    let secret = b"{\"type\":\"SeCrEt\",\"private_key\":\"SeCrEt\"}";
    for provider in catalogue().providers() {
        for form in provider.credential_forms() {
            let said = format!("{:?} {:?}", form.usable(secret), form.check(secret));
            assert!(!said.contains("SeCrEt"), "{said}");
        }
    }
}
