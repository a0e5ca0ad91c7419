use audit::{Checkpoint, CheckpointError, KeyError, Note, NoteError, SignerKey, VerifierKey};

use crate::fixture::key;

/// The example of Go's `golang.org/x/mod/sumdb/note`.
const SIGNER: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n";
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn the_published_note_is_written_and_read() {
    let signer = SignerKey::parse(SIGNER).unwrap();
    assert_eq!(signer.to_text().expose(), SIGNER.as_bytes());
    assert_eq!(signer.verifier().to_string(), VERIFIER);
    let note = Note::sign(TEXT, &signer).unwrap();
    assert_eq!(note.encode(), NOTE);
    let verifier: VerifierKey = VERIFIER.parse().unwrap();
    assert_eq!(Note::parse(NOTE).unwrap().verify(&verifier), Ok(TEXT));
}

#[test]
fn a_changed_text_is_refused() {
    let verifier: VerifierKey = VERIFIER.parse().unwrap();
    for at in 0..TEXT.len() - 1 {
        let mut note = NOTE.to_owned().into_bytes();
        note[at] ^= 1;
        let believed = String::from_utf8(note)
            .map(|note| Note::parse(&note).and_then(|note| note.verify(&verifier).map(drop)));
        assert!(!matches!(believed, Ok(Ok(()))), "byte {at}");
    }
}

#[test]
fn signatures_of_others_are_ignored_and_false_ones_are_not() {
    let (mine, other) = (key(), SignerKey::from_seed("witness.test", &[8; 32]).unwrap());
    let checkpoint = Checkpoint::sign(3, &[5; 32], &mine).unwrap();
    let stranger = Note::sign("x\n", &other).unwrap().encode();
    let line = stranger.strip_prefix("x\n\n").unwrap();

    let cosigned = format!("{checkpoint}{line}");
    assert_eq!(Checkpoint::verify(&cosigned, mine.verifier()).unwrap().size, 3);
    let unsigned = Checkpoint::verify(&cosigned, &VERIFIER.parse().unwrap());
    assert_eq!(unsigned, Err(CheckpointError::Note(NoteError::UnknownSigner)));
    let spoiled = Checkpoint::verify(&cosigned, other.verifier());
    assert_eq!(spoiled, Err(CheckpointError::Note(NoteError::BadSignature)));
}

#[test]
fn a_key_of_the_same_name_is_another_signer() {
    let impostor = SignerKey::from_seed(key().verifier().name(), &[8; 32]).unwrap();
    let checkpoint = Checkpoint::sign(3, &[5; 32], &impostor).unwrap();
    let refused = Checkpoint::verify(&checkpoint, key().verifier());
    assert_eq!(refused, Err(CheckpointError::Note(NoteError::UnknownSigner)));
}

#[test]
fn notes_that_are_not_exact_are_refused() {
    let checks = [
        "",
        "\n\n",
        TEXT,
        NOTE.trim_end(),
        &NOTE.replace('—', "-"),
        &NOTE.replace("\n\n", "\n"),
        &NOTE.replace("think", "thi\tnk"),
        &NOTE.replace("think", "thi\rnk"),
        &NOTE.replace("nAM=", "nAM"),
        &NOTE.replace("nAM=", "nAN="),
        &NOTE.replace("PeterNeumann", ""),
        &NOTE.replace("PeterNeumann", "Peter+Neumann"),
        &format!("{NOTE}\n"),
        &format!("{NOTE}more\n"),
    ];
    for note in checks {
        assert!(Note::parse(note).is_err(), "{note:?}");
    }
}

#[test]
fn keys_that_are_not_exact_are_refused() {
    let malformed = |text: &str| {
        matches!(text.parse::<VerifierKey>(), Err(KeyError::Malformed | KeyError::Name))
    };
    assert!(
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
            .parse::<VerifierKey>()
            .is_ok()
    );
    assert!(malformed(""));
    assert!(malformed("PeterNeumann+c74f20a3"));
    assert!(malformed(&VERIFIER.replace("c74f20a3", "C74F20A3")));
    assert!(malformed(&VERIFIER.replace("c74f20a3", "c74f20a4")));
    assert!(malformed(&VERIFIER.replace("c74f20a3", "c74f20")));
    assert!(malformed(&VERIFIER.replace("Neumann", "Neuman")));
    assert!(malformed(&VERIFIER.replace("Neumann", " Neumann")));
    assert!(malformed(&VERIFIER.replace("ARpc", "AhpC")));
    assert!(malformed(&format!("{VERIFIER}AA")));

    assert!(SignerKey::parse(VERIFIER).is_err());
    assert!(SignerKey::parse(&SIGNER.replace("c74f20a3", "c74f20a4")).is_err());
    assert!(SignerKey::parse(&SIGNER.replace("AYEK", "AYEL")).is_err());
    assert!(matches!(SignerKey::generate("a b"), Err(KeyError::Name)));
    assert!(matches!(SignerKey::generate(""), Err(KeyError::Name)));
}

#[test]
fn new_keys_differ_and_read_back() {
    let (one, other) =
        (SignerKey::generate("a.test").unwrap(), SignerKey::generate("a.test").unwrap());
    assert_ne!(one.verifier(), other.verifier());
    let text = one.to_text();
    let again = SignerKey::parse(std::str::from_utf8(text.expose()).unwrap()).unwrap();
    assert_eq!(again.verifier(), one.verifier());
    assert_eq!(one.verifier().to_string().parse::<VerifierKey>().unwrap(), *one.verifier());
}

#[test]
fn a_checkpoint_reads_back_as_written() {
    let note = Checkpoint::sign(20_852_163, &[5; 32], &key()).unwrap();
    let checkpoint = Checkpoint::verify(&note, key().verifier()).unwrap();
    let origin = "strongroom.test/log".to_owned();
    assert_eq!(checkpoint, Checkpoint { origin, size: 20_852_163, root: [5; 32] });
}

#[test]
fn signed_texts_that_are_no_checkpoint_are_refused() {
    #[track_caller]
    fn check(text: &str, expected: Option<CheckpointError>) {
        let note = Note::sign(text, &key()).unwrap().encode();
        assert_eq!(Checkpoint::verify(&note, key().verifier()).err(), expected, "{text:?}");
    }
    let root = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";
    let origin = "strongroom.test/log";
    check(&format!("{origin}\n3\n{root}\n"), None);
    check(&format!("{origin}\n0\n{root}\n"), None);
    check(&format!("{origin}\n3\n{root}\nan extension\n"), None);
    let malformed = Some(CheckpointError::Malformed);
    check(&format!("{origin}\n3\n"), malformed);
    check(&format!("{origin}\n03\n{root}\n"), malformed);
    check(&format!("{origin}\n+3\n{root}\n"), malformed);
    check(&format!("{origin}\n-3\n{root}\n"), malformed);
    check(&format!("{origin}\n 3\n{root}\n"), malformed);
    check(&format!("{origin}\n\n{root}\n"), malformed);
    check(&format!("{origin}\n18446744073709551616\n{root}\n"), malformed);
    check(&format!("{origin}\n3\n{}\n", &root[4..]), malformed);
    check(&format!("{origin}\n3\n{root}\n\nx\n"), malformed);
    check(&format!("another.test/log\n3\n{root}\n"), Some(CheckpointError::WrongOrigin));
}
