use domain::{Fields, Key, Secret, Uid};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Context, Kek, KeyContext, KeyPurpose, StoredAs as _, keyset::Keyset};

/// 32 bytes that follow from a name.
pub(super) fn bytes(name: &str) -> [u8; 32] {
    Sha256::digest(format!("strongroom vector {name}")).into()
}

pub(super) fn uid(name: &str) -> Uid {
    Uid::try_from(&bytes(name)[..16]).unwrap()
}

/// A KEK as a vector names it.
#[derive(Clone, Copy)]
pub(super) struct KekOf {
    pub(super) id: &'static str,
    pub(super) version: u32,
    pub(super) key: &'static str,
}

pub(super) const KEK: KekOf = KekOf { id: "kek id", version: 7, key: "kek" };

pub(super) fn kek(of: KekOf) -> Kek {
    Kek::new(uid(of.id), of.version, Key::take(&mut bytes(of.key)))
}

/// A context as a vector names it.
#[derive(Clone, Copy)]
pub(super) struct ContextOf {
    pub(super) deployment: &'static str,
    pub(super) tenant: &'static str,
    pub(super) credential: &'static str,
    pub(super) provider: &'static str,
    pub(super) version: u64,
    pub(super) purpose: &'static str,
}

pub(super) const CONTEXT: ContextOf = ContextOf {
    deployment: "deployment",
    tenant: "tenant",
    credential: "credential",
    provider: "openai",
    version: 3,
    purpose: "secret",
};

impl ContextOf {
    pub(super) fn context(self) -> Context {
        Context {
            deployment: uid(self.deployment),
            tenant: uid(self.tenant),
            credential: uid(self.credential),
            provider: self.provider.parse().unwrap(),
            version: self.version,
            purpose: self.purpose,
        }
    }
}

/// A vector of these stored bytes; without a secret it must fail.
pub(super) fn stored_in(
    name: &str,
    of: KekOf,
    context: ContextOf,
    stored: &[u8],
    secret: Option<&[u8]>,
) -> Value {
    let mut vector = json!({
        "name": name,
        "kek": {
            "id": uid(of.id).to_string(),
            "version": of.version.to_string(),
            "key": hex::encode(bytes(of.key)),
        },
        "context": {
            "deployment": uid(context.deployment).to_string(),
            "tenant": uid(context.tenant).to_string(),
            "credential": uid(context.credential).to_string(),
            "provider": context.provider,
            "version": context.version.to_string(),
            "purpose": context.purpose,
        },
        "stored": hex::encode(stored),
    });
    if let Some(secret) = secret {
        vector["secret"] = hex::encode(secret).into();
    }
    vector
}

/// What the vector opens to, read back from its text.
pub(super) fn opens(vector: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let id = |value: &Value| Uid::try_from(&hex::decode(text(value)).unwrap()[..]).unwrap();
    let mut key: [u8; 32] = hex::decode(text(&vector["kek"]["key"])).unwrap().try_into().unwrap();
    let version = text(&vector["kek"]["version"]).parse().unwrap();
    let kek = Kek::new(id(&vector["kek"]["id"]), version, Key::take(&mut key));
    let of = &vector["context"];
    let context = Context {
        deployment: id(&of["deployment"]),
        tenant: id(&of["tenant"]),
        credential: id(&of["credential"]),
        provider: text(&of["provider"]).parse().unwrap(),
        version: text(&of["version"]).parse().unwrap(),
        purpose: Box::leak(text(&of["purpose"]).into_boxed_str()),
    };
    let opened = kek.open(&context, &hex::decode(text(&vector["stored"])).unwrap());
    opened.ok().map(|secret| hex::encode(secret.expose()))
}

