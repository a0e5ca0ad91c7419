"""Verifies a log as static files, by the published specifications alone: none of our code.

    static_log.py FOLDER VKEY [--witness VKEY]...
    static_log.py HOST:PORT VKEY --pki PKI NAME [--witness VKEY]...

FOLDER is an export; HOST:PORT serves the same files over HTTPS to the identity NAME of the
directory PKI. Checks the notes, every tile against the entries, inclusion of entries at random,
and consistency between sizes at random. Prints one JSON object.
"""

import argparse
import base64
import hashlib
import http.client
import json
import pathlib
import random
import ssl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def files_of(arguments):
    """How to read a file of the log."""
    if not arguments.pki:
        return lambda path: (pathlib.Path(arguments.source) / path).read_bytes()
    pki, name = pathlib.Path(arguments.pki[0]), arguments.pki[1]
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    port = int(arguments.source.rsplit(":", 1)[1])
    connection = http.client.HTTPSConnection("localhost", port, context=context)

    def read(path):
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body)
        return body

    return read


def key_of(vkey, kind):
    """Name, id and key of a verifier key (signed-note)."""
    name, key_id, data = vkey.split("+", 2)
    data = base64.b64decode(data, validate=True)
    assert data[0] == kind and len(data) == 33, "another kind of key"
    assert hashlib.sha256(name.encode() + b"\n" + data).digest()[:4].hex() == key_id
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(data[1:])


def signatures_of(note, name, key_id):
    """The note's text, and what the key signed it with."""
    text, lines = note.rsplit("\n\n", 1)
    found = []
    for line in lines.splitlines():
        dash, signer, value = line.split(" ")
        value = base64.b64decode(value, validate=True)
        assert dash == "\u2014"
        if signer == name and value[:4] == key_id:
            found.append(value[4:])
    assert found, f"not signed by {name}"
    return text + "\n", found


def checkpoint_of(note, vkey):
    name, key_id, key = key_of(vkey, 0x01)
    text, found = signatures_of(note, name, key_id)
    for signature in found:
        key.verify(signature, text.encode())
    origin, size, root = text.splitlines()[:3]
    assert origin == name
    return int(size), base64.b64decode(root, validate=True)


def check_cosigned(note, vkey):
    """tlog-cosignature: the time is part of what is signed."""
    name, key_id, key = key_of(vkey, 0x04)
    text, found = signatures_of(note, name, key_id)
    for value in found:
        time = int.from_bytes(value[:8], "big")
        key.verify(value[8:], f"cosignature/v1\ntime {time}\n{text}".encode())


def leaf(body):
    return hashlib.sha256(b"\x00" + body).digest()


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def tile_path(level, index, width):
    groups = []
    number = index
    while True:
        groups.insert(0, f"{number % 1000:03}")
        number //= 1000
        if number == 0:
            break
    path = "/".join([f"x{group}" for group in groups[:-1]] + [groups[-1]])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < 256 else "")


class Tree:
    """Hashes of any part of the tree, from tiles alone."""

    def __init__(self, read, size):
        self.read, self.size, self.tiles = read, size, {}

    def tile(self, level, index):
        if (level, index) not in self.tiles:
            nodes = self.size >> (8 * level)
            width = min(256, nodes - 256 * index)
            data = self.read(tile_path(level, index, width))
            assert len(data) == 32 * width, (level, index, len(data))
            hashes = [data[at : at + 32] for at in range(0, len(data), 32)]
            self.tiles[level, index] = hashes
        return self.tiles[level, index]

    def root(self, start, end):
        """MTH(D[start:end]), RFC 6962 section 2.1."""
        count = end - start
        if count == 0:
            return hashlib.sha256().digest()
        if count & (count - 1) == 0 and start % count == 0:
            height = count.bit_length() - 1
            if height % 8 == 0:
                place = start >> height
                return self.tile(height // 8, place // 256)[place % 256]
        if count == 1:
            return self.tile(0, start // 256)[start % 256]
        split = 1 << ((count - 1).bit_length() - 1)
        return node(self.root(start, start + split), self.root(start + split, end))

    def path(self, index, start, end):
        """PATH(m, D[n]), RFC 6962 section 2.1.1."""
        if end - start == 1:
            return []
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            return self.path(index, start, split) + [self.root(split, end)]
        return self.path(index, split, end) + [self.root(start, split)]

    def proof(self, old, start, end, whole):
        """SUBPROOF(m, D[n], b), RFC 6962 section 2.1.2."""
        if old == end:
            return [] if whole else [self.root(start, end)]
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= split:
            return self.proof(old, start, split, whole) + [self.root(split, end)]
        return self.proof(old, split, end, False) + [self.root(start, split)]


def included(index, size, hashed, path):
    """The root that an audit path leads to, RFC 9162 section 2.1.3.2."""
    place, last = index, size - 1
    for sibling in path:
        assert last > 0
        if place & 1 or place == last:
            hashed = node(sibling, hashed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            hashed = node(hashed, sibling)
        place, last = place >> 1, last >> 1
    assert last == 0
    return hashed


def consistent(old, old_root, new, proof):
    """The new root that a consistency proof leads to, RFC 9162 section 2.1.4.2."""
    if old == new:
        assert not proof
        return old_root
    if old & (old - 1) == 0:
        proof = [old_root] + proof
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = proof[0]
    for sibling in proof[1:]:
        assert last > 0
        if place & 1 or place == last:
            before, after = node(sibling, before), node(sibling, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node(after, sibling)
        place, last = place >> 1, last >> 1
    assert last == 0 and before == old_root
    return after


def entries(read, size):
    for index in range((size + 255) // 256):
        width = min(256, size - 256 * index)
        data = read(tile_path("entries", index, width))
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            body, data = data[2 : 2 + length], data[2 + length :]
            assert len(body) == length
            yield body
        assert not data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("vkey")
    parser.add_argument("--pki", nargs=2)
    parser.add_argument("--witness", action="append", default=[])
    arguments = parser.parse_args()
    read = files_of(arguments)
    note = read("checkpoint").decode()
    size, root = checkpoint_of(note, arguments.vkey)
    for vkey in arguments.witness:
        check_cosigned(note, vkey)

    tree = Tree(read, size)
    assert tree.root(0, size) == root, "the tiles do not lead to the signed root"
    leaves = [leaf(body) for body in entries(read, size)]
    for at, hashed in enumerate(leaves):
        assert tree.tile(0, at // 256)[at % 256] == hashed, f"entry {at} is not its leaf"
    level = 1
    while size >> (8 * level):
        for at in range(size >> (8 * level)):
            below = tree.tile(level - 1, at)
            while len(below) > 1:
                below = [node(*below[pair : pair + 2]) for pair in range(0, len(below), 2)]
            assert tree.tile(level, at // 256)[at % 256] == below[0], (level, at)
        level += 1
    chance = random.Random(size)
    for _ in range(100):
        index = chance.randrange(size)
        assert included(index, size, leaves[index], tree.path(index, 0, size)) == root
        old = chance.randrange(1, size + 1)
        new = chance.randrange(old, size + 1)
        proof = tree.proof(old, 0, new, True)
        assert consistent(old, tree.root(0, old), new, proof) == tree.root(0, new)
    print(json.dumps({"size": size, "root": root.hex(), "tiles": len(tree.tiles)}))


main()
