#!/usr/bin/env python3
"""A Kafka broker that serves one topic from memory, to consumers only.

Each line of a file is a message of the topic; the lines go to the partitions in turn. They are encoded into record
batches before the broker starts to listen, and a fetch returns as many batches as fit, byte for byte. A real broker
also sends its files unchanged, at about the same cost, so a measured rate is that of the consumer.

The broker coordinates consumer groups with several members. It does not support producing, replication, compression,
persistence across restarts, or versions of a request other than the one in `Broker.handlers`.

    ./broker.py usage.ndjson --partitions 2 --listen 127.0.0.1:9092

Once it listens, it prints its address to standard output. With --certificate and --key it uses TLS. With --user,
clients must authenticate with SASL (PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512).

Checksums are computed with the package google-crc32c if it is installed. Otherwise a large topic takes minutes.
"""

import argparse
import asyncio
import base64
import bisect
import functools
import hashlib
import hmac
import itertools
import secrets
import ssl
import struct
import time
from pathlib import Path

CLUSTER = "in-memory"
NODE = 1
ITERATIONS = 4096
"""Iterations of SCRAM's key derivation: the lowest number that clients accept."""

NONE = 0
OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
ILLEGAL_GENERATION = 22
INCONSISTENT_GROUP_PROTOCOL = 23
UNKNOWN_MEMBER_ID = 25
REBALANCE_IN_PROGRESS = 27
UNSUPPORTED_SASL_MECHANISM = 33
UNSUPPORTED_VERSION = 35
SASL_AUTHENTICATION_FAILED = 58


# Encoding of the protocol's values.


def int8(number):
    """One byte."""
    return struct.pack(">b", number)


def int16(number):
    """Two bytes, big-endian."""
    return struct.pack(">h", number)


def int32(number):
    """Four bytes, big-endian."""
    return struct.pack(">i", number)


def int64(number):
    """Eight bytes, big-endian."""
    return struct.pack(">q", number)


def string(text):
    """A nullable string."""
    return int16(-1) if text is None else int16(len(text.encode())) + text.encode()


def blob(content):
    """Bytes with their length."""
    return int32(len(content)) + content


def array(items):
    """A list of encoded items."""
    items = list(items)
    return int32(len(items)) + b"".join(items)


class Request:
    """Decodes a request from start to end."""

    def __init__(self, content):
        self.content = content
        self.at = 0

    def take(self, count):
        """The next bytes."""
        taken = self.content[self.at:self.at + count]
        self.at += count
        return taken

    def unpack(self, form):
        """The next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def int8(self):
        """The next byte."""
        return self.unpack(">b")

    def int16(self):
        """The next two bytes."""
        return self.unpack(">h")

    def int32(self):
        """The next four bytes."""
        return self.unpack(">i")

    def int64(self):
        """The next eight bytes."""
        return self.unpack(">q")

    def string(self):
        """The next nullable string."""
        length = self.int16()
        return None if length < 0 else self.take(length).decode()

    def blob(self):
        """The next bytes, after their length."""
        return self.take(self.int32())

    def array(self, item):
        """The next nullable list; `item` reads an item."""
        length = self.int32()
        return None if length < 0 else [item() for _ in range(length)]

    def topics(self, partition):
        """The next list of topics with their partitions; `partition` reads a partition."""
        return self.array(lambda: (self.string(), self.array(partition)))


# Messages.


def crc32c_in_python():
    """CRC-32C with a lookup table."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)

    def crc32c(content):
        crc = 0xFFFFFFFF
        for byte in content:
            crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF

    return crc32c


try:
    from google_crc32c import value as crc32c
except ImportError:
    crc32c = crc32c_in_python()


