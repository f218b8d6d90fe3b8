#!/usr/bin/env python3
"""The second verifier: judges receipts and replays logs of the syndicate.

Written from proto/README.md alone, with nothing but Python's standard library,
so that the document is known to be enough and the first implementation is not
its own judge. Section numbers in comments are those of the document.

    verify.py receipt FILE [--log VKEY | --policy FILE] --now MS [--genesis FILE]
    verify.py replay DIR --log VKEY         DIR holds checkpoint and tile/entries
    verify.py batch                         JSON lines in, JSON lines out

Prints one JSON object. Exit code 0: nothing wrong and trusted; 1: not.
It is plain rather than fast, and its arithmetic is not in constant time: it
holds no secrets.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import sys
from functools import lru_cache


class Broken(Exception):
    """A broken rule, by its name in the document; in a log, at an entry."""

    def __init__(self, rule, index=None):
        super().__init__(rule)
        self.index = index


def require(condition, rule, index=None):
    if not condition:
        raise Broken(rule, index)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def sha512(*parts):
    return hashlib.sha512(b"".join(parts)).digest()


def u16(number):
    return number.to_bytes(2, "big")


def u64(number):
    return number.to_bytes(8, "big")


# --- 1. Encoding -------------------------------------------------------------


class Reader:
    """Pulls the fields of one message in ascending order."""

    def __init__(self, data, limit=None):
        require(limit is None or len(data) <= limit, "wire-too-long")
        self.data, self.at = data, 0

    def varint(self):
        value = shift = 0
        while True:
            require(self.at < len(self.data), "wire-truncated")
            byte = self.data[self.at]
            require(shift < 63 or byte <= 1, "wire-varint")
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                require(byte != 0 or shift == 0, "wire-varint")
                return value
            shift += 7

    def tag(self, field, wire_type):
        # All our field numbers are below 16: a tag is one byte.
        if self.at < len(self.data) and self.data[self.at] == field << 3 | wire_type:
            self.at += 1
            return True
        return False

    def uint(self, field):
        if not self.tag(field, 0):
            return 0
        value = self.varint()
        require(value != 0, "wire-default")
        return value

    def required(self, field):
        value = self.uint(field)
        require(value, "wire-missing")
        return value

    def delimited(self, field):
        if not self.tag(field, 2):
            return None
        length = self.varint()
        require(self.at + length <= len(self.data), "wire-truncated")
        value = self.data[self.at : self.at + length]
        self.at += length
        return value

    def bytes(self, field):
        value = self.delimited(field)
        require(value != b"", "wire-default")
        return value or b""

    def fixed(self, field, length):
        """None where it is absent."""
        value = self.bytes(field)
        require(len(value) in (0, length), "wire-length")
        return value or None

    def hash(self, field):
        value = self.fixed(field, 32)
        require(value, "wire-missing")
        return value

    def text(self, field, limit):
        value = self.bytes(field)
        require(value, "wire-missing")
        require(len(value) <= limit, "wire-length")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Broken("wire-value") from None

    def message(self, field):
        value = self.delimited(field)
        return None if value is None else Reader(value)

    def packed(self, field):
        inner = Reader(self.bytes(field))
        while inner.at < len(inner.data):
            yield inner.varint()

    def end(self):
        if self.at < len(self.data):
            self.varint()  # names a broken tag first
            raise Broken("wire-misplaced")


# --- 2. Keys and signatures --------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def double(p):
    a, b = p[0] * p[0], p[1] * p[1]
    c = 2 * p[2] * p[2]
    h = a + b
    e = h - (p[0] + p[1]) * (p[0] + p[1])
    g = a - b
    f = c + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    """Four bits at a time."""
    table = [NEUTRAL, point]
    while len(table) < 16:
        table.append(add(table[-1], point))
    result = NEUTRAL
    for shift in range(scalar.bit_length() + 3 & ~3, -1, -4):
        result = double(double(double(double(result))))
        if digit := scalar >> shift & 15:
            result = add(result, table[digit])
    return result


def negate(p):
    return (-p[0] % P, p[1], p[2], -p[3] % P)


def encode_point(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


@lru_cache(maxsize=4096)
def decode_point(data):
    """None for anything but the canonical encoding of a point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    numerator, denominator = y * y - 1, D * y * y + 1
    x2 = numerator * pow(denominator, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_small_order(p):
    x, y, z, _ = double(double(double(p)))
    return x % P == 0 and (y - z) % P == 0


def usable_key(data):
    point = decode_point(data)
    return point if point and not is_small_order(point) else None


@lru_cache(maxsize=65536)
def ed25519(key, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or s >= L:
        return False
    point, commitment = usable_key(key), usable_key(r)
    if point is None or commitment is None:
        return False
    k = int.from_bytes(sha512(r, key, message), "little") % L
    return encode_point(add(multiply(s, BASE), negate(multiply(k, point)))) == r


@lru_cache(maxsize=4096)
def vrf_input_point(key, alpha):
    for counter in range(256):
        candidate = decode_point(sha512(b"\x03\x01", key, alpha, bytes([counter, 0]))[:32])
        if candidate:
            point = double(double(double(candidate)))
            if encode_point(point) != encode_point(NEUTRAL):
                return point
    raise Broken("vrf")


@lru_cache(maxsize=4096)
def vrf_verify(key, alpha, proof):
    """The output, or the broken rule."""
    y, gamma = usable_key(key), usable_key(proof[:32])
    c, s = int.from_bytes(proof[32:48], "little"), int.from_bytes(proof[48:], "little")
    require(y and gamma and s < L, "vrf")
    h = vrf_input_point(key, alpha)
    u = add(multiply(s, BASE), negate(multiply(c, y)))
    v = add(multiply(s, h), negate(multiply(c, gamma)))
    points = [key, encode_point(h), proof[:32], encode_point(u), encode_point(v)]
    require(sha512(b"\x03\x02", *points, b"\0")[:16] == proof[32:48], "vrf")
    return sha512(b"\x03\x03", encode_point(double(double(double(gamma)))), b"\0")


def base64_strict(text, padded=True):
    """None for what does not encode back to the same text."""
    try:
        data = base64.b64decode(text + ("" if padded else "=" * (-len(text) % 4)), validate=True)
    except (ValueError, UnicodeError):
        return None
    again = base64.b64encode(data).decode()
    return data if (again if padded else again.rstrip("=")) == text else None


def is_space(c):
    """Unicode White_Space."""
    return c in "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" or "\u2000" <= c <= "\u200a"


def is_control(c):
    return ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0


def is_key_name(name):
    legal = not any(is_space(c) or is_control(c) or c == "+" for c in name)
    return legal and 1 <= len(name.encode()) <= 255


class Key:
    """A named public key."""

    def __init__(self, name, kind, public):
        self.name, self.kind, self.public = name, kind, public
        self.id = sha256(name.encode(), b"\n", bytes([kind]), public)[:4]

    @staticmethod
    def parse(text):
        parts = text.split("+", 2)
        require(len(parts) == 3 and len(text) <= 4096, "vkey")
        name, key_id, encoded = parts
        data = base64_strict(encoded)
        require(data, "vkey")
        require(is_key_name(name), "key-name")
        key = Key(name, data[0], data[1:])
        require(key.kind not in (1, 4) or len(key.public) == 32, "vkey")
        require(key.id.hex() == key_id, "vkey")
        return key

    def identity(self):
        return (self.name, self.kind, self.public)

    def check(self, text, body):
        """The time of a cosignature in seconds, or None."""
        time = None
        if self.kind == 4:
            require(len(body) == 72, "signature")
            time = int.from_bytes(body[:8], "big")
            require(time < 2**63, "signature")
            text, body = f"cosignature/v1\ntime {time}\n{text}", body[8:]
        require(len(body) == 64 and ed25519(self.public, text.encode(), body), "signature")
        return time


class Checkpoint:
    def __init__(self, note):
        require(len(note) <= 65536, "note")
        try:
            whole = note.decode()
        except UnicodeDecodeError:
            raise Broken("note") from None
        require(not any(ord(c) < 0x20 and c != "\n" for c in whole), "note")
        end = whole.rfind("\n\n")
        require(end >= 0, "note")
        self.text, lines = whole[: end + 1], whole[end + 2 :]
        require(lines.endswith("\n"), "note")
        lines = lines[:-1].split("\n")
        require(len(lines) <= 100, "note")
        self.lines = [self.line(line) for line in lines]
        require(self.text.endswith("\n"), "checkpoint")
        body = self.text[:-1].split("\n")
        self.origin = body[0]
        legal = self.origin and len(self.origin.encode()) <= 255
        require(legal and not any(map(is_control, self.origin)), "checkpoint")
        require(len(body) >= 3 and decimal(body[1]) is not None, "checkpoint")
        self.size = decimal(body[1])
        self.root = base64_strict(body[2])
        require(len(body[2]) == 44 and self.root and len(self.root) == 32, "checkpoint")
        require(len(body) <= 19 and all(body[3:]), "checkpoint")

    @staticmethod
    def line(line):
        require(line.startswith("\u2014 "), "note")
        name, space, encoded = line[2:].partition(" ")
        require(space, "note")
        require(is_key_name(name), "key-name")
        data = base64_strict(encoded)
        require(data and len(data) > 4, "note")
        return name, data[:4], data[4:]

    def verify(self, keys):
        """Key and time of every line by a known key."""
        known = [key for key in keys if key.kind in (1, 4)]
        verified = []
        for name, key_id, body in self.lines:
            found = [key for key in known if (key.name, key.id) == (name, key_id)]
            if not found:
                continue
            require(all(key.identity() == found[0].identity() for key in found), "signature")
            require(all(key.identity() != found[0].identity() for key, _ in verified), "signature")
            verified.append((found[0], found[0].check(self.text, body)))
        require(verified, "signature")
        return verified


def decimal(text):
    legal = re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII) and int(text) < 2**63
    return int(text) if legal else None


# --- The log's tree (RFC 6962 §2.1) ------------------------------------------


def included(index, size, leaf, path, root):
    if index >= size:
        return False
    node, fn, sn = leaf, index, size - 1
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            node = sha256(b"\1", sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = sha256(b"\1", node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and node == root


def tree_root(leaves):
    if not leaves:
        return sha256()
    while len(leaves) > 1:
        paired = [sha256(b"\1", *leaves[i : i + 2]) for i in range(0, len(leaves) - 1, 2)]
        leaves = paired + leaves[len(paired) * 2 :]
    return leaves[0]


# --- 3. Entries --------------------------------------------------------------


def normalized_domain(text):
    """The domain in its one form, or None."""
    text = text[:-1] if text.endswith(".") else text
    text = "".join(c.lower() if c.isascii() else c for c in text)
    labels = text.split(".")
    legal = len(text.encode()) <= 253 and len(labels) >= 2 and not re.fullmatch("[0-9]+", labels[-1])
    for label in labels:
        legal = legal and re.fullmatch("[a-z0-9_-]{1,63}", label)
        legal = legal and not label.startswith("-") and not label.endswith("-")
    return text if legal else None


def normalized_address(text):
    local, at, domain = text.rpartition("@")
    domain = normalized_domain(domain)
    legal = re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", local) and all(local.split("."))
    return f"{local.lower()}@{domain}" if at and domain and legal else None


DNSSEC = {1: "secure", 2: "insecure", 3: "bogus", 4: "indeterminate"}
EVENTS = {
    1: "FIRST_SEEN", 2: "ROTATED", 3: "RESIGNED", 4: "REISSUED", 5: "GAP", 6: "RESTARTED",
    7: "FORKED", 8: "REVERTED", 9: "WITHDRAWN", 20: "POK_ADDED", 21: "POK_REMOVED",
    22: "POK_REPLACED", 23: "ORG_SIGNET_CHANGED", 24: "RECORD_CHANGED", 25: "RECORD_WITHDRAWN",
    26: "RECORD_EXPIRED", 27: "DNSSEC_GAINED", 28: "DNSSEC_LOST", 29: "DNSSEC_BOGUS",
    30: "NAME_CONFLICT",
}  # fmt: skip
ALARMS = {5, 6, 7, 8, 9, 22, 25, 26, 28, 29, 30}


class Entry:
    """A decoded leaf: `kind` and the fields of that kind as attributes."""

    current = 0
    events = frozenset()
    held_until = 0

    def __init__(self, data):
        self.data = data
        reader = Reader(data, 2048)
        self.format = reader.uint(1)
        require(self.format < 2**32, "wire-value")
        require(self.format == 1, "wire-value")
        self.time = reader.required(2)
        for number, kind in enumerate(KINDS, 3):
            if (message := reader.message(number)) is not None:
                self.kind = kind
                getattr(self, kind)(message)
                message.end()
                if kind == "domain":
                    self.check_domain()
                break
        else:
            reader.end()
            raise Broken("wire-missing")
        reader.end()

    def genesis(self, reader):
        self.origin = read_origin(reader, 1)
        self.log_key, self.vrf_key = read_key(reader, 2), read_key(reader, 3)
        require(reader.required(4) == 1, "wire-value")
        self.predecessor = None
        if (predecessor := reader.message(5)) is not None:
            origin, log_key = read_origin(predecessor, 1), read_key(predecessor, 2)
            checkpoint = predecessor.bytes(3)
            require(checkpoint, "wire-missing")
            require(len(checkpoint) <= 1024, "wire-length")
            directory, labels = predecessor.hash(4), predecessor.uint(5)
            predecessor.end()
            self.predecessor = (origin, log_key, checkpoint, directory, labels)

    def domain(self, reader):
        self.name = reader.text(1, 253)
        require(normalized_domain(self.name) == self.name, "wire-value")
        self.label = sha256(b"syndicate/v1/domain\0", self.name.encode())
        self.version, self.current = reader.required(2), reader.uint(3)
        self.poks = []
        while (pok := reader.delimited(4)) is not None:
            require(len(pok) == 32, "wire-length")
            require(not self.poks or self.poks[-1] < pok, "wire-value")
            self.poks.append(pok)
        require(len(self.poks) <= 16, "wire-value")
        status = reader.required(5)
        require(status in DNSSEC, "wire-value")
        self.dnssec = DNSSEC[status]
        self.record, self.org_signet, self.chain = (read_blob(reader, n) for n in (6, 7, 8))
        self.tail(reader, 9)

    def user(self, reader):
        self.label = reader.hash(1)
        self.version, self.current = reader.required(2), reader.uint(3)
        require(self.current <= self.version, "wire-value")
        self.commitment = reader.hash(4)
        self.tail(reader, 5)

    def tail(self, reader, field):
        events = []
        for number in reader.packed(field):
            require((not events or events[-1] < number) and number in EVENTS, "wire-value")
            events.append(number)
        require(events, "wire-missing")
        self.events = frozenset(events)
        self.held_until = reader.uint(field + 1)
        require(self.held_until == 0 or self.held_until > self.time, "wire-value")
        if (coalesced := reader.message(field + 2)) is not None:
            coalesced.required(1)
            coalesced.hash(2)
            coalesced.end()

    def forgotten(self, reader):
        self.label, self.version = reader.hash(1), reader.required(2)

    def root(self, reader):
        self.directory, self.labels = reader.hash(1), reader.uint(2)
        self.covered = reader.required(3)

    def closing(self, reader):
        read_origin(reader, 1)
        read_key(reader, 2)
        read_key(reader, 3)

    def carried(self, reader):
        self.label = reader.hash(1)
        self.version, self.current = reader.required(2), reader.uint(3)
        require(self.current <= self.version, "wire-value")
        self.chain = reader.hash(4)
        holder = reader.required(5)
        require(holder in (1, 2), "wire-value")
        self.holder = "domain" if holder == 1 else "user"
        before = reader.fixed(6, 32)
        require(before is None or (before != self.label and holder == 2), "wire-value")
        self.before = before or self.label

    def check_domain(self):
        require(self.current <= self.version, "wire-value")
        if self.current == self.version:
            require(self.record and self.poks, "wire-value")
        require(self.dnssec not in ("secure", "insecure") or self.chain, "wire-value")
        require((self.dnssec == "bogus") == (29 in self.events), "wire-value")
        require(27 not in self.events or self.dnssec == "secure", "wire-value")
        require(28 not in self.events or self.dnssec != "secure", "wire-value")

    def in_force(self):
        return self.current == self.version

    def leaf(self):
        return sha256(b"\0", self.data)


KINDS = ("genesis", "domain", "user", "forgotten", "root", "closing", "carried")


def read_origin(reader, field):
    text = reader.text(field, 255)
    require(is_key_name(text), "wire-value")
    return text


def read_key(reader, field):
    key = reader.hash(field)
    require(usable_key(key), "wire-value")
    return key


def read_blob(reader, field):
    if (message := reader.message(field)) is None:
        return None
    blob = (message.hash(1), message.required(2))
    message.end()
    return blob


def read_payload(data):
    reader = Reader(data, 256)
    payload = {"sha256": reader.fixed(1, 32), "crypto_sha256": reader.fixed(2, 32)}
    payload["level"] = reader.uint(3)
    require(payload["level"] in (0, 7, 8, 9), "wire-value")
    payload["signers"] = []
    for signer in reader.packed(4):
        require(signer < 2**32, "wire-value")
        require(len(payload["signers"]) < 3, "wire-length")
        payload["signers"].append(signer)
    payload["observed"], payload["domain_version"] = reader.required(5), reader.required(6)
    reader.end()
    there = [bool(payload[name]) for name in ("sha256", "crypto_sha256", "level")]
    if all(there):
        require(len(payload["signers"]) == payload["level"] - 6, "wire-value")
    else:
        require(not any(there) and not payload["signers"], "wire-value")
    return payload


# --- 4. Events and `current` -------------------------------------------------

USER_CHANGES, USER_KEEPS = {1, 2, 3, 4, 5, 6}, {7, 8, 9}
DOMAIN_CHANGES, DOMAIN_KEEPS, NEUTRAL_EVENTS = {1, 20, 21, 22, 23, 24, 30}, {25, 29}, {27, 28}


def current_after(kind, events, version, before):
    require(events, "events")
    require(1 not in events or before == 0, "events")
    if kind == "user":
        require(events <= USER_CHANGES | USER_KEEPS, "events")
        if not events & USER_KEEPS:
            require(before != 0 or 1 in events, "events")
            return version
        require(not events & USER_CHANGES and before != 0, "events")
        return before
    require(events <= DOMAIN_CHANGES | DOMAIN_KEEPS | NEUTRAL_EVENTS | {26}, "events")
    if 26 in events:
        require(not events & DOMAIN_CHANGES and before != 0, "events")
        return 0
    if events & DOMAIN_KEEPS:
        require(not events & DOMAIN_CHANGES, "events")
        return before
    require(version != 1 or 1 in events, "events")
    return version


def fits(entry, before):
    try:
        return current_after(entry.kind, entry.events, entry.version, before) == entry.current
    except Broken:
        return False


# --- 6. The map --------------------------------------------------------------


def bit(label, index):
    return label[index // 8] >> (7 - index % 8) & 1


def prefix_of(label, length):
    number = int.from_bytes(label, "big") >> (256 - length) << (256 - length)
    return number.to_bytes(32, "big")


def common_bits(a, b):
    return 256 - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


def map_leaf(label, version, chain):
    return sha256(b"\2", label, u64(version), chain)


def map_inner(length, prefix, left, right):
    return sha256(b"\3", u16(length), prefix, left, right)


def chain_next(chain, entry):
    return sha256(b"\5", chain, sha256(b"\0", entry))


def map_root(leaves):
    """Of (label, hash of the leaf) in ascending order."""
    if not leaves:
        return sha256(b"\4")
    if len(leaves) == 1:
        return leaves[0][1]
    length = common_bits(leaves[0][0], leaves[-1][0])
    low, high = 0, len(leaves)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if bit(leaves[middle][0], length) else (middle + 1, high)
    prefix = prefix_of(leaves[0][0], length)
    return map_inner(length, prefix, map_root(leaves[:low]), map_root(leaves[low:]))


class MapProof:
    def __init__(self, reader):
        path = reader.bytes(1)
        require(len(path) % 33 == 0 and len(path) // 33 <= 256, "wire-length")
        self.path = [(path[i], path[i + 1 : i + 33]) for i in range(0, len(path), 33)]
        self.leaf = self.inner = None
        if (end := reader.message(2)) is not None:
            if (leaf := end.message(1)) is not None:
                self.leaf = (leaf.hash(1), leaf.required(2), leaf.hash(3))
                leaf.end()
            elif (inner := end.message(2)) is not None:
                length = inner.uint(1)
                require(length < 256, "wire-value")
                self.inner = (length, inner.hash(2), inner.hash(3), inner.hash(4))
                inner.end()
            else:
                end.end()
                raise Broken("wire-missing")
            end.end()
        reader.end()

    def climb(self, label, node, height):
        for length, sibling in self.path:
            require(length < height, "map-order")
            height, prefix = length, prefix_of(label, length)
            pair = (sibling, node) if bit(label, length) else (node, sibling)
            node = map_inner(length, prefix, *pair)
        return node

    def present(self, root, label, version, chain):
        require(not self.leaf and not self.inner, "map-kind")
        require(version, "map-empty")
        require(self.climb(label, map_leaf(label, version, chain), 256) == root, "map-root")

    def absent(self, root, label):
        shared = 1 + self.path[0][0] if self.path else 0
        if self.leaf:
            other = self.leaf[0]
            require(other != label, "map-covers")
            require(common_bits(other, label) >= shared, "map-astray")
            node, height = map_leaf(*self.leaf), 256
        elif self.inner:
            height, prefix = self.inner[0], self.inner[1]
            require(prefix_of(prefix, height) == prefix, "map-prefix")
            require(common_bits(prefix, label) < height, "map-covers")
            require(common_bits(prefix, label) >= shared, "map-astray")
            node = map_inner(*self.inner)
        else:
            require(not self.path, "map-leftover")
            node, height = sha256(b"\4"), 256
        require(self.climb(label, node, height) == root, "map-root")


# --- 10. Management records and signets --------------------------------------


def record_poks(text):
    require(len(text) <= 4096, "record")
    poks, once = [], {}
    for token in re.split(rb"[ ;\0]", text):
        key, equals, value = token.partition(b"=")
        if not equals:
            continue
        key = {b"version": b"ver", b"primary": b"pok", b"policy": b"pol", b"subdomain": b"sub",
               b"expiry": b"exp", b"syndicates": b"syn", b"deliver": b"dx"}.get(
                   key.lower(), key.lower())  # fmt: skip
        if key not in (b"ver", b"pok", b"tls", b"pol", b"sub", b"exp", b"ttl", b"syn", b"dx"):
            continue
        if key in (b"pok", b"tls"):
            value = value.removesuffix(b"=").removesuffix(b"=")
        require(value and b"=" not in value, "record")
        if key in (b"pok", b"tls"):
            data = base64_strict(value.decode("latin-1"), padded=False)
            require(data is not None, "record")
            if key == b"pok":
                require(len(data) == 32, "record")
                poks.append(data)
        elif key == b"ver":
            require(value == b"1", "record")
        elif key in (b"exp", b"ttl"):
            require(re.fullmatch(rb"[0-9]+", value), "record")
            value = min(int(value), 2**32 - 1)
            require(once.setdefault(key, value) == value, "record")
        elif key in (b"pol", b"sub"):
            legal = {b"pol": (b"experimental", b"mixed", b"strict"),
                     b"sub": (b"strict", b"relaxed", b"explicit")}[key]  # fmt: skip
            value = value.lower()
            require(value in legal and once.setdefault(key, value) == value, "record")
    require(1 <= len(poks) <= 16, "record")
    return sorted(set(poks))


ORG, USER = 1776, 1789
ONE_BYTE = {*range(16, 28), 254}
LENGTHS = {
    ORG: {**dict.fromkeys((4, 253, 255), 0), **dict.fromkeys(ONE_BYTE | {1, 2}, 1),
          **dict.fromkeys((160, *range(200, 212)), 2), 3: "key", 251: "named", 252: 3},
    USER: {**dict.fromkeys((4, 5, 6, 253, 255), 0), **dict.fromkeys(ONE_BYTE | {1, *range(93, 100)}, 1),
           **dict.fromkeys((160, 200, 201, 202), 2), 2: "key", 3: "key", 251: "named", 252: 3},
}  # fmt: skip
REPEATED = {ORG: {2, 21, 251}, USER: {3, 21, 202, 251}}
IN_P = {ORG: {1, 3, 4}, USER: {1, 2, 4, 5, 6}}


def on_secp256k1(key):
    p = 2**256 - 2**32 - 977
    x = int.from_bytes(key[1:33], "big")
    square = (pow(x, 3, p) + 7) % p
    if x >= p:
        return False
    if len(key) == 33 and key[0] in (2, 3):
        root = pow(square, (p + 1) // 4, p)
        return root * root % p == square
    y = int.from_bytes(key[33:], "big")
    return len(key) == 65 and key[0] == 4 and y < p and y * y % p == square


class Signet:
    """A decoded org or user signet; `rule` is the name of whatever breaks."""

    def __init__(self, data, kind, rule):
        self.rule, self.kind, self.fields = rule, kind, []
        require(5 <= len(data) <= 1024 * 1024, rule)
        require(int.from_bytes(data[:2], "big") == kind, rule)
        self.body = body = data[5:]
        require(int.from_bytes(data[2:5], "big") == len(body), rule)
        dialect = self.dialect(body)
        at = last = 0
        while at < len(body):
            start, field = at, body[at]
            require(last != 255 and field in LENGTHS[kind], rule)
            require(dialect != "P" or field in IN_P[kind], rule)
            require(field > last or (field == last and field in REPEATED[kind]), rule)
            last, at = field, at + 1
            width = LENGTHS[kind][field]
            if width == "key":
                width = 2 if dialect == "L" else 1
            if width == "named":
                require(at < len(body) and body[at], rule)
                at, width = at + 1 + body[at], 2
            length = 64
            if width:
                require(at + width <= len(body), rule)
                length = int.from_bytes(body[at : at + width], "big")
                at += width
            require(at + length <= len(body), rule)
            self.fields.append((field, start, body[at : at + length]))
            at += length
        self.check(dialect, last)

    def dialect(self, body):
        if body[:2] == b"\x01\x20":
            return "P"
        require(body[:3] == b"\x01\x21\x40", self.rule)
        at, key = 35, 3 if self.kind == ORG else 2
        while self.kind == ORG and body[at : at + 1] == b"\x02":
            at += 2 + (body[at + 1] if at + 1 < len(body) else 0)
        if body[at : at + 1] != bytes([key]):
            return "L"
        following = body[at + 1 : at + 2]
        require(following in (b"\x00", b"\x21", b"\x41"), self.rule)
        return "L" if following == b"\x00" else "M"

    def all(self, field):
        return [data for number, _, data in self.fields if number == field]

    def check(self, dialect, last):
        rule, crypto = self.rule, 4 if self.kind == ORG else 6
        key = self.all(1)[0]
        self.key = key if dialect == "P" else key[1:]
        require(len(self.key) == 32 and (dialect == "P" or key[0] == 0x40), rule)
        present = {number for number, _, _ in self.fields}
        require(not present & {crypto, 253, 255} or last in (crypto, 253, 255), rule)
        require(254 not in present or 255 in present, rule)
        self.secondary = []
        if self.kind == ORG:
            for data in self.all(2):
                require(len(data) == 34 and data[1] == 0x40, rule)
                self.secondary.append((data[0], data[2:]))
        keys = self.all(3) if self.kind == ORG else self.all(2) + self.all(3)
        require(len(self.secondary) <= 64 and len(self.all(3)) <= 64, rule)
        require(all(on_secp256k1(key) for key in keys), rule)
        self.identifier = None
        for data in self.all(254):
            try:
                self.identifier = data.decode()
            except UnicodeDecodeError:
                raise Broken(rule) from None
            require(data and not any(map(is_control, self.identifier)), rule)
        self.level = 9 if 255 in present else 8 if 253 in present else 7
        needed = {1, crypto, 3 if self.kind == ORG else 2} | ({5} if self.kind == USER else set())
        needed |= {253, 254} if self.level == 9 else set()
        require(needed <= present, rule)
        self.crypto_part = self.body[: self.start(crypto) + 65]

    def start(self, field):
        return next((start for number, start, _ in self.fields if number == field), None)

    def signed(self, field, key):
        start = self.start(field)
        return start is not None and ed25519(key, self.body[:start], self.all(field)[0])


def org_signet(data, poks, domain):
    signet = Signet(data, ORG, "org-signet")
    require(signet.key in poks, "org-signet")
    for field in (4, 253, 255):
        require(signet.start(field) is None or signet.signed(field, signet.key), "org-signet")
    if signet.identifier is not None:
        require(normalized_domain(signet.identifier) == domain, "org-signet")
    return signet


def may_sign(org):
    """Number and key: 0 the POK, n the n-th secondary key."""
    signers = [(n, key) for n, (bits, key) in enumerate(org.secondary, 1) if bits & 1]
    return [(0, org.key)] + signers


def user_signet(data, org, address):
    """The signet and who made each signature."""
    signet = Signet(data, USER, "user-signet")
    require(signet.signed(5, signet.key), "user-signet")
    signers = []
    for field in (6, 253, 255):
        if signet.start(field) is not None:
            keys = sorted(may_sign(org), key=lambda signer: signer[0] not in signers[-1:])
            signer = next((n for n, key in keys if signet.signed(field, key)), None)
            require(signer is not None, "user-signet")
            signers.append(signer)
    if signet.identifier is not None:
        require(normalized_address(signet.identifier) == address, "user-signet")
    return signet, signers


# --- tlog-policy, with our lines ---------------------------------------------


class Policy:
    def __init__(self, text=None, log=None):
        self.logs, self.witnesses, self.groups = [], {}, {}
        self.quorum, self.max_age, self.max_observation_age = None, 3600, 172800
        operators, self.urls = [], {}
        if log is not None:
            self.logs, self.quorum = [Key.parse(log)], "none"
            text = ""
        for line in text.split("\n"):
            fields = line.replace("\t", " ").split()
            if not fields or (fields[0].startswith("#") and not fields[0].startswith("#!")):
                continue
            if fields[0] == "#!":
                if fields[1] == "operator":
                    operators += [(fields[2], name) for name in fields[3:]]
                elif fields[1] in ("max-age", "max-observation-age"):
                    setattr(self, fields[1].replace("-", "_"), int(fields[2]))
                else:
                    raise Broken("policy")
            elif fields[0] == "log":
                self.logs.append(Key.parse(fields[1]))
                self.urls[len(self.logs) - 1] = fields[2:]
            elif fields[0] == "witness":
                self.witnesses[fields[1]] = Key.parse(fields[2])
                self.urls[fields[1]] = fields[3:]
            elif fields[0] == "group":
                members = fields[3:]
                count = {"any": 1, "all": len(members)}.get(fields[2]) or int(fields[2])
                self.groups[fields[1]] = (count, members)
            elif fields[0] == "quorum":
                self.quorum = fields[1]
            else:
                raise Broken("policy")
        require(self.quorum is not None, "policy")
        self.join(operators)

    def join(self, operators):
        """Gives every log and witness the number of its operator."""
        parties = [(key.name, key) for key in self.logs] + list(self.witnesses.items())
        of = list(range(len(parties)))

        def join(a, b):
            old, new = of[a], of[b]
            of[:] = [new if number == old else number for number in of]

        for i, log in enumerate(self.logs):
            for j, (name, key) in enumerate(parties):
                same = key.public == log.public or key.name == log.name or name == log.name
                if j >= len(self.logs):
                    same = same or key.name == log.name + "/cosigner"
                    at, there = self.urls.get(i), self.urls[name]
                    same = same or bool(at and there and at[0].rstrip("/") == there[0].rstrip("/"))
                if same:
                    join(j, i)
        first = {}
        for operator, named in operators:
            for i, (name, _) in enumerate(parties):
                if name == named:
                    join(i, first.setdefault(operator, i))
        self.log_operators = of[: len(self.logs)]
        self.operators = dict(zip(self.witnesses, of[len(self.logs) :]))

    def holds(self, member, counted):
        if member == "none":
            return True
        if member in self.witnesses:
            return member in counted
        count, members = self.groups[member]
        return sum(self.holds(inner, counted) for inner in members) >= count

    def members(self, group):
        return [w for m in self.groups[group][1]
                for w in ([m] if m in self.witnesses else self.members(m))]  # fmt: skip

    def replayed(self, counted, own):
        if "replaying" not in self.groups:
            return True
        others = len({operator for operator in self.operators.values() if operator != own})
        needed = min(max(1, (others - 1) // 3 if others else 1) + 1, max(others, 1))
        replaying = {self.operators[w] for w in self.members("replaying") if w in counted}
        return len(replaying) >= needed

    def evaluate(self, checkpoint, genesis_key, root_time, now):
        """True if a quorum was asked for and holds."""
        signed = {(name, key_id) for name, key_id, _ in checkpoint.lines}
        log = next((i for i, key in enumerate(self.logs) if key.kind == 1
                    and key.name == checkpoint.origin and (key.name, key.id) in signed),
                   None)  # fmt: skip
        require(log is not None, "unknown-log")
        verified = checkpoint.verify(self.logs + list(self.witnesses.values()))
        require(self.logs[log].public == genesis_key, "log-key")
        require(root_time <= now + 300_000, "future")
        own, fresh, any_age = self.log_operators[log], set(), set()
        for key, seconds in verified:
            names = [n for n, k in self.witnesses.items() if k.identity() == key.identity()]
            if seconds is None or not names or self.operators[names[0]] == own:
                continue
            if seconds * 1000 <= now + 300_000:
                any_age.add(names[0])
                if seconds * 1000 >= now - self.max_age * 1000:
                    fresh.add(names[0])

        def accepted(counted):
            return self.holds(self.quorum, counted) and self.replayed(counted, own)

        asked = self.quorum != "none" or "replaying" in self.groups
        if not accepted(fresh):
            raise Broken("stale" if asked and accepted(any_age) else "quorum")
        if self.quorum == "none":
            require(root_time >= now - self.max_age * 1000, "stale")
            return False
        return True


# --- 8. and 9. Receipts ------------------------------------------------------


class Part:
    """A Subject as it stands in the receipt."""

    def __init__(self, reader):
        self.vrf_proof = reader.fixed(1, 80)
        map_reader = reader.message(2)
        require(map_reader is not None, "wire-missing")
        self.chain = reader.fixed(3, 32)
        require(self.chain != bytes(32), "wire-default")
        self.items = []
        while (item := reader.message(4)) is not None:
            entry = read_entry_bytes(item)
            payload = item.bytes(2)
            require(len(payload) <= 256, "wire-length")
            opening = item.fixed(3, 32)
            item.end()
            require(bool(payload) == bool(opening), "wire-missing")
            self.items.append((entry, payload, opening))
        self.seen = None
        if (seen := reader.message(5)) is not None:
            self.seen = (seen.uint(1), seen.required(2), seen.fixed(3, 64))
            require(self.seen[2], "wire-missing")
            seen.end()
        self.carries = []
        while (carry := reader.message(6)) is not None:
            require(len(self.carries) < 16, "wire-length")
            leaf = carry.message(1)
            require(leaf is not None, "wire-missing")
            leaf, index = read_leaf(leaf), carry.required(2)
            genesis = carry.message(3)
            require(genesis is not None, "wire-missing")
            self.carries.append((leaf, index, read_leaf(genesis), carry.fixed(4, 80)))
            carry.end()
        reader.end()
        self.map = MapProof(map_reader)
        self.versions, self.payloads = [], {}

    def check(self, name, kind, head):
        """Rules 8 to 13."""
        require((kind == "user") == (self.vrf_proof is not None), "vrf-proof")
        if kind == "user":
            alpha = b"syndicate/v1/user\0" + name.encode()
            self.label = vrf_verify(head.genesis.vrf_key, alpha, self.vrf_proof)[:32]
        else:
            self.label = sha256(b"syndicate/v1/domain\0", name.encode())
        if not self.items:
            require(self.chain is None, "leftover")
            require(not self.carries, "carry-stray")
            return self.map.absent(head.root.directory, self.label)
        self.trace(name, kind, head)
        for data, _, _ in self.items:
            self.versions.append(self.entry(data, name, kind, head))
        first, last = self.versions[0], self.versions[-1]
        require(last.current == 0 or last.current >= first.version, "current-missing")
        require(first.version != 1 or self.chain is None, "map-root")
        chain = self.chain or bytes(32)
        for data, _, _ in self.items:
            chain = chain_next(chain, data)
        self.map.present(head.root.directory, self.label, last.version, chain)
        require(all(first.version <= carried for _, _, carried in self.homes[:-1]), "carry-stray")
        self.open(name)

    def trace(self, name, kind, head):
        """The logs that the versions stood in: origin, label, newest version
        that stood in the one before it."""
        self.homes = [(head.genesis.origin, self.label, 0)]
        genesis, size, tree = head.genesis, head.checkpoint.size, head.checkpoint.root
        for (data, path), index, (first, first_path), proof in self.carries:
            require(kind == "user", "carry-stray")
            origin, label, _ = self.homes[-1]
            carried = entry_of(data, "carried", "carry-entry")
            require(carried.label == label and carried.holder == "user", "carry-entry")
            require(included(index, size, carried.leaf(), path, tree), "carry-inclusion")
            require(genesis.predecessor is not None, "carry-predecessor")
            promised, log_key, note, _, _ = genesis.predecessor
            try:
                end = Checkpoint(note)
                end.verify([Key(promised, 1, log_key)])
            except Broken:
                raise Broken("carry-predecessor") from None
            require(end.origin == promised, "carry-predecessor")
            leaf = sha256(b"\0", first)
            require(included(0, end.size, leaf, first_path, end.root), "carry-genesis")
            genesis = entry_of(first, "genesis", "carry-genesis")
            require((genesis.origin, genesis.log_key) == (promised, log_key), "carry-genesis")
            require(proof is not None, "carry-label")
            alpha = b"syndicate/v1/user\0" + name.encode()
            output = vrf_verify(genesis.vrf_key, alpha, proof)
            require(output[:32] == carried.before, "carry-label")
            self.homes[-1] = (origin, label, carried.version)
            self.homes.append((promised, carried.before, 0))
            size, tree = end.size, end.root

    def home(self, version):
        return next((home for home in self.homes if version > home[2]), self.homes[-1])

    def entry(self, data, name, kind, head):
        entry = Entry(data)
        ours = entry.kind == "domain" and kind == "domain" and entry.name == name
        ours = ours or (kind == "user" and entry.kind in ("user", "forgotten")
                        and entry.label == self.home(entry.version)[1])  # fmt: skip
        require(ours, "label")
        before = self.versions[-1] if self.versions else None
        require(before is None or entry.version == before.version + 1, "version")
        if entry.kind != "forgotten":
            if before is not None or entry.version == 1:
                made = current_after(
                    entry.kind, entry.events, entry.version, before.current if before else 0
                )
                require(made == entry.current, "current")
            else:
                require(any(fits(entry, b) for b in (0, 1, entry.current)), "current")
        require(before is None or entry.time >= before.time, "time")
        require(entry.time <= head.root.time, "time")
        return entry

    def open(self, name):
        erased = max((i for i, e in enumerate(self.versions) if e.kind == "forgotten"), default=0)
        address = name.encode()
        for i, (entry, (_, payload, opening)) in enumerate(zip(self.versions, self.items)):
            if entry.kind != "user":
                require(not payload, "payload-unexpected")
                continue
            if not payload:
                require(i < erased, "payload-missing")
                continue
            origin, label, _ = self.home(entry.version)
            origin = origin.encode()
            text = b"syndicate/v1/commitment\0" + u16(len(origin)) + origin + label
            text += u64(entry.version) + u16(len(address)) + address + payload
            made = hmac.new(opening, text, "sha256").digest()
            require(made == entry.commitment, "commitment")
            self.payloads[entry.version] = read_payload(payload)
            withdrawn = 9 in entry.events
            require(withdrawn == (not self.payloads[entry.version]["sha256"]), "payload-kind")

    def find(self, version):
        return next((entry for entry in self.versions if entry.version == version), None)

    def current(self):
        return self.find(self.versions[-1].current) if self.versions else None

    def events(self):
        if not self.versions:
            return frozenset()
        last = self.versions[-1]
        if last.in_force() or last.current == 0:
            return last.events
        since = [entry.events for entry in self.versions if entry.version > last.current]
        return frozenset().union(*since)

    def check_seen(self, head, now):
        """Rule 19; gives confirmed_at."""
        if self.seen is None:
            return 0
        confirmed, attempted, signature = self.seen
        version = self.versions[-1].version if self.versions else 0
        text = "syndicate/v1/seen\n"
        for line in (head.genesis.origin, self.label.hex(), version, confirmed, attempted,
                     head.root.directory.hex()):  # fmt: skip
            text += f"{line}\n"
        require(ed25519(head.genesis.log_key, text.encode(), signature), "seen")
        require(confirmed <= attempted <= now + 300_000, "seen-time")
        return confirmed


def entry_of(data, kind, rule):
    try:
        entry = Entry(data)
    except Broken:
        raise Broken(rule) from None
    require(entry.kind == kind, rule)
    return entry


def read_entry_bytes(reader):
    entry = reader.bytes(1)
    require(entry, "wire-missing")
    require(len(entry) <= 2048, "wire-length")
    return entry


def read_leaf(reader):
    entry, path = read_entry_bytes(reader), reader.bytes(2)
    require(len(path) % 32 == 0 and len(path) // 32 <= 63, "wire-length")
    reader.end()
    return entry, [path[i : i + 32] for i in range(0, len(path), 32)]


class Receipt:
    def __init__(self, data):
        reader = Reader(data, 32 * 1024 * 1024)
        require(reader.required(1) == 1, "wire-value")
        self.name = reader.text(2, 318)
        self.is_user = "@" in self.name
        normalize = normalized_address if self.is_user else normalized_domain
        require(normalize(self.name) == self.name, "wire-value")
        self.note = reader.bytes(3)
        require(self.note, "wire-missing")
        require(len(self.note) <= 65536, "wire-length")
        root = reader.message(4)
        require(root is not None, "wire-missing")
        self.root_leaf = read_leaf(root)
        genesis = reader.message(5)
        self.genesis_leaf = read_leaf(genesis) if genesis is not None else None
        subject = reader.message(6)
        require(subject is not None, "wire-missing")
        self.subject = Part(subject)
        domain = reader.message(7)
        self.domain = Part(domain) if domain is not None else None
        self.blobs, self.withdrawn = [], []
        while (blob := reader.delimited(8)) is not None:
            require(blob, "wire-length")
            self.blobs.append(blob)
        while (digest := reader.delimited(9)) is not None:
            require(len(digest) == 32, "wire-length")
            self.withdrawn.append(digest)
        closing = reader.message(10)
        self.closing_leaf = read_leaf(closing) if closing is not None else None
        reader.end()

    def check_head(self, remembered):
        """Rules 1 to 3."""
        self.checkpoint = Checkpoint(self.note)
        size, tree = self.checkpoint.size, self.checkpoint.root
        self.root = Entry(self.root_leaf[0])
        require(self.root.kind == "root" and self.root.covered == size - 1, "root-kind")
        path = self.root_leaf[1]
        require(included(size - 1, size, self.root.leaf(), path, tree), "root-inclusion")
        data = remembered
        if self.genesis_leaf is not None:
            data, path = self.genesis_leaf
            require(included(0, size, sha256(b"\0", data), path, tree), "genesis-inclusion")
            require(remembered in (None, data), "genesis-differs")
        require(data is not None, "genesis-missing")
        self.genesis = Entry(data)
        require(self.genesis.kind == "genesis", "genesis-kind")
        require(self.genesis.origin == self.checkpoint.origin, "origin")

    def check_closing(self):
        if self.closing_leaf is not None:
            data, path = self.closing_leaf
            size, tree = self.checkpoint.size, self.checkpoint.root
            require(size >= 2, "closing")
            require(included(size - 2, size, sha256(b"\0", data), path, tree), "closing")
            entry_of(data, "closing", "closing")

    def trust(self, policy, now):
        """Whether a quorum stands behind it; None without a policy."""
        if policy is None:
            key = Key(self.genesis.origin, 1, self.genesis.log_key)
            self.checkpoint.verify([key])
            return None
        return policy.evaluate(self.checkpoint, self.genesis.log_key, self.root.time, now)

    def verify(self, policy, now, remembered=None, hashes_only=False):
        self.check_head(remembered)
        quorum = self.trust(policy, now)
        self.check_closing()
        kind = "user" if self.is_user else "domain"
        self.subject.check(self.name, kind, self)
        if self.domain is not None:
            require(self.is_user, "domain-unexpected")
            self.domain.check(self.name.rpartition("@")[2], "domain", self)
        parts = [self.subject] + ([self.domain] if self.domain else [])
        blobs = Blobs(self, parts, hashes_only)
        notes = self.examine_user(blobs) if self.is_user else self.examine_domain(blobs)
        confirmed = self.subject.check_seen(self, now)
        if self.domain is not None:
            self.domain.check_seen(self, now)
        held = max((e.held_until for part in parts for e in part.versions), default=0)
        age = (policy.max_observation_age if policy else 172800) * 1000
        last = self.subject.versions[-1] if self.subject.versions else None
        if last is None:
            word = "ABSENT"
        elif last.current == 0:
            word = "FORGOTTEN" if last.kind == "forgotten" else "NONE IN FORCE"
        elif held > now:
            word = "HELD"
        elif last.events & {9, 25}:
            word = "WITHDRAWN"
        elif blobs.unchecked:
            word = "UNCHECKED"
        elif confirmed == 0 or now - confirmed > age:
            word = "UNCONFIRMED"
        else:
            word = "VALID"
        if self.withdrawn:
            notes.append(f"{len(self.withdrawn)} BLOBS WITHDRAWN")
        if not quorum:
            notes.append("RESTS ON THE LOG'S CLOCK")
        if self.closing_leaf is not None:
            notes.append("LOG CLOSED")
        return {
            "trust": "consistent, signer unknown" if quorum is None else "trusted",
            "word": word,
            "name": self.name,
            "origin": self.genesis.origin,
            "size": self.checkpoint.size,
            "latest": last.version if last else 0,
            "current": last.current if last else 0,
            "events": ", ".join(EVENTS[n] for n in sorted(self.subject.events())),
            "notes": notes,
        }

    def examine_domain(self, blobs):
        """Rule 15."""
        current = self.subject.current()
        if current is None:
            return []
        look_into(current, self.name, blobs)
        notes = [] if current.org_signet else ["NO ORG SIGNET"]
        return notes + ([f"DNSSEC {current.dnssec}"] if current.dnssec != "secure" else [])

    def examine_user(self, blobs):
        """Rules 16 to 18."""
        current = self.subject.current()
        if current is None:
            return []
        payload = self.subject.payloads.get(current.version)
        require(payload and payload["sha256"], "payload-missing")
        if self.domain is None:
            require(blobs.hashes_only, "domain-missing")
            blobs.unchecked = True
            return []
        name = self.name.rpartition("@")[2]
        under = self.rests_on(payload, current)
        org = look_into(under, name, blobs)
        require(under.org_signet, "no-org-signet")
        data = blobs.need(payload["sha256"])
        checked = data is not None and org is not None
        if checked:
            self.check_signet(data, payload, org)
        self.examine_older(name, blobs)
        notes = ["NAME UNSIGNED"] if payload["level"] != 9 else []
        if under.dnssec != "secure":
            notes.append(f"DNSSEC {under.dnssec}")
        now = self.domain.current()
        if now is None:
            notes += ["DOMAIN NOT IN FORCE", "SIGNER RETIRED"]
        else:
            org_now = look_into(now, name, blobs)
            if checked:
                notes += retired(payload["signers"], org, now, org_now)
        alarms = sorted(self.domain.events() & ALARMS)
        if alarms:
            notes.append("DOMAIN: " + ", ".join(EVENTS[n] for n in alarms))
        return notes

    def rests_on(self, payload, entry):
        under = self.domain.find(payload["domain_version"])
        require(under and under.in_force() and under.time <= entry.time, "domain-version")
        return under

    def check_signet(self, data, payload, org):
        signet, signers = user_signet(data, org, self.name)
        said = (payload["level"], payload["crypto_sha256"], payload["signers"])
        require(said == (signet.level, sha256(signet.crypto_part), signers), "signet-facts")

    def examine_older(self, name, blobs):
        before = None
        for entry in self.subject.versions:
            if entry.kind == "forgotten":
                before = None
                continue
            payload = self.subject.payloads.get(entry.version)
            if not payload or not payload["sha256"]:
                continue
            data = blobs.here.get(payload["sha256"])
            if data is None:
                before = None if entry.in_force() else before
                continue
            signet = Signet(data, USER, "user-signet")
            under = self.domain.find(payload["domain_version"])
            if under and all(blob[0] in blobs.here for blob in named_blobs(under)):
                org = look_into(self.rests_on(payload, entry), name, blobs)
                if org is not None:
                    self.check_signet(data, payload, org)
            if 2 in entry.events and before is not None:
                require(signet.signed(4, before.key), "custody")
            if entry.in_force():
                before = signet


def named_blobs(entry):
    return [blob for blob in (entry.record, entry.org_signet, entry.chain) if blob]


class Blobs:
    def __init__(self, receipt, parts, hashes_only):
        """Rule 14."""
        named = set()
        for part in parts:
            for entry in part.versions:
                if entry.kind == "domain":
                    named |= {blob[0] for blob in named_blobs(entry)}
            named |= {payload["sha256"] for payload in part.payloads.values()}
        self.here, self.hashes_only, self.unchecked = {}, hashes_only, False
        last = b""
        for blob in receipt.blobs:
            digest = sha256(blob)
            require(last < digest, "blob-order")
            require(digest in named, "blob-stray")
            last, self.here[digest] = digest, blob
        last = None
        for digest in receipt.withdrawn:
            require(last is None or last < digest, "blob-order")
            require(digest in named and digest not in self.here, "blob-stray")
            last = digest
        self.withdrawn = set(receipt.withdrawn)

    def need(self, digest):
        if digest in self.here:
            return self.here[digest]
        require(digest in self.withdrawn or self.hashes_only, "blob-missing")
        self.unchecked = True
        return None

    def need_blob(self, blob):
        data = self.need(blob[0])
        require(data is None or len(data) == blob[1], "blob-length")
        return data


def look_into(entry, domain, blobs):
    """The org signet of a domain's version, if there is one and it is here."""
    org = None
    if entry.record and (text := blobs.need_blob(entry.record)) is not None:
        require(record_poks(text) == entry.poks, "record-poks")
    if entry.org_signet and (data := blobs.need_blob(entry.org_signet)) is not None:
        org = org_signet(data, entry.poks, domain)
    if entry.chain:
        blobs.need_blob(entry.chain)
    return org


def retired(signers, then, now, org_now):
    keys, unknown = dict(may_sign(then)), False
    for signer in signers:
        if signer == 0:
            still = then.key in now.poks
        elif org_now is None:
            unknown = True
            continue
        else:
            still = keys[signer] in [key for n, key in may_sign(org_now) if n]
        if not still:
            return ["SIGNER RETIRED"]
    return ["SIGNER NOT COMPARED"] if unknown else []


# --- 7. Replaying a log ------------------------------------------------------


class Unknown(Exception):
    """An entry of another format: a condition, not a fault."""


class Replay:
    def __init__(self, origin, log_key):
        self.origin, self.log_key = origin, log_key
        self.tips, self.leaves = {}, {}
        self.index = self.time = 0
        self.closed, self.unknown = False, None
        self.predecessor, self.carried = None, []
        self.begin()

    def begin(self):
        self.batch, self.count = [], 0
        self.youngest = self.user = None
        self.closing = False

    def push(self, data):
        try:
            self.take(data)
        except Broken:
            if self.unknown is not None:
                raise Unknown from None
            raise
        self.index += 1

    def take(self, data):
        require(not self.closed, "closed")
        require(self.count < 131072, "batch-too-large")
        form = Reader(data, 2048).uint(1)
        require(form < 2**32, "wire-value")
        if form not in (0, 1):
            return self.take_unknown(data)
        entry = Entry(data)
        require(entry.time >= self.time, "too-old")
        require(self.index != 0 or entry.kind == "genesis", "no-genesis")
        require(not self.closing or entry.kind == "root", "after-closing")
        if entry.kind == "root":
            return self.close(entry.time, entry.directory, entry.labels, entry.covered)
        if entry.kind not in ("carried", "genesis"):
            self.carried_all()
        if entry.kind == "genesis":
            require(self.index == 0, "second-genesis")
            require(entry.origin == self.origin, "origin")
            require(entry.log_key == self.log_key, "log-key")
            self.predecessor = entry.predecessor
        elif entry.kind == "carried":
            require(self.predecessor is not None, "carried-misplaced")
            require(not self.carried or self.carried[-1][0] < entry.before, "carried-order")
            leaf = map_leaf(entry.before, entry.version, entry.chain)
            self.carried.append((entry.before, leaf))
            self.batch.append((entry.label, self.index, entry, entry.holder))
        elif entry.kind == "closing":
            self.closing = True
        elif entry.kind == "domain":
            require(self.user is None, "order")
            self.batch.append((entry.label, self.index, entry, "domain"))
        else:
            if self.user is not None:
                require(entry.label >= self.user[0], "order")
                require(entry.time == self.user[1], "user-time")
            first = self.user[2] if self.user else self.index
            self.user = (entry.label, entry.time, first)
            self.batch.append((entry.label, self.index, entry, "user"))
        self.counted(entry.time)

    def carried_all(self):
        """Something else about a label comes: the predecessor's map must be here."""
        if self.predecessor is not None:
            *_, directory, labels = self.predecessor
            require(len(self.carried) == labels, "carried-count")
            require(map_root(self.carried) == directory, "carried-root")
            self.predecessor = None

    def counted(self, time):
        self.count += 1
        if self.youngest is None or time > self.youngest[0]:
            self.youngest = (time, self.index)

    def take_unknown(self, data):
        if self.unknown is None:
            self.unknown = self.index
        require(self.index != 0, "no-genesis")
        reader = Reader(data, 2048)
        reader.uint(1)
        time = reader.required(2)
        field, message = next(
            ((n, m) for n in range(3, 16) if (m := reader.message(n)) is not None), (0, None)
        )
        require(message is not None, "wire-missing")
        reader.end()
        if field == 7:
            root, labels, covered = message.hash(1), message.uint(2), message.required(3)
            message.end()
            return self.close(time, root, labels, covered)
        if field in (4, 5, 6):
            entry = Outline()
            entry.data = data
            if field == 4:
                name = message.text(1, 253).encode()
                entry.label = sha256(b"syndicate/v1/domain\0", name)
            else:
                entry.label = message.hash(1)
            entry.version = message.required(2)
            entry.current = 0 if field == 6 else message.uint(3)
            holder = "domain" if field == 4 else "user"
            self.batch.append((entry.label, self.index, entry, holder))
        self.counted(time)

    def close(self, time, root, labels, covered):
        if self.youngest is not None:
            require(self.youngest[0] <= time, "too-young", self.youngest[1])
        if self.user is not None:
            require(self.user[1] == time, "user-time", self.user[2])
        require(covered == self.index, "covered")
        faults, moved = [], {}
        for label, index, entry, holder in sorted(self.batch, key=lambda change: change[:2]):
            if any(fault[2] == label for fault in faults):
                continue
            try:
                tip = moved.get(label) or self.tips.get(label) or (holder, 0, 0, bytes(32))
                moved[label] = advance(tip, entry, holder)
            except Broken as broken:
                faults.append((index, str(broken), label))
        if faults:
            index, rule, _ = min(faults)
            raise Broken(rule, index)
        self.tips.update(moved)
        for label, (_, version, _, chain) in moved.items():
            self.leaves[label] = map_leaf(label, version, chain)
        require(labels == len(self.tips), "labels")
        require(root == map_root(sorted(self.leaves.items())), "directory-root")
        self.time, self.closed = time, self.closing
        self.begin()

    def finish(self):
        require(self.index and not self.count, "no-root")


class Outline:
    """An entry of another format, as far as it can be read."""

    kind = "outline"


def advance(tip, entry, holder):
    kind, version, current, chain = tip
    require(kind == holder, "holder")
    if entry.kind == "carried":
        require(version == 0, "carried-twice")
        return kind, entry.version, entry.current, entry.chain
    require(entry.version == version + 1, "version")
    if entry.kind == "forgotten":
        require(version != 0, "nothing-to-forget")
    elif entry.kind != "outline":
        made = current_after(holder, entry.events, entry.version, current)
        require(entry.current == made, "current")
    return kind, entry.version, entry.current, chain_next(chain, entry.data)


def tile_path(number, width):
    groups = f"{number:03d}"
    groups = groups.zfill(-(-len(groups) // 3) * 3)
    parts = [groups[i : i + 3] for i in range(0, len(groups), 3)]
    path = "/".join(["x" + part for part in parts[:-1]] + [parts[-1]])
    return f"{path}.p/{width}" if width < 256 else path


def read_entries(folder, size):
    entries = []
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        base = os.path.join(folder, "tile", "entries")
        path = os.path.join(base, tile_path(number, width))
        if not os.path.exists(path):
            path = os.path.join(base, tile_path(number, 256))
        with open(path, "rb") as file:
            data = file.read(256 * 65538)
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            require(len(data) >= 2 + length, "bundle")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
    return entries


def replay_folder(folder, vkey):
    key = Key.parse(vkey)
    with open(os.path.join(folder, "checkpoint"), "rb") as file:
        checkpoint = Checkpoint(file.read(65537))
    require(checkpoint.origin == key.name, "unknown-log")
    checkpoint.verify([key])
    entries = read_entries(folder, checkpoint.size)
    root = tree_root([sha256(b"\0", entry) for entry in entries])
    require(root == checkpoint.root, "tree-root")
    return replay(key.name, key.public, entries)


def replay(origin, log_key, entries):
    state = Replay(origin, log_key)
    try:
        for entry in entries:
            state.push(entry)
    except Unknown:
        return {"unknown_format": state.unknown}
    except Broken as broken:
        index = state.index if broken.index is None else broken.index
        return {"fault": str(broken), "index": index}
    try:
        state.finish()
    except Broken as broken:
        return {"fault": str(broken), "index": max(state.index - 1, 0)}
    root = map_root(sorted(state.leaves.items())).hex()
    result = {"size": state.index, "labels": len(state.tips), "root": root}
    if state.unknown is not None:
        result["unknown_format"] = state.unknown
    return result


# --- Command line ------------------------------------------------------------


def from_json(text):
    """A receipt in JSON, encoded (§8)."""

    def put(number, value):
        if value in (None, b"", 0):
            return b""
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    def varint(value):
        data = b""
        while value >= 0x80:
            data += bytes([value & 0x7F | 0x80])
            value >>= 7
        return data + bytes([value])

    def always(number, value):
        return varint(number << 3 | 2) + varint(len(value)) + value

    def b64(value):
        data = base64_strict(value or "")
        require(data is not None, "json")
        return data

    def leaf(value):
        return put(1, b64(value["entry"])) + put(2, b64(value.get("path")))

    def subject(value):
        proof, end = value["map"], value["map"].get("end", {})
        encoded = put(1, b64(proof.get("path")))
        if "leaf" in end:
            fields = [(1, b64(end["leaf"]["label"])), (2, end["leaf"]["version"]),
                      (3, b64(end["leaf"]["chain"]))]  # fmt: skip
            encoded += always(2, always(1, b"".join(put(*field) for field in fields)))
        if "inner" in end:
            names = enumerate(("prefix", "left", "right"), 2)
            inner = put(1, end["inner"].get("length", 0))
            inner += b"".join(put(n, b64(end["inner"][name])) for n, name in names)
            encoded += always(2, always(2, inner))
        data = put(1, b64(value.get("vrf_proof"))) + always(2, encoded)
        data += put(3, b64(value.get("chain")))
        for item in value.get("item", []):
            names = enumerate(("entry", "payload", "opening"), 1)
            data += always(4, b"".join(put(n, b64(item.get(name))) for n, name in names))
        if seen := value.get("seen"):
            times = put(1, seen.get("confirmed_at", 0)) + put(2, seen["attempted_at"])
            data += always(5, times + put(3, b64(seen["signature"])))
        return data

    value = json.loads(text)
    data = put(1, value["format"]) + put(2, value["name"].encode())
    data += put(3, b64(value["checkpoint"])) + always(4, leaf(value["root"]))
    if value.get("genesis"):
        data += always(5, leaf(value["genesis"]))
    data += always(6, subject(value["subject"]))
    if value.get("domain"):
        data += always(7, subject(value["domain"]))
    data += b"".join(always(8, b64(blob)) for blob in value.get("blob", []))
    return data + b"".join(always(9, b64(digest)) for digest in value.get("withdrawn", []))


# --- 12. Incidents (log-fork and split-view) ---------------------------------


def fields(value, needed, optional=()):
    legal = isinstance(value, dict) and set(needed) <= set(value) <= {*needed, *optional}
    require(legal, "incident")
    return [value.get(key) for key in (*needed, *optional)]


def unique(pairs):
    require(len({key for key, _ in pairs}) == len(pairs), "incident")
    return dict(pairs)


def decoded(text):
    data = base64_strict(text)
    require(data is not None, "incident")
    return data


def incident_id(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hex()


def judge_incident(data):
    value = json.loads(data, object_pairs_hook=unique)
    needed = ("format", "kind", "at", "observer", "evidence")
    number, kind, at, observer, evidence, _ = fields(value, needed, ("name",))
    require(number == 1, "incident")
    result = {"id": incident_id(value), "kind": kind}
    if kind == "log-fork":
        require("name" not in value, "incident")
        [fork] = fields(evidence, ("fork",))
        return result | {"convicts": judge_fork(fork)}
    require(kind == "split-view" and "name" in value, "incident")
    [seen] = fields(evidence, ("receipts",))
    receipts, rounds = fields(seen, ("receipts", "rounds"))
    words = judge_split(value["name"], at, observer, receipts, rounds)
    return result | {"words": words}


def judge_fork(fork):
    needed = ("key", "smaller", "larger", "prefix")
    key, small, large, prefix, proof = fields(fork, needed, ("proof",))
    key, proof = Key.parse(key), decoded(proof or "")
    small, large = Checkpoint(small.encode()), Checkpoint(large.encode())
    for note in (small, large):
        require(key.kind == 1, "incident-key")
        require(note.origin == key.name, "incident-origin")
        note.verify([key])
    require(small.size <= large.size, "incident-order")
    path = [proof[i : i + 32] for i in range(0, len(proof), 32)]
    prefix = decoded(prefix)
    holds = consistent(small.size, large.size, prefix, large.root, path)
    require(holds, "incident-consistency")
    require(prefix != small.root, "incident-agree")
    return key.name


def consistent(old, new, old_root, new_root, path):
    """RFC 9162 §2.1.4.2; from nothing, or to the same size, without a proof."""
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == sha256()
    fn, sn, path = old - 1, new - 1, list(path)
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    if fn:
        if not path:
            return False
        fr = sr = path.pop(0)
    else:
        fr = sr = old_root
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\1", sibling, fr), sha256(b"\1", sibling, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\1", sr, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root


def judge_split(name, at, observer, receipts, rounds):
    """The word of each log; whether they differ is left to the reader."""
    words, origins = [], []
    require(2 <= len(receipts) <= 8, "incident")
    for value in receipts:
        require(value["name"] == name, "incident-name")
        answer = judge(json.dumps(value).encode(), None, at)
        require("fault" not in answer, answer.get("fault"))
        require(answer["origin"] not in origins, "incident-one-log")
        origins.append(answer["origin"])
        words.append([answer["origin"], answer["word"], answer["latest"]])
    if observer == "client":
        require(not rounds, "incident-rounds")
        return words
    turns = [r for r in (fields(r, ("origin", "at")) for r in rounds) if r[0] in origins[:2]]
    legal = len(turns) >= 4 and all(when <= at for _, when in turns)
    for (one, first), (other, then) in zip(turns, turns[1:]):
        legal = legal and one != other and first <= then
    require(legal, "incident-rounds")
    return words


def judge(data, policy, now, genesis=None, hashes_only=False):
    try:
        if data.lstrip()[:1] == b"{":
            data = from_json(data)
        return Receipt(data).verify(policy, now, genesis, hashes_only)
    except Broken as broken:
        return {"fault": str(broken)}


@lru_cache(maxsize=64)
def policy_of(log, text):
    return Policy(log=log) if log else Policy(text) if text is not None else None


def batch():
    """Cases from the tests: one JSON object a line, one answer a line."""
    for line in sys.stdin:
        case = json.loads(line)
        try:
            if "receipt" in case:
                policy = policy_of(case.get("log"), case.get("policy"))
                genesis = case.get("genesis")
                result = judge(
                    base64.b64decode(case["receipt"]), policy, case["now"],
                    base64.b64decode(genesis) if genesis else None, case.get("hashes_only", False),
                )  # fmt: skip
            elif "incident" in case:
                result = judge_incident(base64.b64decode(case["incident"]))
            elif "vrf" in case:
                key, alpha, proof = (bytes.fromhex(part) for part in case["vrf"])
                result = {"output": vrf_verify(key, alpha, proof).hex()}
            elif "ed25519" in case:
                result = {"valid": ed25519(*(bytes.fromhex(part) for part in case["ed25519"]))}
            elif "entry" in case:
                Entry(base64.b64decode(case["entry"]))
                result = {}
            else:
                entries = [base64.b64decode(entry) for entry in case["entries"]]
                result = replay(case["origin"], bytes.fromhex(case["log_key"]), entries)
        except Broken as broken:
            result = {"fault": str(broken)}
        print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("receipt")
    one.add_argument("file")
    one.add_argument("--now", type=int, required=True, help="milliseconds since 1970")
    trust = one.add_mutually_exclusive_group()
    trust.add_argument("--log", help="the log's vkey")
    trust.add_argument("--policy", help="a tlog-policy file")
    one.add_argument("--genesis", help="a file with the genesis entry known from before")
    one.add_argument("--hashes-only", action="store_true")
    whole = commands.add_parser("replay")
    whole.add_argument("dir")
    whole.add_argument("--log", required=True, help="the log's vkey")
    commands.add_parser("batch")
    args = parser.parse_args()
    if args.command == "batch":
        return batch()

    def read(path):
        with open(path, "rb") as file:
            return file.read()

    try:
        if args.command == "replay":
            result = replay_folder(args.dir, args.log)
            good = "fault" not in result and "unknown_format" not in result
        else:
            text = read(args.policy).decode() if args.policy else None
            genesis = read(args.genesis) if args.genesis else None
            policy = policy_of(args.log, text)
            result = judge(read(args.file), policy, args.now, genesis, args.hashes_only)
            good = result.get("trust") == "trusted"
    except Broken as broken:
        result, good = {"fault": str(broken)}, False
    print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
