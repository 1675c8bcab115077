"""A proxy between the client under test and the server, which breaks connections on purpose.

It knows the frames of HTTP/2 and the messages of gRPC in them, but not their content: it counts the responses that pass
to the client, and does something bad after some of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field

DATA, HEADERS, RST_STREAM = 0x0, 0x1, 0x3
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
PREFACE = 24
# What a client needs to take a response from its connection.
SEEN_SECONDS = 0.03
# What a server needs to answer what it has got.
ANSWER_SECONDS = 0.2


@dataclass
class Fault:
    """What happens to a connection: `do` after `after` responses, up to `times` times (0: without limit).

    - `cut`: both ends are closed; `reset`: likewise, with a TCP reset; `half`: the next response is cut within.
    - `stall`: nothing passes any more, and the connection stays open.
    - `mute`: nothing passes to the client any more; `seconds` after the first response, the connection is cut.
    - `status`: the server's side of the call is dropped, and the client gets the trailers in `trailers`.
    - `rst`: the client gets a reset of the stream with the code `code`.
    - `append`: the bytes `append` are appended to the next response of a call.
    - `delay`: each response is delayed by `seconds`.
    - `bytes`: the connection is cut after a random number of bytes, from 2,000 to `bytes`.
    - `bytes_up`: likewise, of bytes to the server.
    - `refuse`: a connection is closed as soon as it is accepted.
    - `hold`: the first connection is one of `mute`. On the second, one message passes to the server, and its answer
      passes after half of `late` seconds. The messages after it wait, as in the buffers of a slow network, and pass
      after `late` seconds unless the client has ended the call.

    The proxy cannot read what passes by TLS. There it knows `refuse`, `bytes`, `bytes_up`, and `stall` after a random
    number of bytes.
    """

    do: str = ""
    after: int = 0
    times: int = 0
    seconds: float = 0.0
    late: float = 0.0
    trailers: dict[str, str | bytes] = field(default_factory=dict)
    code: int = 8
    append: bytes = b""
    bytes: int = 0
    skip: int = 0


class Proxy:
    """Listens at `address`, and passes connections on to a server whose address may change. `is_sealed`: by TLS."""

    def __init__(self, target, fault: Fault | None = None, is_sealed=False):
        self.target, self.fault, self.is_sealed = target, fault or Fault(), is_sealed
        self.connections = self.faults = 0
        self._server = None
        self._tasks: set[asyncio.Task] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            with contextlib.suppress(Exception):
                writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections += 1
        fault = self.fault
        number = self.connections - fault.skip
        is_faulty = bool(fault.do) and number > 0 and (not fault.times or self.faults < fault.times)
        if is_faulty and fault.do == "refuse":
            self.faults += 1
            return
        host, port = self.target().rsplit(":", 1)
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        self._writers.add(up_writer)
        for each in (writer, up_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = SealedConnection if self.is_sealed else Connection
        connection = kind(self, fault if is_faulty else Fault(), writer, up_writer)
        try:
            await connection.run(reader, up_reader)
        finally:
            self._writers.discard(up_writer)
            up_writer.transport.abort()


class Connection:
    """One connection and its fault."""

    def __init__(self, proxy, fault, client, server):
        self.proxy, self.fault, self.client, self.server = proxy, fault, client, server
        self.responses = 0
        self.is_stalled = self.is_muted = False
        # Streams of which the client has heard the end already.
        self.ended: set[int] = set()
        self.left = random.randint(2_000, max(2_000, fault.bytes)) if fault.bytes else None
        self.to_client, self.to_server = Messages(), Messages()
        is_second = fault.do == "hold" and proxy.faults > 0
        self.mutes = fault.do == "mute" or fault.do == "hold" and not is_second
        # The messages that wait, if they do.
        self.held: list[bytes] | None = None
        self.holds = is_second

    async def run(self, reader, up_reader):
        sides = [
            asyncio.create_task(self._to_server(reader)),
            asyncio.create_task(self._to_client(up_reader)),
        ]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            while self.is_stalled:
                await asyncio.sleep(1)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)

    def spend(self, count):
        """Whether the connection is over after this number of bytes."""
        if self.left is not None:
            self.left -= count
            if self.left < 0:
                self.proxy.faults += 1
                return True
        return False

    async def _to_server(self, reader):
        preface = await reader.readexactly(PREFACE)
        self.server.write(preface)
        while True:
            frame = await read_frame(reader)
            if self.is_stalled:
                await asyncio.Event().wait()
            if frame[3] == RST_STREAM:
                self.held = self.held and []
            if stream_of(frame) in self.ended and frame[3] in (DATA, RST_STREAM):
                continue
            if self.holds and frame[3] == DATA:
                self._hold(frame)
                continue
            self.server.write(frame)
            await self.server.drain()
            if self.fault.do == "bytes_up" and self.spend(len(frame)):
                # Answers to what has passed may still come, or a slow disk would never let a publisher advance.
                await asyncio.sleep(ANSWER_SECONDS)
                return

    def _hold(self, frame):
        """Passes the first message to the server, and keeps those after it."""
        for part, is_message in self.to_server.parts(frame):
            if self.held is not None:
                self.held.append(part)
                continue
            self.server.write(part)
            if is_message:
                self.held = []
                self.proxy.faults += 1
                asyncio.get_running_loop().call_later(self.fault.late, self._release)

    def _release(self):
        self.server.writelines(self.held)
        self.held, self.holds = None, False

    async def _to_client(self, reader):
        fault = self.fault
        while True:
            frame = await read_frame(reader)
            if self.mutes and frame[3] in (DATA, HEADERS):
                if frame[3] == DATA and not self.is_muted:
                    self.is_muted = True
                    self.proxy.faults += 1
                    asyncio.get_running_loop().call_later(fault.seconds, self._cut)
                continue
            stream = stream_of(frame)
            if stream in self.ended:
                continue
            for part, is_message in self._parts(frame):
                if await self._pass(stream, part, is_message):
                    return
                if stream in self.ended:
                    break

    async def _pass(self, stream, frame, is_message):
        """Passes a frame with one response at most, or a part of one. Whether the connection is over."""
        fault = self.fault
        if is_message:
            if fault.do == "half" and self.responses >= fault.after:
                self.client.write(frame[: 9 + max(1, (len(frame) - 9) // 2)])
                await self.client.drain()
                self.proxy.faults += 1
                return True
            if fault.do == "append" and self.responses >= fault.after:
                changed = appended(frame, fault.append)
                self.proxy.faults += changed != frame
                frame = changed
            if fault.do == "delay":
                self.proxy.faults += 1
                await asyncio.sleep(fault.seconds)
            if self.holds and self.responses == 0:
                await asyncio.sleep(fault.late / 2)
        self.client.write(frame)
        await self.client.drain()
        self.responses += is_message
        if fault.do == "bytes" and self.spend(len(frame)):
            return True
        return bool(is_message and fault.after and self.responses >= fault.after and await self._strike(stream))

    async def _strike(self, stream):
        """Does what the fault says. Whether the connection is over."""
        fault = self.fault
        if fault.do in ("cut", "reset", "status", "rst"):
            # Some libraries drop what they have not read yet when the call ends. They should see the responses before.
            await asyncio.sleep(SEEN_SECONDS)
        if fault.do == "cut":
            self.proxy.faults += 1
            return True
        if fault.do == "reset":
            self.proxy.faults += 1
            linger = struct.pack("ii", 1, 0)
            self.client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return True
        if fault.do == "stall":
            self.proxy.faults += 1
            self.is_stalled = True
            await asyncio.Event().wait()
        if fault.do in ("status", "rst"):
            self.proxy.faults += 1
            self.responses = 0
            self.ended.add(stream)
            self.server.write(frame_of(RST_STREAM, 0, stream, struct.pack(">I", 8)))
            if fault.do == "rst":
                self.client.write(frame_of(RST_STREAM, 0, stream, struct.pack(">I", fault.code)))
            else:
                block = b"".join(header(name, value) for name, value in fault.trailers.items())
                self.client.write(frame_of(HEADERS, END_STREAM | END_HEADERS, stream, block))
            await self.client.drain()
            if fault.times and self.proxy.faults >= fault.times:
                self.fault = Fault()
        return False

    def _cut(self):
        self.client.transport.abort()
        self.server.transport.abort()

    def _parts(self, frame):
        if frame[3] != DATA or not self.fault.do or self.fault.do == "bytes":
            return [(frame, False)]
        return self.to_client.parts(frame)


class SealedConnection(Connection):
    """One connection by TLS."""

    async def _to_server(self, reader):
        while data := await reader.read(65_536):
            if self.is_stalled:
                await asyncio.Event().wait()
            self.server.write(data)
            await self.server.drain()
            if self.fault.do == "bytes_up" and self.spend(len(data)):
                await asyncio.sleep(ANSWER_SECONDS)
                return

    async def _to_client(self, reader):
        while data := await reader.read(65_536):
            is_counted = self.fault.do in ("bytes", "stall")
            # A server may write more at once than a connection lasts. Without the part that passes, no client advances.
            self.client.write(data[: self.left] if is_counted else data)
            await self.client.drain()
            if is_counted and self.spend(len(data)):
                if self.fault.do == "bytes":
                    return
                self.is_stalled = True
                await asyncio.Event().wait()


class Messages:
    """Finds the ends of messages in the frames of one direction."""

    def __init__(self):
        # By stream: the bytes that are missing of the message that passes, and the part of its head that has passed.
        self.missing: dict[int, int] = {}
        self.heads: dict[int, bytes] = {}

    def parts(self, frame):
        """A frame of data as frames that end where a message ends, and whether one does."""
        stream, data = stream_of(frame), frame[9:]
        if frame[4] & PADDED:
            return [(frame, False)]
        parts, start, at = [], 0, 0
        while at < len(data):
            missing = self.missing.get(stream, 0)
            if missing == 0:
                head = self.heads.pop(stream, b"")
                taken = min(5 - len(head), len(data) - at)
                head, at = head + data[at : at + taken], at + taken
                if len(head) < 5:
                    self.heads[stream] = head
                    break
                missing = int.from_bytes(head[1:], "big")
            taken = min(missing, len(data) - at)
            at += taken
            self.missing[stream] = missing - taken
            if missing == taken:
                parts.append((frame_of(DATA, 0, stream, data[start:at]), True))
                start = at
        if start < len(data) or not parts:
            parts.append((frame_of(DATA, 0, stream, data[start:]), False))
        last, is_message = parts[-1]
        parts[-1] = (frame_of(DATA, frame[4], stream, last[9:]), is_message)
        return parts


async def read_frame(reader):
    """A whole frame of HTTP/2, with its head."""
    head = await reader.readexactly(9)
    return head + await reader.readexactly(int.from_bytes(head[:3], "big"))


def stream_of(frame):
    return int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF


def frame_of(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name, value):
    """A header of HPACK, literal and without indexing, so that the table of the connection does not change."""
    parts = (name.encode(), value.encode() if isinstance(value, str) else value)
    return b"\0" + b"".join(integer(len(part)) + part for part in parts)


def integer(number):
    """An integer of HPACK with a prefix of seven bits."""
    if number < 127:
        return bytes([number])
    out, number = bytearray([127]), number - 127
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def appended(frame, extra):
    """A frame with one whole message, and bytes appended to the message: to a protobuf, this adds or merges fields."""
    head, data = frame[:9], frame[9:]
    length = int.from_bytes(data[1:5], "big")
    if len(data) != 5 + length or head[4] & PADDED:
        return frame
    data = data[:1] + struct.pack(">I", length + len(extra)) + data[5:] + extra
    return frame_of(head[3], head[4], stream_of(frame), data)
