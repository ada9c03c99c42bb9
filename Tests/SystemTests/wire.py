"""The wire format, written down a second time, so that a peer can be wrong on purpose. Sources/WireFormat is the original."""
import hashlib
import hmac
import json
import socket
import struct
import threading

from lab import WAIT_SECONDS

MAGIC = b"TURNTBL\n"
VERSION = 5
WELCOME, OFFER, OFFERED, REFUSED, PING, PONG, HANDOFF, COMMITTED, ABORT, DIGESTS, VERIFIED, QUERY, RESOLUTION = range(1, 14)
PAGES = 1
CONTROL, DATA = 0, 1

SESSION = bytes(range(16))


def preface(role=CONTROL, stream=0, attachment=bytes(16), protection=0, lowest=VERSION, highest=VERSION, magic=MAGIC):
    return magic + struct.pack("<HHBBH", lowest, highest, role, protection, stream) + attachment


def message(kind, body=b"", length=None):
    return struct.pack("<IHH", len(body) if length is None else length, kind, 0) + body


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(data)) + data


def offer(arguments, regions, machine="m", streams=1, epoch=2, token=b""):
    body = SESSION + struct.pack("<Q", epoch) + text(machine) + struct.pack("<HI", streams, len(regions))
    for name, size in regions:
        body += text(name) + struct.pack("<Q", size)
    # No populations, no disks, no comparison, no resume window, not handed off.
    body += struct.pack("<IIBqB", 0, 0, 0, 0, 0)
    return message(OFFER, body + text(json.dumps({"hypervisor": "qemu", "arguments": arguments, "isRunning": True, "disks": []})) + text(token))


def offered(epoch=2, regions=1):
    # Nothing is here, and all memory is zeroes.
    return message(OFFERED, struct.pack("<Q", epoch) + bytes(16) + struct.pack("<II", 0, regions) + bytes(regions))


def handoff(frames, device_bytes=0, epoch=2, attachment=bytes(16)):
    return message(HANDOFF, struct.pack("<Q", epoch) + SESSION + attachment + struct.pack("<I", len(frames)) + struct.pack(f"<{len(frames)}QQ", *frames, device_bytes))


def welcome(version=VERSION):
    return message(WELCOME, struct.pack("<H", version) + bytes(range(16)) + struct.pack("<I", 0))


def refused(reason):
    return message(REFUSED, struct.pack("<Q", 0) + text(reason) + text(b""))


def frame(extents, payload, sequence=0, payload_bytes=None, magic=b"TTF1", kind=PAGES):
    size = len(payload) if payload_bytes is None else payload_bytes
    head = magic + struct.pack("<BBHQIIQQ", kind, 0, len(extents), sequence, size, 0, 0, 0)
    return head + b"".join(struct.pack("<QIHBB", first, count, region, encoding, 0) for first, count, region, encoding in extents) + payload


class Connection:
    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(WAIT_SECONDS)

    @classmethod
    def to(cls, address):
        host, port = address.rsplit(":", 1)
        return cls(socket.create_connection((host, int(port)), WAIT_SECONDS))

    def send(self, data):
        self.socket.sendall(data)
        return self

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(f"{len(data)} of {count} bytes")
            data += piece
        return data

    def receive(self):
        """The next message: its kind and its body."""
        length, kind, _ = struct.unpack("<IHH", self.read(8))
        return kind, self.read(length)

    def receive_kind(self, wanted):
        while True:
            kind, body = self.receive()
            if kind == wanted:
                return body

    def close(self):
        self.socket.close()


def open_session(address, an_offer):
    """A source's control stream up to Offered, and its attachment."""
    control = Connection.to(address).send(preface())
    attachment = control.receive_kind(WELCOME)[2:18]
    control.send(an_offer)
    control.receive_kind(OFFERED)
    return control, attachment


class Server:
    """Listens and lets `serve` have every connection, each on a thread of its own."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.serve, self.connections = serve, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            connection = Connection(accepted)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection)
        except OSError:
            pass
        except EOFError:
            pass

    def close(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()


def announcement(machine, key, epoch, site, magic=b"TTARRIVE", version=1):
    """What a target says when it has a machine: Sources/WireFormat/Announcement.swift."""
    said = magic + struct.pack("<HHI", version, site, 0) + hashlib.sha256(machine.encode()).digest() + struct.pack("<Qq", epoch, 0)
    return said + hmac.new(key, said, hashlib.sha256).digest()
