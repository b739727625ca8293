"""A device of a few lines on a plain socket, for what `roost simulate` does not do: subscribe, and come
and go. It speaks enough of RFC 6455 to be a good peer: masks, answers pings and closes.
"""

import base64
import json
import os
import socket
import struct
import time

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Device:
    """Connects, says hello, subscribes; closes with 1000 at the end."""

    def __init__(self, port: int, name: str, *topics: str):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.buffer = b""
        self.closed = False
        key = base64.b64encode(os.urandom(16)).decode()
        request = (f"GET /v1/connect?device={name}&hello=auto HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                   f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n")
        self.socket.sendall(request.encode())
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode(errors="replace"))
        for number, topic in enumerate(topics):
            self.say({"type": "subscribe", "id": number + 1, "topic": topic})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            if not self.closed:
                self.frame(CLOSE, struct.pack(">H", 1000))
                self.until_closed(1)
        except OSError:
            pass
        self.socket.close()

    def more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the hub closed the connection")
        self.buffer += data

    def frame(self, opcode: int, payload: bytes) -> None:
        size = struct.pack("B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack(">BH", 0xFE, len(payload))
        mask = os.urandom(4)
        body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode]) + size + mask + body)

    def say(self, message: dict) -> None:
        self.frame(TEXT, json.dumps(message).encode())

    def take(self):
        """One frame of the buffer, or nothing."""
        if len(self.buffer) < 2:
            return None
        size, start = self.buffer[1] & 0x7F, 2
        for marker, form in ((126, ">H"), (127, ">Q")):
            if size == marker:
                start = 2 + struct.calcsize(form)
                if len(self.buffer) < start:
                    return None
                (size,) = struct.unpack(form, self.buffer[2:start])
                break
        if len(self.buffer) < start + size:
            return None
        opcode, payload = self.buffer[0] & 0x0F, self.buffer[start:start + size]
        self.buffer = self.buffer[start + size:]
        return opcode, payload

    def read(self, seconds: float) -> None:
        """Reads what comes for a while, answering pings and a close."""
        deadline = time.monotonic() + seconds
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            while found := self.take():
                self.answer(*found)
            if self.closed:
                break
            self.socket.settimeout(left)
            try:
                self.more()
            except TimeoutError:
                return

    def answer(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.frame(PONG, payload)
        elif opcode == CLOSE:
            if not self.closed:
                self.closed = True
                self.frame(CLOSE, payload[:2])

    def until_closed(self, seconds: float) -> None:
        self.read(seconds)