@functools.cache
def varint(number):
    """A number of variable length: zigzag-encoded, seven bits per byte."""
    number = number << 1 ^ number >> 63
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class Partition:
    """The messages of a partition, as consecutive record batches."""

    def __init__(self, batch_bytes):
        self.batch_bytes = batch_bytes
        self.log = bytearray()
        self.bases = []
        """The first offset of each batch."""
        self.positions = [0]
        """The position of each batch in the log, and the end of the log."""
        self.end = 0
        """The offset of the next message."""
        self.records = []
        self.records_bytes = 0

    def append(self, message):
        """Adds a message."""
        # Attributes, timestamp delta, offset delta, no key, value, no headers.
        record = b"".join((b"\0\0", varint(len(self.records)), b"\1", varint(len(message)), message, b"\0"))
        self.records.append(varint(len(record)) + record)
        self.records_bytes += len(record)
        if self.records_bytes >= self.batch_bytes:
            self.end_batch()

    def end_batch(self):
        """Writes the pending messages to the log as a batch."""
        if not self.records:
            return
        count = len(self.records)
        now = int(time.time() * 1000)
        # Attributes, last offset delta, two timestamps, no producer ID, no producer epoch, no sequence, count.
        body = struct.pack(">hiqqqhii", 0, count - 1, now, now, -1, -1, -1, count) + b"".join(self.records)
        # Base offset, length, leader epoch, format version, checksum.
        self.log += struct.pack(">qiibI", self.end, len(body) + 9, 0, 2, crc32c(body)) + body
        self.bases.append(self.end)
        self.positions.append(len(self.log))
        self.end += count
        self.records = []
        self.records_bytes = 0

    def batches(self, offset, max_bytes):
        """The batches from the one with `offset`, up to `max_bytes` but at least one, or none at the end."""
        if offset == self.end:
            return b""
        first = bisect.bisect_right(self.bases, offset) - 1
        end = bisect.bisect_right(self.positions, self.positions[first] + max_bytes) - 1
        return memoryview(self.log)[self.positions[first]:self.positions[max(end, first + 1)]]


def read_partitions(file, count, batch_bytes):
    """Distributes the lines of a file over partitions in turn."""
    partitions = [Partition(batch_bytes) for _ in range(count)]
    with file.open("rb") as lines:
        for line, partition in zip(lines, itertools.cycle(partitions)):
            partition.append(line.rstrip(b"\r\n"))
    for partition in partitions:
        partition.end_batch()
    return partitions


# Consumer groups.


class Member:
    """A member of a group."""

    def __init__(self, session_timeout):
        self.session_timeout = session_timeout
        self.last_seen = time.monotonic()
        self.protocols = {}
        """Its metadata for each assignment strategy it supports."""
        self.has_joined = False
        """Whether it waits for the next generation."""


class Group:
    """A consumer group: all members join, and the leader (the first member) assigns the partitions."""

    def __init__(self):
        self.members = {}
        self.names = itertools.count(1)
        self.generation = 0
        self.is_rebalancing = False
        self.assignments = None
        """The assignment of each member, or None until the leader has sent them."""
        self.offsets = {}
        """The committed offset of each (topic, partition)."""
        self.changed = asyncio.Condition()

    def problem(self, member_id, generation):
        """The error code for a member's request. Marks the member as seen."""
        if member_id not in self.members:
            return UNKNOWN_MEMBER_ID
        self.members[member_id].last_seen = time.monotonic()
        if generation != self.generation:
            return ILLEGAL_GENERATION
        return REBALANCE_IN_PROGRESS if self.is_rebalancing else NONE

    async def join(self, member_id, session_timeout, protocols):
        """Waits until all members have joined. Returns (error, member ID)."""
        async with self.changed:
            if member_id and member_id not in self.members:
                return UNKNOWN_MEMBER_ID, member_id
            others = [other for name, other in self.members.items() if name != member_id]
            if any(not protocols.keys() & other.protocols.keys() for other in others):
                return INCONSISTENT_GROUP_PROTOCOL, member_id
            member_id = member_id or f"member-{next(self.names)}"
            member = self.members.setdefault(member_id, Member(session_timeout))
            member.protocols = protocols
            member.has_joined = True
            self.is_rebalancing = True
            generation = self.generation
            self.begin_generation_if_all_joined()
            await self.changed.wait_for(lambda: self.generation > generation)
            return NONE, member_id

    def begin_generation_if_all_joined(self):
        """Ends the rebalance once all members have joined."""
        self.changed.notify_all()
        if not self.is_rebalancing or not all(member.has_joined for member in self.members.values()):
            return
        self.generation += 1
        self.is_rebalancing = False
        self.assignments = None
        for member in self.members.values():
            member.has_joined = False
            member.last_seen = time.monotonic()

    def leader(self):
        """The member that assigns the partitions."""
        return next(iter(self.members), "")

    def protocol(self):
        """The leader's first strategy that all members support."""
        common = set.intersection(*(set(member.protocols) for member in self.members.values()))
        return next(name for name in self.members[self.leader()].protocols if name in common)

    async def sync(self, member_id, generation, assignments):
        """Waits for the leader's assignments. Returns (error, assignment of the member)."""
        async with self.changed:
            problem = self.problem(member_id, generation)
            if problem == NONE and member_id == self.leader():
                self.assignments = assignments
                self.changed.notify_all()
            if problem == NONE:
                await self.changed.wait_for(lambda: self.assignments is not None or self.problem(member_id, generation))
                problem = self.problem(member_id, generation)
            return problem, b"" if problem else self.assignments.get(member_id, b"")

    async def remove(self, is_gone):
        """Removes the members for which `is_gone` is true, and rebalances."""
        async with self.changed:
            remaining = {name: member for name, member in self.members.items() if not is_gone(name, member)}
            if len(remaining) < len(self.members):
                self.members = remaining
                self.is_rebalancing = bool(remaining)
                self.begin_generation_if_all_joined()

    async def remove_expired(self):
        """Removes the members whose session has timed out."""
        now = time.monotonic()
        await self.remove(lambda _, member: not member.has_joined and now - member.last_seen > member.session_timeout)


