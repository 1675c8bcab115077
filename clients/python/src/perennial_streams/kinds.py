"""What differs between the three kinds of stream: names, types, and how an item that was handed out is recognized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from .errors import CallError
from .v1 import countdown_pb2, lines_pb2, messages_pb2

# Events after which the lines that follow are in another file, or in the same one from another place.
_SWITCHES = {"rotated", "truncated", "opened", "late"}


class Kind:
    """One kind of stream."""

    name = ""
    items = ""
    method = ""
    request: Any
    response: Any

    def key(self, response: Any, item: Any) -> dict[str, int]:
        """The key of an item of this response."""
        raise NotImplementedError

    def replay(self, key: Mapping[str, int], request: Any) -> Replay:
        """Finds the items that were handed out before, up to this key."""
        raise NotImplementedError


class Replay:
    """The items after a cursor that come again, up to the one with a key. `is_pending` until a later one came."""

    def __init__(self, key: Mapping[str, int]) -> None:
        self.key = dict(key)
        self.is_pending = True

    def filter(self, response: Any) -> list[Any]:
        """Removes what was handed out before from a response, and returns the items that are left."""
        raise NotImplementedError


class _Messages(Kind):
    name = "messages"
    items = "messages"
    method = "/perennial.v1.MessageService/Messages"
    request = messages_pb2.MessagesRequest
    response = messages_pb2.MessagesResponse

    def key(self, response: Any, item: Any) -> dict[str, int]:
        return {"sequence": item.sequence, "publish_time": item.publish_time.ToNanoseconds()}

    def replay(self, key: Mapping[str, int], request: Any) -> Replay:
        return _MessageReplay(key)


class _MessageReplay(Replay):
    def filter(self, response: Any) -> list[Any]:
        if any(event.gap.reason == messages_pb2.MESSAGE_GAP_REASON_DIVERGED for event in response.events):
            # The sequences go back: nothing after this was handed out.
            self.is_pending = False
            return list(response.messages)
        last = self.key["sequence"]
        left = []
        for message in response.messages:
            if message.sequence > last:
                self.is_pending = False
                left.append(message)
            elif message.sequence == last and message.publish_time.ToNanoseconds() != self.key["publish_time"]:
                raise CallError(
                    grpc.StatusCode.OUT_OF_RANGE,
                    f"message {last} is another one than the one that was read: the server's log was restored from a copy. "
                    "Start without the state",
                    reason="LOG_DIVERGED",
                )
        told = [event for event in response.events if event.HasField("gap") and event.gap.last_sequence <= last]
        for event in told:
            response.events.remove(event)
        return left


class _Lines(Kind):
    name = "lines"
    items = "lines"
    method = "/perennial.v1.LineService/ReadLines"
    request = lines_pb2.ReadLinesRequest
    response = lines_pb2.ReadLinesResponse

    def key(self, response: Any, item: Any) -> dict[str, int]:
        key = {"switches": _switches(response), "offset": item.offset}
        if item.partial or item.no_newline:
            key["bytes"] = len(_content(item))
        return key

    def replay(self, key: Mapping[str, int], request: Any) -> Replay:
        return _LineReplay(key)


class _LineReplay(Replay):
    def filter(self, response: Any) -> list[Any]:
        switches = _switches(response)
        is_lost = any(
            event.HasField("resumed") and event.resumed.found == lines_pb2.FILE_RESUMED_FOUND_LOST
            for event in response.events
        )
        left = []
        for line in response.lines:
            # Lines before the file of the key were written to an older file after the stream had left it: they are new.
            if is_lost or switches != self.key["switches"] or line.offset > self.key["offset"]:
                self.is_pending = self.is_pending and not is_lost and switches < self.key["switches"]
                left.append(line)
            elif line.offset == self.key["offset"] and (rest := _rest(line, self.key.get("bytes"))) is not None:
                left.append(rest)
        self.key["switches"] -= switches
        self.is_pending = self.is_pending and not is_lost and self.key["switches"] >= 0
        return left


def _rest(line: Any, known: int | None) -> Any:
    """What a line that had no end has grown by since, or None."""
    if known is None or len(content := _content(line)) <= known:
        return None
    rest = lines_pb2.Line()
    rest.CopyFrom(line)
    rest.offset += known
    rest.continued = True
    if line.WhichOneof("content") == "text":
        rest.text = content[known:].decode(errors="replace")
    else:
        rest.data = content[known:]
    return rest


def _switches(response: Any) -> int:
    return sum(event.WhichOneof("event") in _SWITCHES for event in response.events)


def _content(line: Any) -> bytes:
    data: bytes = line.data if line.HasField("data") else line.text.encode()
    return data


class _Countdown(Kind):
    name = "countdown"
    items = "ticks"
    method = "/perennial.v1.CountdownService/Countdown"
    request = countdown_pb2.CountdownRequest
    response = countdown_pb2.CountdownResponse

    def key(self, response: Any, item: Any) -> dict[str, int]:
        return {"remaining": item.remaining} | ({"version": item.version} if item.HasField("version") else {})

    def replay(self, key: Mapping[str, int], request: Any) -> Replay:
        return _TickReplay(key, request.step if request.HasField("step") else 1)


class _TickReplay(Replay):
    def __init__(self, key: Mapping[str, int], step: int) -> None:
        super().__init__(key)
        self.step = step

    def filter(self, response: Any) -> list[Any]:
        if response.HasField("countdown") and response.countdown.HasField("step"):
            self.step = response.countdown.step
        last, version = self.key["remaining"], self.key.get("version", 0)
        if response.ticks and response.skipped_ticks and response.ticks[0].version == version:
            # The numbers that were skipped are above the first tick. Those down to the key were handed out before.
            top = response.ticks[0].remaining + response.skipped_ticks * self.step
            if top >= last:
                response.skipped_ticks -= min((top - last) // self.step + 1, response.skipped_ticks)
        left = [t for t in response.ticks if t.version > version or (t.version == version and t.remaining < last)]
        self.is_pending = not left
        return left


COUNTDOWN: Kind = _Countdown()
LINES: Kind = _Lines()
MESSAGES: Kind = _Messages()
