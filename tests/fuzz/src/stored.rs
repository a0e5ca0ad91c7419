use domain::{Fields, Key, ProviderId, Secret, Uid};
use envelope::{Context, Kek};
use sealing::{BoxContext, BoxId, ClientKeys, Session};

/// The only stored secret that may open is the one that was sealed: there is no other input that
/// anybody could have made without the key.
pub(crate) fn envelope(input: &[u8]) -> bool {
    let kek = Kek::new(Uid::from_bytes([1; 16]), 1, Key::take(&mut [7; 32]));
    let Ok(provider) = "openai".parse::<ProviderId>() else { return false };
    let context = Context {
        deployment: Uid::from_bytes([2; 16]),
        tenant: Uid::from_bytes([3; 16]),
        credential: Uid::from_bytes([4; 16]),
        provider,
        version: 1,
        purpose: "secret",
    };
    let _ = envelope::key_reference(input);
    let opened = kek.open(&context, input);
    if let Ok(secret) = &opened {
        // Fuzzers start from genuine ones; what they change of those must not open.
        assert_eq!(secret.expose(), SEALED, "a forged envelope opens");
    }
    let other = Context { version: 2, ..context };
    assert!(kek.open(&other, input).is_err(), "an envelope opens in another context");
    opened.is_ok()
}

/// What genuine seeds hold.
const SEALED: &[u8] = b"sk-fuzz-0123456789";

/// Two lists of fields have one encoding only if they are one list, and a reader that knows the format
/// alone gets them back.
pub(crate) fn context(input: &[u8]) -> bool {
    let Some((&at, rest)) = input.split_first() else { return false };
    let (one, other) = rest.split_at(usize::from(at).min(rest.len()));
    let (one, other) = (fields(one), fields(other));
    let (first, second) = (encode(&one), encode(&other));
    assert_eq!(one == other, first == second, "different fields encode alike");
    assert_eq!(decode(&first).as_ref(), Some(&one), "the encoding cannot be read back");
    !one.is_empty()
}

type Listed = Vec<(u16, Vec<u8>)>;

fn fields(mut input: &[u8]) -> Listed {
    let mut fields = Listed::new();
    let mut tag = 0_u16;
    while let Some((&[step, length], rest)) = input.split_first_chunk::<2>() {
        let (value, rest) = rest.split_at(usize::from(length).min(rest.len()));
        let Some(next) = tag.checked_add(u16::from(step) + 1) else { break };
        tag = next;
        fields.push((tag, value.to_vec()));
        input = rest;
    }
    fields
}

fn encode(fields: &Listed) -> Vec<u8> {
    let all = fields.iter().fold(Fields::new("fuzz"), |all, (tag, value)| all.field(*tag, value));
    all.finish()
}

fn decode(bytes: &[u8]) -> Option<Listed> {
    let rest = bytes.strip_prefix(b"fuzz")?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let mut fields = Listed::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (tag, after) = rest.split_first_chunk::<2>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, after) = after.split_at_checked(length)?;
        fields.push((u16::from_be_bytes(*tag), value.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(fields)
}

/// Keys, encapsulated keys and boxes that a peer makes up: a session may come of them, and nothing
/// opens in it.
pub(crate) fn sealed_box(input: &[u8]) -> bool {
    let (key, sealed) = input.split_at(input.len().min(32));
    let established = Session::establish(key, [5; 16]);
    if let Ok(keys) = ClientKeys::generate() {
        // The other end of a session with a broker that makes its key up.
        let _ = keys.open(key, [5; 16]);
    }
    let Ok((_, session)) = established else { return false };
    let Ok(box_id) = BoxId::random() else { return false };
    let context = BoxContext {
        box_id,
        credential: "tenants/acme/credentials/openai",
        provider: "openai",
        identity: "spiffe://acme.internal/cli",
    };
    let opened: Result<Secret, _> = session.open_box(&context, sealed);
    assert!(opened.is_err(), "a made-up box opens");
    true
}