# Authentication.


class Plain:
    """SASL PLAIN: the client sends the password."""

    def __init__(self, users):
        self.users = users

    def respond(self, message):
        """Returns (reply, whether the client is authenticated) for its only message, or None to refuse it."""
        _, user, password = message.decode().split("\0")
        return (b"", True) if self.users.get(user) == password else None


class Scram:
    """SASL SCRAM: client and server prove to each other that they know the password."""

    def __init__(self, users, algorithm):
        self.users = users
        self.algorithm = algorithm
        self.messages = []
        """The messages so far, which the proofs sign."""
        self.user = None

    def hmac(self, key, message):
        """The HMAC with this mechanism's hash."""
        return hmac.new(key, message, self.algorithm).digest()

    def respond(self, message):
        """Returns (reply, whether the client is authenticated) for its next message, or None to refuse it."""
        text = message.decode()
        fields = dict(field.split("=", 1) for field in text.removeprefix("n,,").split(","))
        if not self.messages:
            self.user = fields["n"]
            self.salt = secrets.token_bytes(16)
            self.nonce = fields["r"] + secrets.token_hex(16)
            challenge = f"r={self.nonce},s={base64.b64encode(self.salt).decode()},i={ITERATIONS}"
            self.messages = [text.removeprefix("n,,"), challenge]
            return challenge.encode(), False
        password = self.users.get(self.user, secrets.token_hex())
        salted = hashlib.pbkdf2_hmac(self.algorithm, password.encode(), self.salt, ITERATIONS)
        client_key = self.hmac(salted, b"Client Key")
        auth_message = ",".join([*self.messages, text.rsplit(",p=", 1)[0]]).encode()
        signature = self.hmac(hashlib.new(self.algorithm, client_key).digest(), auth_message)
        proof = bytes(one ^ other for one, other in zip(client_key, signature))
        if fields["r"] != self.nonce or not hmac.compare_digest(proof, base64.b64decode(fields["p"])):
            return None
        return b"v=" + base64.b64encode(self.hmac(self.hmac(salted, b"Server Key"), auth_message)), True


MECHANISMS = {
    "PLAIN": Plain,
    "SCRAM-SHA-256": lambda users: Scram(users, "sha256"),
    "SCRAM-SHA-512": lambda users: Scram(users, "sha512"),
}


class Session:
    """The state of a connection."""

    def __init__(self, is_authenticated):
        self.is_authenticated = is_authenticated
        self.sasl = None


