"""A session without Rust: what docs/sealing.md says, with `pip install cryptography` and no HPKE library.

It opens leases and seals boxes. Run it with the path of sealing.json to see it do both for every vector.
"""
import hmac, json, os, struct, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def extract(salt, key): return hmac.digest(salt or bytes(32), key, "sha256")

def expand(prk, info, length):
    out, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        out += block
    return out[:length]

def fields(label, *values):
    out = label.encode() + struct.pack(">H", len(values))
    for tag, value in enumerate(values, 1):
        value = struct.pack(">Q", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
        out += struct.pack(">HI", tag, len(value)) + value
    return out

def labeled_extract(suite, salt, label, key): return extract(salt, b"HPKE-v1" + suite + label + key)
def labeled_expand(suite, prk, label, info, length):
    return expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)

KEM, SUITE = b"KEM" + struct.pack(">H", 0x20), b"HPKE" + struct.pack(">HHH", 0x20, 1, 2)

class Session:
    """RFC 9180, base mode, the recipient's side: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""
    def __init__(self, private: X25519PrivateKey, encapsulated_key: bytes, session_id: bytes):
        shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated_key))  # refuses low order
        prk = labeled_extract(KEM, b"", b"eae_prk", shared)
        both = encapsulated_key + private.public_key().public_bytes_raw()
        shared = labeled_expand(KEM, prk, b"shared_secret", both, 32)
        info = fields("strongroom session v1", session_id, "broker", "workload")
        context = (b"\0" + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
                   + labeled_extract(SUITE, b"", b"info_hash", info))
        exporter = labeled_expand(SUITE, labeled_extract(SUITE, shared, b"secret", b""), b"exp", context, 32)
        export = lambda label: labeled_expand(SUITE, exporter, b"sec", label, 32)
        self.lease, self.ingest = export(b"strongroom session v1 lease"), export(b"strongroom session v1 ingest")

    def open_lease(self, lease, sealed: bytes) -> bytes:
        l = lease
        joined = lambda texts: b"".join(struct.pack(">I", len(t.encode())) + t.encode() for t in texts)
        origins, settings = joined(l["origins"]), joined(t for setting in l["settings"] for t in setting)
        ad = fields("strongroom lease v1", l["lease_id"], l["lease_hash"], l["renewals"], l["tenant"],
                    l["credential"], l["credential_version"], l["provider"], l["source"], origins, l["base_url"],
                    l["header_name"], l["header_prefix"], struct.pack(">q", l["expire_time_ms"]), l["ttl_ms"],
                    l["log_index"], l["identity"], l["virtual_key"], l["model"], l["credential_kind"], settings,
                    l["address"], bytes([l["has_fallback"]]), l["because"], joined(l["endpoints"]),
                    joined(l["networks"]), l["price_version"])
        info = fields("strongroom lease key v1", l["lease_id"], l["credential"], l["credential_version"], l["renewals"])
        material = expand(self.lease, info, 44)
        return AESGCM(material[:32]).decrypt(material[32:], sealed, ad)

    def seal_box(self, credential, provider, identity, secret: bytes, box_id: bytes | None = None):
        box_id = box_id or os.urandom(16)
        material = expand(self.ingest, fields("strongroom ingest key v1", box_id, credential), 44)
        ad = fields("strongroom ingest v1", box_id, credential, provider, identity)
        return box_id, AESGCM(material[:32]).encrypt(material[32:], secret, ad)

if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        vectors = json.load(file)
    numbers, data = {"renewals", "credential_version", "expire_time_ms", "ttl_ms", "log_index"}, {"lease_id", "lease_hash"}
    read = lambda k, v: int(v) if k in numbers else bytes.fromhex(v) if k in data else v
    given = {k: bytes.fromhex(v) for k, v in vectors["session"].items()}
    session = Session(X25519PrivateKey.from_private_bytes(given["client_private_key"]),
                      given["encapsulated_key"], given["session_id"])
    assert (session.lease, session.ingest) == (given["lease_key"], given["ingest_key"])
    opened = refused = 0
    for lease in vectors["leases"]:
        try:
            secret = session.open_lease({k: read(k, v) for k, v in lease["context"].items()}, bytes.fromhex(lease["sealed"]))
        except InvalidTag:
            secret, refused = None, refused + 1
        assert secret == (bytes.fromhex(lease["secret"]) if "secret" in lease else None), lease["name"]
    for box in (box for box in vectors["boxes"] if "secret" in box):
        c, opened = box["context"], opened + 1
        _, sealed = session.seal_box(c["credential"], c["provider"], c["identity"],
                                     bytes.fromhex(box["secret"]), bytes.fromhex(c["box_id"]))
        assert sealed.hex() == box["sealed"], box["name"]
    print(f"{len(vectors['leases']) - refused} leases opened, {refused} refused, {opened} boxes sealed")
