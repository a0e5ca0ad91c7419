use audit::{
    AddCheckpoint, Bundle, Checkpoint, Frontier, HashTile, Note, PolicyDocument, PrunedStart,
    RecordProof, Resource, SignerKey, VerifierKey, decode_record, encode_bundle,
};

use crate::text;

/// What decodes is what this software would have written, to the byte; anything else could hash to
/// another leaf than it says.
pub(crate) fn leaf(input: &[u8]) -> bool {
    use prost::Message as _;

    let Ok(record) = decode_record(input) else { return false };
    assert_eq!(record.encode_to_vec(), input, "a leaf has two encodings");
    let _ = (audit::mutates(record.kind()), audit::revocation(&record));
    true
}

/// A note is what its key signed; nobody else's signature makes one.
pub(crate) fn note(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let _ = (text.parse::<VerifierKey>(), SignerKey::parse(text), AddCheckpoint::parse(text));
    let Ok(note) = Note::parse(text) else { return false };
    let Ok(stranger) = SignerKey::from_seed("log.acme.internal", &[9; 32]) else { return false };
    assert!(
        note.verify(stranger.verifier()).is_err(),
        "a note verifies that this key never signed"
    );
    if let Ok(key) = log_key().as_ref() {
        let _ = Checkpoint::verify(text, key.verifier());
    }
    true
}

/// The key that signed the genuine seeds.
fn log_key() -> Result<SignerKey, audit::KeyError> {
    SignerKey::from_seed("log.acme.internal", &[8; 32])
}

/// A proof reads back as it was written, and proves nothing of an entry that is not the one it is for.
pub(crate) fn proof(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let Ok(proof) = RecordProof::parse(text) else { return false };
    let again = RecordProof::parse(&proof.encode());
    assert_eq!(again.as_ref(), Ok(&proof), "a proof reads differently the second time");
    if let Ok(key) = log_key() {
        assert!(proof.verify(key.verifier(), b"not the entry").is_err(), "anything is proved");
    }
    true
}

/// Paths have one spelling; bundles, tiles and starts read back as they were written.
pub(crate) fn tiles(input: &[u8]) -> bool {
    let path = text(input).and_then(Resource::parse);
    if let Some(resource) = path {
        assert_eq!(Some(resource.path().as_str()), text(input), "a path has two spellings");
    }
    let start = text(input).and_then(|text| PrunedStart::parse(text).ok());
    if let Some(start) = &start {
        assert_eq!(Some(start.encode().as_str()), text(input), "a start has two spellings");
    }
    let _ = Frontier::from_bytes(input);
    let width = u64::from(input.first().copied().unwrap_or(1)).max(1);
    let _ = HashTile { level: 0, index: 0, width }.decode(input);
    let bundle = Bundle { index: 0, width };
    let bodies = input.get(1..).and_then(|rest| bundle.decode(rest).ok());
    if let Some(bodies) = &bodies {
        let again = encode_bundle(bodies.iter().copied());
        assert_eq!(again.as_deref().ok(), input.get(1..), "a bundle has two encodings");
    }
    path.is_some() || start.is_some() || bodies.is_some()
}

/// Access rules as the log keeps them.
pub(crate) fn policy(input: &[u8]) -> bool {
    let Ok(policy) = PolicyDocument::parse(input.to_vec()) else { return false };
    assert_eq!(policy.as_bytes(), input, "a document is not what it was read from");
    true
}
