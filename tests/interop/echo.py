"""RFC 6455 against /v1/echo, which answers through the same frame code as devices: what a conformance
suite asks for, by the `websockets` library where it can say it, by bytes where it cannot.

    python tests/interop/echo.py target/release/roost
"""

import contextlib
import os
import socket
import struct
import sys

from hub import PATIENCE, Hub
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MIB = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def library(url):
    """Whole messages, in fragments too, by a client library."""
    with connect(url, max_size=None, compression=None) as ws:
        for size in (0, 1, 125, 126, 127, 65_535, 65_536, MIB, 16 * MIB):
            data = os.urandom(size)
            ws.send(data)
            assert ws.recv(PATIENCE) == data, f"{size} bytes changed"
        text = "κόσμε €🦆" * 100_000
        ws.send(text)
        assert ws.recv(PATIENCE) == text
        pieces = [b"%06d" % number for number in range(70_000)]
        ws.send(pieces)
        assert ws.recv(PATIENCE) == b"".join(pieces), "70,000 fragments changed"
        assert ws.ping(b"still there").wait(PATIENCE)
    # No extension is negotiated, so that a library that offers compression does without.
    with connect(url) as ws:
        ws.send("x" * 1000)
        assert ws.recv(PATIENCE) == "x" * 1000
        ws.close(3000, "enough")
        assert ws.close_code == 3000
    with connect(url, max_size=None, compression=None) as ws:
        with contextlib.suppress(ConnectionClosed):
            ws.send(b"x" * (16 * MIB + 1))
            ws.recv(PATIENCE)
        assert ws.close_code == 1009, ws.close_code


def frame(opcode, payload=b"", fin=True, rsv=0, mask=b"\x01\x02\x03\x04"):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    else:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


class Raw:
    """A connection as bytes."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.sendall(
            b"GET /v1/echo HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self.file = self.socket.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.file.readline()
        assert b" 101 " in head and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head

    def read(self):
        """The next frame: opcode and payload. None at the end."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        assert head[0] & 0xF0 == 0x80 and head[1] < 0x80, "the hub sends whole, unmasked frames"
        size = head[1]
        if size == 126:
            (size,) = struct.unpack(">H", self.file.read(2))
        return head[0] & 15, self.file.read(size)

    def close(self):
        self.file.close()
        self.socket.close()


def exchange(address, sent, expected):
    """Sends bytes, and gets exactly these frames."""
    with contextlib.closing(Raw(address)) as raw:
        raw.socket.sendall(sent)
        for wanted in expected:
            got = raw.read()
            if wanted[0] == CLOSE and got:
                # The reason after the code is the hub's own.
                got = (got[0], got[1][:2])
            assert got == wanted, f"{sent[:40]}: got {got}, not {wanted}"


def close(code):
    return CLOSE, struct.pack(">H", code)


def by_bytes(address):
    hello = (TEXT, b"Hello")
    pieces = frame(TEXT, b"Hel", fin=False) + frame(PING, b"p") + frame(0, b"lo")
    good = [
        (frame(TEXT, b"Hello"), [hello]),
        (frame(TEXT, b"Hello", mask=b"\0\0\0\0"), [hello]),
        (pieces, [(PONG, b"p"), hello]),
        (frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) + frame(0), [(TEXT, b"")]),
        (frame(PING, b"x" * 125), [(PONG, b"x" * 125)]),
        (frame(PONG, b"unasked") + frame(TEXT, b"Hello"), [hello]),
        (frame(TEXT, b"\xce\xba\xe1\xbd", fin=False) + frame(0, b"\xb9"), [(TEXT, b"\xce\xba\xe1\xbd\xb9")]),
        (frame(BINARY, b"\xff\xfe"), [(BINARY, b"\xff\xfe")]),
        (frame(CLOSE, struct.pack(">H", 1000) + b"bye"), [close(1000)]),
        (frame(CLOSE, struct.pack(">H", 4999)), [close(4999)]),
    ]
    protocol = [
        frame(TEXT, b"Hello", mask=b""),
        *(frame(TEXT, b"Hello", rsv=rsv) for rsv in (1, 2, 4, 7)),
        *(frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(0, b"nothing to go on with"),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(CLOSE, b"\x03"),
        *(frame(CLOSE, struct.pack(">H", code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000)),
    ]
    not_utf8 = [
        frame(TEXT, b"\xce\xba\xed\xa0\x80edited"),
        frame(TEXT, b"\xf4\x90\x80\x80"),
        frame(TEXT, b"\xc0\xaf"),
        frame(TEXT, b"\xce", fin=False) + frame(0, b"\xce"),
        frame(TEXT, b"ends early \xe2\x82"),
        # Told at once, not at the end of the message.
        frame(TEXT, b"\xff", fin=False),
        frame(CLOSE, struct.pack(">H", 1000) + b"\xff"),
    ]
    for sent, expected in good:
        exchange(address, sent, expected)
        # In single bytes it is the same.
        with contextlib.closing(Raw(address)) as raw:
            raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in sent:
                raw.socket.sendall(bytes([byte]))
            got = raw.read()
            assert got[0] == expected[0][0], got
    for sent in protocol:
        exchange(address, sent, [close(1002)])
    for sent in not_utf8:
        exchange(address, sent, [close(1007)])
    return len(good) + len(protocol) + len(not_utf8)


def main():
    with Hub(sys.argv[1]) as hub:
        node = hub.serve("--enable-echo")
        library(f"ws://{node['edge']}/v1/echo")
        cases = by_bytes(node["edge"])
    print(f"/v1/echo: 16 MiB, 70,000 fragments and {cases} cases of RFC 6455 are as they should be")


if __name__ == "__main__":
    main()
