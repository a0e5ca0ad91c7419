"""Takes a lease with Google's gRPC and `cryptography` alone, by `docs/sealing.md`: none of our code.

    grpc_lease.py ADDRESS PKI NAME TENANT PROVIDER

ADDRESS is the broker's; PKI is a directory with `ca.pem`, `broker.pem`, `NAME.pem` and
`NAME.key`. Prints one JSON object with the lease and the secret in it: for tests only.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def contract():
    """Generates the Python classes of the contract and loads them."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("strongroom/v1/*.proto"))
    included = pathlib.Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as out:
        flags = [f"-I{PROTO}", f"-I{included}", f"--python_out={out}", f"--grpc_python_out={out}"]
        assert protoc.main(["protoc", *flags, *files]) == 0
        sys.path.insert(0, out)
        return (
            importlib.import_module("strongroom.v1.leases_pb2"),
            importlib.import_module("strongroom.v1.leases_pb2_grpc"),
            importlib.import_module("strongroom.v1.calls_pb2").NATIVE,
        )


def fields(label: str, *values: tuple[int, bytes]) -> bytes:
    """The canonical encoding: label, count, then tag, length and bytes of each field."""
    out = label.encode() + len(values).to_bytes(2, "big")
    for tag, value in values:
        out += tag.to_bytes(2, "big") + len(value).to_bytes(4, "big") + value
    return out


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


# HPKE, RFC 9180: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, export only.
KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
HPKE_SUITE = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, 0x0002))


def extract(salt: bytes, ikm: bytes) -> bytes:
    mac = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    mac.update(ikm)
    return mac.finalize()


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labeled).derive(prk)


def exporter_secret(private: X25519PrivateKey, encapsulated: bytes, info: bytes) -> bytes:
    dh = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    own = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh)
    shared = labeled_expand(KEM_SUITE, prk, b"shared_secret", encapsulated + own, 32)
    context = (
        b"\x00"
        + labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
        + labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    )
    secret = labeled_extract(HPKE_SUITE, shared, b"secret", b"")
    return labeled_expand(HPKE_SUITE, secret, b"exp", context, 32)


def lease_key(private: X25519PrivateKey, session) -> bytes:
    info = fields(
        "strongroom session v1", (1, session.session_id), (2, b"broker"), (3, b"workload")
    )
    exporter = exporter_secret(private, session.encapsulated_key, info)
    return labeled_expand(HPKE_SUITE, exporter, b"sec", b"strongroom session v1 lease", 32)


def unseal(key: bytes, lease, identity: str) -> bytes:
    millis = lease.expire_time.seconds * 1000 + lease.expire_time.nanos // 1_000_000
    ttl = lease.ttl.seconds * 1000 + lease.ttl.nanos // 1_000_000
    source = {1: b"byok", 2: b"managed", 3: b"custom", 4: b"keyless"}[lease.source]
    joined = lambda texts: b"".join(len(t.encode()).to_bytes(4, "big") + t.encode() for t in texts)
    origins = joined(lease.origins)
    settings = joined(t for s in lease.settings for t in (s.name, s.value))
    associated = fields(
        "strongroom lease v1",
        (1, lease.lease_id),
        (2, lease.lease_hash),
        (3, u64(lease.renewals)),
        (4, lease.tenant.encode()),
        (5, lease.credential.encode()),
        (6, u64(lease.credential_version)),
        (7, lease.provider.encode()),
        (8, source),
        (9, origins),
        (10, lease.base_url.encode()),
        (11, lease.header_name.encode()),
        (12, lease.header_prefix.encode()),
        (13, millis.to_bytes(8, "big", signed=True)),
        (14, u64(ttl)),
        (15, u64(lease.log_index)),
        (16, identity.encode()),
        (17, lease.virtual_key.encode()),
        (18, lease.model.encode()),
        (19, lease.credential_kind.encode()),
        (20, settings),
        (21, lease.address.encode()),
        (22, bytes([lease.has_fallback])),
        (23, lease.because.encode()),
        (24, joined(lease.endpoints)),
        (25, joined(lease.networks)),
        (26, lease.price_version.encode()),
    )
    info = fields(
        "strongroom lease key v1",
        (1, lease.lease_id),
        (2, lease.credential.encode()),
        (3, u64(lease.credential_version)),
        (4, u64(lease.renewals)),
    )
    material = HKDFExpand(hashes.SHA256(), 44, info).derive(key)
    return AESGCM(material[:32]).decrypt(material[32:], lease.sealed_secret, associated)


def dns_name(pki: pathlib.Path) -> str:
    """gRPC's own clients check a DNS name, which the broker's certificate has beside its ID."""
    certificate = x509.load_pem_x509_certificate((pki / "broker.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[0]


def main(address: str, pki: str, name: str, tenant: str, provider: str) -> dict:
    messages, services, native = contract()
    folder = pathlib.Path(pki)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / f"{name}.key").read_bytes(),
        certificate_chain=(folder / f"{name}.pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", dns_name(folder))]
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    with grpc.secure_channel(address, credentials, options) as channel:
        leases = services.LeasesStub(channel)
        session = leases.OpenSession(messages.OpenSessionRequest(public_key=public), timeout=5)
        target = messages.TenantTarget(tenant=f"tenants/{tenant}", provider=provider)
        lease = leases.AcquireLease(
            messages.AcquireLeaseRequest(
                session_id=session.session_id, tenant=target, dialect=native
            ),
            timeout=5,
        )
        secret = unseal(lease_key(private, session), lease, session.identity)
        leases.ReleaseLease(
            messages.ReleaseLeaseRequest(session_id=session.session_id, lease_id=lease.lease_id),
            timeout=5,
        )
    return {
        "identity": session.identity,
        "credential": lease.credential,
        "origins": list(lease.origins),
        "header": lease.header_name,
        "log_index": lease.log_index,
        "secret": secret.decode(),
    }


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