class Broker:
    """The only broker of the cluster."""

    def __init__(self, topic, partitions, users):
        self.topic = topic
        self.partitions = partitions
        self.users = users
        self.groups = {}
        self.address = None
        self.handlers = {
            # Clients derive the message format from this version; producing is not supported.
            0: (3, None),
            1: (4, self.fetch),
            2: (1, self.list_offsets),
            3: (4, self.metadata),
            8: (2, self.commit_offsets),
            9: (1, self.fetch_offsets),
            10: (0, self.find_coordinator),
            11: (1, self.join_group),
            12: (0, self.heartbeat),
            13: (0, self.leave_group),
            14: (0, self.sync_group),
            17: (1, self.sasl_handshake),
            18: (0, self.versions),
            36: (0, self.sasl_authenticate),
        }
        """The supported version and the handler of each request, by API key."""

    async def serve(self, reader, writer):
        """Handles the requests of a connection in order."""
        session = Session(is_authenticated=not self.users)
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = Request(await reader.readexactly(size))
                key, version, correlation = request.int16(), request.int16(), request.int32()
                request.string()
                response = await self.handle(key, version, request, session)
                writer.writelines((int32(4 + len(response)), int32(correlation), response))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def handle(self, key, version, request, session):
        """The response to a request."""
        supported_version, handler = self.handlers[key]
        if key == 18 and version != supported_version:
            return self.versions_with(UNSUPPORTED_VERSION)
        if version != supported_version or not (session.is_authenticated or key in (17, 18, 36)):
            raise ConnectionError(f"request {key} of version {version}")
        return await handler(request, session)

    def versions_with(self, error):
        """The supported requests, with an error code."""
        ranges = [int16(key) + int16(version) * 2 for key, (version, _) in self.handlers.items()]
        return int16(error) + array(ranges)

    async def versions(self, _request, _session):
        """ApiVersions."""
        return self.versions_with(NONE)

    async def metadata(self, request, _session):
        """Metadata."""
        names = request.array(request.string)
        host, port = self.address
        partitions = [
            int16(NONE) + int32(number) + int32(NODE) + array([int32(NODE)]) * 2
            for number in range(len(self.partitions))
        ]
        topics = [
            int16(NONE) + string(name) + int8(0) + array(partitions)
            if name == self.topic
            else int16(UNKNOWN_TOPIC_OR_PARTITION) + string(name) + int8(0) + array([])
            for name in ([self.topic] if names is None else names)
        ]
        brokers = [int32(NODE) + string(host) + int32(port) + string(None)]
        return int32(0) + array(brokers) + string(CLUSTER) + int32(NODE) + array(topics)

    def find(self, topic, number):
        """A partition, or None."""
        exists = topic == self.topic and 0 <= number < len(self.partitions)
        return self.partitions[number] if exists else None

    async def list_offsets(self, request, _session):
        """ListOffsets. -2 means the start, anything else the end; timestamps are not supported."""
        request.int32()

        def offset(topic, number, timestamp):
            partition = self.find(topic, number)
            if partition is None:
                return int32(number) + int16(UNKNOWN_TOPIC_OR_PARTITION) + int64(-1) * 2
            return int32(number) + int16(NONE) + int64(-1) + int64(0 if timestamp == -2 else partition.end)

        topics = request.topics(lambda: (request.int32(), request.int64()))
        return array(string(topic) + array(offset(topic, *item) for item in partitions) for topic, partitions in topics)

    async def fetch(self, request, _session):
        """Fetch. At the end of the topic it waits for the longest time allowed, since no message can arrive."""
        request.int32()
        max_wait, _, bytes_left, _ = request.int32(), request.int32(), request.int32(), request.int8()
        topics = request.topics(lambda: (request.int32(), request.int64(), request.int32()))
        parts = [int32(0), int32(len(topics))]
        has_data = False
        for topic, partitions in topics:
            parts += [string(topic), int32(len(partitions))]
            for number, offset, max_bytes in partitions:
                partition, batches, error, end = self.find(topic, number), b"", NONE, -1
                if partition is None:
                    error = UNKNOWN_TOPIC_OR_PARTITION
                elif not 0 <= offset <= partition.end:
                    error = OFFSET_OUT_OF_RANGE
                else:
                    end = partition.end
                    batches = partition.batches(offset, min(max_bytes, bytes_left)) if bytes_left > 0 else b""
                bytes_left -= len(batches)
                has_data |= bool(error or batches)
                # High watermark and last stable offset are equal, and there are no aborted transactions.
                parts += [int32(number), int16(error), int64(end) * 2, int32(-1), int32(len(batches)), batches]
        if not has_data:
            await asyncio.sleep(max_wait / 1000)
        return b"".join(parts)

    def group(self, name):
        """A group, created on first use."""
        return self.groups.setdefault(name, Group())

    async def find_coordinator(self, _request, _session):
        """FindCoordinator."""
        host, port = self.address
        return int16(NONE) + int32(NODE) + string(host) + int32(port)

    async def join_group(self, request, _session):
        """JoinGroup. A rebalance has no timeout other than the session's."""
        group = self.group(request.string())
        session_timeout, _ = request.int32() / 1000, request.int32()
        member_id, _ = request.string(), request.string()
        protocols = dict(request.array(lambda: (request.string(), request.blob())))
        error, member_id = await group.join(member_id, session_timeout, protocols)
        if error:
            return int16(error) + int32(-1) + string("") + string("") + string(member_id) + array([])
        protocol, leader = group.protocol(), group.leader()
        members = [
            string(name) + blob(member.protocols[protocol])
            for name, member in group.members.items()
            if member_id == leader
        ]
        return (int16(NONE) + int32(group.generation) + string(protocol) + string(leader) + string(member_id)
                + array(members))

    async def sync_group(self, request, _session):
        """SyncGroup."""
        group, generation, member_id = self.group(request.string()), request.int32(), request.string()
        assignments = dict(request.array(lambda: (request.string(), request.blob())))
        error, assignment = await group.sync(member_id, generation, assignments)
        return int16(error) + blob(assignment)

    async def heartbeat(self, request, _session):
        """Heartbeat."""
        group, generation, member_id = self.group(request.string()), request.int32(), request.string()
        return int16(group.problem(member_id, generation))

    async def leave_group(self, request, _session):
        """LeaveGroup."""
        group, member_id = self.group(request.string()), request.string()
        await group.remove(lambda name, _: name == member_id)
        return int16(NONE)

    async def commit_offsets(self, request, _session):
        """OffsetCommit."""
        group, generation, member_id = self.group(request.string()), request.int32(), request.string()
        request.int64()
        topics = request.topics(lambda: (request.int32(), request.int64(), request.string()))
        error = group.problem(member_id, generation)
        if error in (NONE, REBALANCE_IN_PROGRESS):
            error = NONE
            group.offsets |= {(topic, number): offset for topic, offsets in topics for number, offset, _ in offsets}
        return array(
            string(topic) + array(int32(number) + int16(error) for number, _, _ in offsets) for topic, offsets in topics
        )

    async def fetch_offsets(self, request, _session):
        """OffsetFetch."""
        offsets = self.group(request.string()).offsets
        topics = request.topics(request.int32)
        return array(
            string(topic) + array(
                int32(number) + int64(offsets.get((topic, number), -1)) + string("") + int16(NONE) for number in numbers
            )
            for topic, numbers in topics
        )

    async def sasl_handshake(self, request, session):
        """SaslHandshake."""
        mechanism = MECHANISMS.get(request.string())
        session.sasl = mechanism and mechanism(self.users)
        return int16(NONE if mechanism else UNSUPPORTED_SASL_MECHANISM) + array(string(name) for name in MECHANISMS)

    async def sasl_authenticate(self, request, session):
        """SaslAuthenticate."""
        reply = session.sasl.respond(request.blob())
        if reply is None:
            return int16(SASL_AUTHENTICATION_FAILED) + string("wrong user or password") + blob(b"")
        content, session.is_authenticated = reply
        return int16(NONE) + string(None) + blob(content)

    async def run(self, host, port, tls):
        """Listens, and prints the address."""
        server = await asyncio.start_server(self.serve, host, port, ssl=tls)
        self.address = server.sockets[0].getsockname()[:2]
        print("{}:{}".format(*self.address), flush=True)
        while True:
            await asyncio.sleep(0.1)
            for group in list(self.groups.values()):
                await group.remove_expired()


def main():
    """Reads the options and the messages, and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="file with one message per line")
    parser.add_argument("--topic", default="usage")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--batch-bytes", type=int, default=16_384, help="target size of record batches (%(default)s)")
    parser.add_argument("--listen", default="127.0.0.1:0", help="address and port; 0 for any free port (%(default)s)")
    parser.add_argument("--certificate", help="file with a certificate, for TLS")
    parser.add_argument("--key", help="file with the private key of the certificate")
    parser.add_argument("--clients-of", help="file with an authority; clients must have a certificate of it")
    parser.add_argument("--user", action="append", default=[], help="NAME:PASSWORD of a user who may connect")
    arguments = parser.parse_args()
    tls = None
    if arguments.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.certificate, arguments.key)
        if arguments.clients_of:
            tls.load_verify_locations(arguments.clients_of)
            tls.verify_mode = ssl.CERT_REQUIRED
    partitions = read_partitions(arguments.file, arguments.partitions, arguments.batch_bytes)
    users = dict(user.split(":", 1) for user in arguments.user)
    host, port = arguments.listen.rsplit(":", 1)
    asyncio.run(Broker(arguments.topic, partitions, users).run(host, int(port), tls))


if __name__ == "__main__":
    main()
