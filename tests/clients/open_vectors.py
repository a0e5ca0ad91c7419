"""Opens the vectors of the storage format. Written from docs/storage-format.md alone, so that the page is true."""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HEADER = ">4sBHB16sI32s32s12sI"
PASSPHRASE_LOCK = "argon2id m=65536 t=3 p=4 salt="


class DoesNotOpen(Exception):
    """Whatever is wrong."""


def extract(salt, key):
    return hmac.digest(salt or bytes(64), key, "sha512")


def expand(prk, info, length):
    assert length <= 64
    return hmac.digest(prk, info + b"\x01", "sha512")[:length]


def fields(label, *values):
    encoded = label.encode() + struct.pack(">H", len(values))
    for tag, value in enumerate(values, 1):
        encoded += struct.pack(">HI", tag, len(value)) + value
    return encoded


def number(value):
    return struct.pack(">Q", int(value))


def check(right):
    if not right:
        raise DoesNotOpen


def open_stored(kek_id, kek_version, key, context, stored):
    check(108 + 16 + 1 <= len(stored) <= 108 + 16448 + 16)
    header, body = stored[:108], stored[108:]
    magic, form, suite, flags, its_id, its_version, salt, commitment, nonce, length = struct.unpack(HEADER, header)
    check((magic, form, suite, flags) == (b"SREV", 1, 1, 0))
    check((its_id, its_version, length) == (kek_id, kek_version, len(body)))
    prk = extract(salt, key)
    two = struct.pack(">H", suite)
    check(hmac.compare_digest(commitment, expand(prk, b"srev1 commit" + two, 32)))
    try:
        padded = AESGCM(expand(prk, b"srev1 enc" + two, 32)).decrypt(nonce, body, header + context)
    except InvalidTag:
        raise DoesNotOpen from None
    check(len(padded) >= 4)
    (size,) = struct.unpack(">I", padded[:4])
    check(1 <= size <= 16384 and len(padded) == -(-(4 + size) // 64) * 64)
    check(not any(padded[4 + size :]))
    return padded[4 : 4 + size]


def key_of(of):
    return bytes.fromhex(of["id"]), int(of["version"]), bytes.fromhex(of["key"])


def context_of(vector):
    of = vector["context"]
    ids = [bytes.fromhex(of[name]) for name in ("deployment", "tenant", "credential")]
    return fields("srev1 ctx", *ids, of["provider"].encode(), number(of["version"]), of["purpose"].encode())


def secret_of(vector):
    return open_stored(*key_of(vector["kek"]), context_of(vector), bytes.fromhex(vector["stored"]))


def is_written_as_said(vector):
    """Whether salt and nonce are what a writer with these random bytes makes."""
    key, stored, secret = key_of(vector["kek"])[2], bytes.fromhex(vector["stored"]), bytes.fromhex(vector["secret"])
    hedge = expand(extract(None, key), b"srev1 hedge", 32)
    hedged = bytes.fromhex(vector["random"]) + hashlib.sha256(context_of(vector)).digest() + secret
    salt = hmac.digest(hedge, hedged, "sha256")
    nonce = expand(extract(salt, key), b"srev1 nonce" + struct.pack(">H", 1), 12)
    return (stored[28:60], stored[92:104]) == (salt, nonce)


def wrapped_key_of(vector):
    of = vector["context"]
    ids = [bytes.fromhex(of[name]) for name in ("deployment", "owner", "key")]
    context = fields("srev1 key ctx", *ids, number(of["version"]), of["purpose"].encode())
    return open_stored(*key_of(vector["root"]), context, bytes.fromhex(vector["wrapped"]))


def opens(vector, how, expected):
    """Whether the vector opens as it says: to what it expects, or not at all."""
    try:
        return how(vector) == bytes.fromhex(vector[expected])
    except DoesNotOpen:
        return expected not in vector
    except KeyError:
        return False


def row_mac_is_as_said(vector):
    mac_key = expand(extract(None, bytes.fromhex(vector["kek_key"])), b"srev1 row mac", 32)
    mac = hmac.digest(mac_key, bytes.fromhex(vector["row"]), "sha256")
    return hmac.compare_digest(mac, bytes.fromhex(vector["mac"])) == vector["genuine"]


def keys_of_file(text, passphrase):
    title, its_id, lock, *lines = text.removesuffix("\n").split("\n")
    assert title == "strongroom keyset 1" and text.endswith("\n")
    its_id = bytes.fromhex(its_id.removeprefix("id "))
    lock = lock.removeprefix("lock ")
    keys = {}
    for line in lines:
        word, version, key = line.split(" ")
        assert word == "key"
        keys[int(version)] = bytes.fromhex(key)
    if lock == "none":
        return keys
    assert lock.startswith(PASSPHRASE_LOCK)
    salt = bytes.fromhex(lock.removeprefix(PASSPHRASE_LOCK))
    argon2id = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=65536)
    kek = argon2id.derive(passphrase.encode())
    context = lambda version: fields("srev1 keyset ctx", its_id, number(version))
    return {version: open_stored(its_id, 0, kek, context(version), sealed) for version, sealed in keys.items()}


def key_file_is_as_said(vector):
    expected = {int(key["version"]): bytes.fromhex(key["key"]) for key in vector["keys"]}
    return keys_of_file(vector["text"], vector["passphrase"]) == expected


def main(path):
    with open(path) as file:
        vectors = json.load(file)
    kinds = {
        "valid": lambda vector: opens(vector, secret_of, "secret") and is_written_as_said(vector),
        "must_fail": lambda vector: "secret" not in vector and opens(vector, secret_of, "secret"),
        "wrapped_keys": lambda vector: opens(vector, wrapped_key_of, "key"),
        "row_macs": row_mac_is_as_said,
        "key_files": key_file_is_as_said,
    }
    wrong = 0
    for kind, is_as_said in kinds.items():
        failed = [vector.get("name", "?") for vector in vectors[kind] if not is_as_said(vector)]
        wrong += len(failed)
        print(f"{kind}: {len(vectors[kind])}, of which wrong: {failed or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