pub(super) fn valid() -> Vec<Value> {
    let sealed = |name: &str, of: KekOf, context: ContextOf, secret: &[u8]| {
        let secret_bytes = Secret::new(secret.to_vec());
        let encoded = context.context().encode();
        let stored = kek(of).seal_with(bytes(name), &encoded, &secret_bytes).unwrap();
        let mut vector = stored_in(name, of, context, &stored, Some(secret));
        vector["random"] = hex::encode(bytes(name)).into();
        vector
    };
    let lengths = [1, 2, 15, 16, 17, 59, 60, 61, 63, 64, 65, 123, 124, 125, 187, 188, 189, 1000];
    let mut vectors: Vec<_> = lengths
        .into_iter()
        .chain([4096, 16_383, 16_384])
        .map(|length| {
            let secret: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            sealed(&format!("a secret of {length} bytes"), KEK, CONTEXT, &secret)
        })
        .collect();
    for (name, secret) in [
        ("a secret of zeros", &[0; 60][..]),
        ("a secret that ends in padding", b"ends\x80\0\0\0"),
        ("a secret that looks like a length", &[0, 0, 0, 1]),
        ("a secret in UTF-8", "schlüssel".as_bytes()),
        ("a secret that is a stored one", b"SREV\x01\0\x01\0"),
    ] {
        vectors.push(sealed(name, KEK, CONTEXT, secret));
    }
    for version in [0, 1, 1 << 32, u64::MAX] {
        let context = ContextOf { version, ..CONTEXT };
        let name = format!("credential version {version}");
        vectors.push(sealed(&name, KEK, context, b"sk-0123456789abcdef"));
    }
    for version in [0, 1, u32::MAX] {
        let of = KekOf { version, ..KEK };
        let name = format!("key version {version}");
        vectors.push(sealed(&name, of, CONTEXT, b"sk-0123456789abcdef"));
    }
    for provider in ["a", "a-provider-with-a-name-of-sixty-three-characters-and-not-one-more"] {
        let context = ContextOf { provider: &provider[..provider.len().min(63)], ..CONTEXT };
        let name = format!("provider {provider}");
        vectors.push(sealed(&name, KEK, context, b"sk-0123456789abcdef"));
    }
    for purpose in ["", "token", "note"] {
        let context = ContextOf { purpose, ..CONTEXT };
        let name = format!("purpose {purpose:?}");
        vectors.push(sealed(&name, KEK, context, b"sk-0123456789abcdef"));
    }
    vectors
}

pub(super) fn row_macs() -> Vec<Value> {
    let row = |status: &str| {
        Fields::new("a row")
            .field(1, uid("credential"))
            .field(2, status)
            .number(3, 42)
            .field(4, "https://api.openai.com")
            .finish()
    };
    [("disabled", "disabled"), ("", ""), ("disabled", "enabled")]
        .map(|(made, shown)| {
            json!({
                "kek_key": hex::encode(bytes(KEK.key)),
                "row": hex::encode(row(shown)),
                "mac": hex::encode(kek(KEK).row_mac(&row(made))),
                "genuine": made == shown,
            })
        })
        .to_vec()
}

pub(super) fn wrapped_keys() -> Vec<Value> {
    let wrap = |name: &str, sealed: KeyContext, shown: KeyContext| {
        let key = Secret::new(bytes(name).to_vec());
        let stored = kek(KEK).seal_with(bytes(name), &sealed.encode(), &key).unwrap();
        let mut vector = json!({
            "name": name,
            "root": {
                "id": uid(KEK.id).to_string(),
                "version": KEK.version.to_string(),
                "key": hex::encode(bytes(KEK.key)),
            },
            "context": {
                "deployment": shown.deployment.to_string(),
                "owner": shown.owner.to_string(),
                "key": shown.key.to_string(),
                "version": shown.version.to_string(),
                "purpose": shown.purpose.as_str(),
            },
            "wrapped": hex::encode(&stored),
        });
        if sealed == shown {
            vector["key"] = hex::encode(bytes(name)).into();
        }
        vector
    };
    let context = KeyContext {
        deployment: uid("deployment"),
        owner: uid("tenant"),
        key: uid("tenant key"),
        version: 1,
        purpose: KeyPurpose::Kek,
    };
    let pepper = KeyContext { purpose: KeyPurpose::Pepper, owner: uid("deployment"), ..context };
    vec![
        wrap("a tenant's key", context, context),
        wrap("its second version", KeyContext { version: 2, ..context }, {
            KeyContext { version: 2, ..context }
        }),
        wrap("a pepper", pepper, pepper),
        wrap("a pepper shown as a tenant's key", pepper, context),
        wrap("another owner's", context, KeyContext { owner: uid("other"), ..context }),
        wrap("another version's", context, KeyContext { version: 2, ..context }),
    ]
}

/// Locked ones are sealed with fresh randomness, so these two texts were made once and kept.
pub(super) fn key_files() -> Vec<Value> {
    let passphrase = "correct horse battery staple";
    let texts = [
        (include_str!("../../vectors/open.keyset"), None),
        (include_str!("../../vectors/locked.keyset"), Some(passphrase)),
    ];
    texts
        .map(|(text, passphrase)| {
            let keyset = Keyset::parse(text.as_bytes(), passphrase.map(str::as_bytes))
                .unwrap_or_else(|_| panic!("the keyset does not open: {text}"));
            let keys = keyset.keys.iter().map(
                |(version, key)| json!({ "version": version.to_string(), "key": hex::encode(key.expose()) }),
            );
            json!({ "text": text, "passphrase": passphrase, "keys": keys.collect::<Vec<_>>() })
        })
        .to_vec()
}
