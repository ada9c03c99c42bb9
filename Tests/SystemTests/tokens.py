"""Tokens, written down a second time, so that one can be wrong on purpose: CBOR and COSE by hand, Ed25519 by openssl. Sources/Capability is the original;
test_tokens.py shows them to real receivers, test_orchestrator.py to agents."""
import base64
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

ISSUER, MACHINE, TARGET, NOT_AFTER, NOT_BEFORE, ID, CONFIRMATION = 1, 2, 3, 4, 5, 7, 8
EPOCH, SOURCE, PATH, BYTES, DELEGATE = -65537, -65538, -65539, -65540, -65541


def head(major, value):
    for short, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 24:
            return bytes([major << 5 | value])
        if value < 1 << 8 * size:
            return bytes([major << 5 | short]) + value.to_bytes(size, "big")
    raise ValueError(value)


def cbor(item):
    if isinstance(item, int):
        return head(0, item) if item >= 0 else head(1, -1 - item)
    if isinstance(item, bytes):
        return head(2, len(item)) + item
    if isinstance(item, str):
        return head(3, len(item.encode())) + item.encode()
    if isinstance(item, list):
        return head(4, len(item)) + b"".join(map(cbor, item))
    return head(5, len(item)) + b"".join(key + value for key, value in sorted((cbor(key), cbor(value)) for key, value in item.items()))


PROTECTED = cbor({1: -8})


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=True).stdout


def sign(key, message):
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        return openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name)


def link(claims, key, previous=b""):
    """A tagged COSE_Sign1 after the link before."""
    payload = cbor(claims)
    aad = hashlib.sha256(previous).digest() if previous else b""
    signature = sign(key, cbor(["Signature1", PROTECTED, aad, payload]))
    return b"\xd2" + cbor([PROTECTED, {}, payload, signature])


def token(*links):
    return base64.b64encode(head(4, len(links)) + b"".join(links)).decode()


def key_digest(certificate):
    """SHA-256 of the SubjectPublicKeyInfo."""
    public = openssl("x509", "-in", certificate, "-noout", "-pubkey")
    return hashlib.sha256(openssl("pkey", "-pubin", "-outform", "DER", data=public)).digest()


def public_key(key):
    """The 32 bytes of an Ed25519 key."""
    return openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[-32:]


def claims(holder, **other):
    """Of a move of m from source.test to target.test, under epoch 2."""
    now = int(time.time())
    said = {
        ISSUER: "lab", MACHINE: "m", TARGET: "target.test", NOT_AFTER: now + 600, NOT_BEFORE: now - 60, ID: os.urandom(16), CONFIRMATION: {3: holder},
        EPOCH: 2, SOURCE: "source.test"}
    said.update({globals()[name.upper()]: value for name, value in other.items()})
    return {key: value for key, value in said.items() if value is not None}


def write(path, text):
    Path(path).write_text(text + "\n")
    return path
