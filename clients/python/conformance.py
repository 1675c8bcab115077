"""The client under test of clients/conformance, with this package: `python conformance.py [--threads]`.

It reads a command from stdin and prints what the package hands out, as clients/conformance/README.md says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import grpc
from google.protobuf import json_format

import perennial_streams as p
from perennial_streams.v1 import countdown_pb2, lines_pb2, messages_pb2

CAN = ["stream", "store", "events", "publish", "consumer", "call", "bench", "bench_generated", "token", "tls"]
REQUESTS = {
    "countdown": countdown_pb2.CountdownRequest,
    "lines": lines_pb2.ReadLinesRequest,
    "messages": messages_pb2.MessagesRequest,
}
METHODS = {
    "GetCountdown": (countdown_pb2.GetCountdownRequest, lambda c, r: c.get_countdown(r.name)),
    "ListTopics": (messages_pb2.ListTopicsRequest, lambda c, r: c.list_topics(r.pattern)),
    "ListFiles": (lines_pb2.ListFilesRequest, lambda c, r: c.list_files(r.path)),
    "Publish": (messages_pb2.PublishRequest, lambda c, r: c.publish(r.topic, r.text)),
    "CreateCountdown": (
        countdown_pb2.CreateCountdownRequest,
        lambda c, r: c.create_countdown(r.name, duration=r.duration.ToTimedelta(), request_id=r.request_id or None),
    ),
}


def say(**line: Any) -> None:
    # One write, so that a killed process leaves a whole line or a part of the last one.
    os.write(1, (json.dumps(line, separators=(",", ":")) + "\n").encode())


def error_line(error: BaseException) -> dict[str, Any]:
    if isinstance(error, p.CallError):
        return {
            "code": error.code.name, "reason": error.reason, "field": error.field, "metadata": error.metadata,
            "message": error.message, "retryable": error.is_retryable,
        }  # fmt: skip
    kinds = {
        p.StateError: "state", p.GapError: "gap", p.OutcomeUnknownError: "outcome_unknown", p.ProtocolError: "protocol",
    }  # fmt: skip
    return {"kind": kinds.get(type(error), "other"), "message": str(error)}


def item_line(item: Any) -> dict[str, Any]:
    """As MessageToDict would make it, and much faster."""
    if isinstance(item, lines_pb2.Line):
        line: dict[str, Any] = {"offset": item.offset}
        for flag in ("no_newline", "continued", "has_more", "truncated", "skipped", "partial"):
            if getattr(item, flag):
                line[flag] = True
        if item.WhichOneof("content") == "data":
            return json_format.MessageToDict(item, preserving_proto_field_name=True)
        return line | {"text": item.text}
    if isinstance(item, countdown_pb2.Tick):
        return {"remaining": item.remaining} | ({"version": item.version} if item.HasField("version") else {})
    if item.WhichOneof("content") == "data":
        return json_format.MessageToDict(item, preserving_proto_field_name=True)
    return {"sequence": item.sequence, "topic": item.topic, "text": item.text}


def value_line(value: Any) -> dict[str, Any]:
    if isinstance(value, (lines_pb2.Line, countdown_pb2.Tick, messages_pb2.StoredMessage)):
        return {"item": item_line(value)}
    if isinstance(value, p.CaughtUp):
        return {"caught_up": True}
    if isinstance(value, p.Skipped):
        return {"skipped": value.count}
    known = json_format.MessageToDict(value, preserving_proto_field_name=True)
    return {"event": known or {"unknown": True}}


def arguments(command: dict[str, Any]) -> dict[str, Any]:
    names = ("token", "token_file", "ca", "cert", "key")
    return {name: command[name] for name in names if name in command}


def stream_of(client: Any, command: dict[str, Any]) -> Any:
    kind = command["kind"]
    request = json_format.ParseDict(command["request"], REQUESTS[kind]())
    options: dict[str, Any] = {}
    for field, value in request.ListFields():
        if field.name not in ("path", "topics"):
            is_duration = field.message_type is not None and field.message_type.name == "Duration"
            is_time = field.message_type is not None and field.message_type.name == "Timestamp"
            options[field.name] = value.ToTimedelta() if is_duration else value.ToDatetime() if is_time else value
    for name in ("store", "save_every", "timeout", "connect_timeout", "max_outage", "commit_every"):
        if name in command:
            options[name] = command[name]
    if command.get("states") or "state" in command:
        options["state"] = command.get("state")
    if kind == "countdown":
        return client.countdown(**options)
    if kind == "lines":
        return client.read_lines(request.path, **options)
    return client.messages(*request.topics, **options)


class Kit:
    """The later lines of the kit: credit, commits and the stop."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.credit: float = command.get("credit", float("inf"))
        self.changed = threading.Condition()
        self.is_stopped = False
        self.commits = 0
        self.on_change: Any = lambda: None

    def read(self) -> None:
        for text in sys.stdin:
            line = json.loads(text)
            with self.changed:
                if line["do"] == "more":
                    self.credit += line["items"]
                elif line["do"] == "commit":
                    self.commits += 1
                elif line["do"] == "stop":
                    break
                self.changed.notify_all()
            self.on_change()
        with self.changed:
            self.is_stopped = True
            self.changed.notify_all()
        self.on_change()


async def stream(command: dict[str, Any], kit: Kit) -> None:
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    kit.on_change = lambda: loop.call_soon_threadsafe(changed.set)
    async with p.AsyncClient(command["server"], **arguments(command)) as client:
        stream = stream_of(client, command)

        async def read() -> None:
            shown = 0
            values = stream.with_events() if command.get("events") else stream
            async for value in values:
                if not isinstance(value, p.Skipped) and stream.skipped_ticks > shown:
                    say(skipped=stream.skipped_ticks - shown)
                    shown = stream.skipped_ticks
                elif isinstance(value, p.Skipped):
                    shown += value.count
                line = value_line(value)
                if "item" in line:
                    kit.credit -= 1
                    if command.get("states"):
                        line["state"] = stream.state
                say(**line)
                if command.get("consumer_commit"):
                    await stream.commit()
                while kit.credit <= 0:
                    changed.clear()
                    if kit.commits:
                        kit.commits -= 1
                        await stream.commit()
                        say(committed=True)
                    if kit.credit <= 0:
                        await changed.wait()
            if stream.skipped_ticks > shown:
                say(skipped=stream.skipped_ticks - shown)

        async def read_and_close() -> None:
            # A loop that is left within its body leaves the stream open.
            async with stream:
                await read()

        reading = asyncio.create_task(read_and_close())

        async def stop() -> None:
            while not kit.is_stopped:
                await changed.wait()
                await asyncio.sleep(0.005)
            reading.cancel()

        stopping = asyncio.create_task(stop())
        try:
            await reading
            end(None)
        except asyncio.CancelledError:
            end("stopped")
        except p.PerennialError as error:
            end(error)
        finally:
            stopping.cancel()


def stream_in_threads(command: dict[str, Any], kit: Kit) -> None:
    with p.Client(command["server"], **arguments(command)) as client:
        stream = stream_of(client, command)
        kit.on_change = lambda: stream.close() if kit.is_stopped else None
        shown = 0
        try:
            for value in stream.with_events() if command.get("events") else stream:
                if not isinstance(value, p.Skipped) and stream.skipped_ticks > shown:
                    say(skipped=stream.skipped_ticks - shown)
                    shown = stream.skipped_ticks
                elif isinstance(value, p.Skipped):
                    shown += value.count
                line = value_line(value)
                if "item" in line:
                    kit.credit -= 1
                    if command.get("states"):
                        line["state"] = stream.state
                say(**line)
                if command.get("consumer_commit"):
                    stream.commit()
                with kit.changed:
                    while kit.credit <= 0 and not kit.is_stopped:
                        if kit.commits:
                            kit.commits -= 1
                            stream.commit()
                            say(committed=True)
                        if kit.credit <= 0:
                            kit.changed.wait()
            if stream.skipped_ticks > shown:
                say(skipped=stream.skipped_ticks - shown)
            end("stopped" if kit.is_stopped else None)
        except p.PerennialError as error:
            end(error)


def end(result: BaseException | str | None) -> None:
    if isinstance(result, BaseException):
        say(error=error_line(result))
        say(end="error")
    else:
        say(end=result or "ok")


async def publish(command: dict[str, Any]) -> None:
    options = {name: command[name] for name in ("dedupe_window", "connect_timeout") if name in command}
    async with p.AsyncClient(command["server"], **arguments(command)) as client:
        receipts: asyncio.Queue[Any] = asyncio.Queue()

        async def show() -> None:
            while (entry := await receipts.get()) is not None:
                n, receipt = entry
                try:
                    answer = await receipt
                    say(receipt={"n": n, "sequence": answer.sequence, "duplicate": answer.duplicate})
                except p.PerennialError as error:
                    say(receipt={"n": n, "error": error_line(error)})

        showing = asyncio.create_task(show())
        try:
            async with client.publisher(**options) as publisher:
                for n in range(command.get("first", 0), command.get("first", 0) + command["count"]):
                    await receipts.put((n, await publisher.publish(command["topic"], f"{command['prefix']}{n}")))
            result = None
        except p.PerennialError as error:
            result = error
        await receipts.put(None)
        await showing
        end(result)


def publish_in_threads(command: dict[str, Any]) -> None:
    options = {name: command[name] for name in ("dedupe_window", "connect_timeout") if name in command}
    with p.Client(command["server"], **arguments(command)) as client:
        result, receipts = None, []
        try:
            with client.publisher(**options) as publisher:
                for n in range(command.get("first", 0), command.get("first", 0) + command["count"]):
                    receipts.append((n, publisher.publish(command["topic"], f"{command['prefix']}{n}")))
        except p.PerennialError as error:
            result = error
        for n, receipt in receipts:
            try:
                answer = receipt.result()
                say(receipt={"n": n, "sequence": answer.sequence, "duplicate": answer.duplicate})
            except p.PerennialError as error:
                say(receipt={"n": n, "error": error_line(error)})
        end(result)


async def call(command: dict[str, Any]) -> None:
    request, method = METHODS[command["method"]]
    async with p.AsyncClient(command["server"], **arguments(command)) as client:
        try:
            answer = method(client, json_format.ParseDict(command["request"], request()))
            if hasattr(answer, "__aiter__"):
                answer = [json_format.MessageToDict(entry) async for entry in answer]
            else:
                answer = json_format.MessageToDict(await answer)
            say(response=answer)
            end(None)
        except p.PerennialError as error:
            end(error)


def bench(items: int, size: int, since: float) -> None:
    say(bench={"items": items, "bytes": size, "seconds": time.monotonic() - since})
    end(None)


async def bench_stream(command: dict[str, Any]) -> None:
    items = size = 0
    async with p.AsyncClient(command["server"]) as client:
        since = time.monotonic()
        async for line in stream_of(client, command):
            items += 1
            size += len(line.text)
        bench(items, size, since)


def bench_in_threads(command: dict[str, Any]) -> None:
    items = size = 0
    with p.Client(command["server"]) as client:
        since = time.monotonic()
        for line in stream_of(client, command):
            items += 1
            size += len(line.text)
        bench(items, size, since)


def bench_generated(command: dict[str, Any]) -> None:
    """The same with generated code and grpcio alone."""
    items = size = 0
    request = json_format.ParseDict(command["request"], lines_pb2.ReadLinesRequest())
    since = time.monotonic()
    with grpc.insecure_channel(command["server"].removeprefix("http://")) as channel:
        method = channel.unary_stream(
            "/perennial.v1.LineService/ReadLines",
            request_serializer=lines_pb2.ReadLinesRequest.SerializeToString,
            response_deserializer=lines_pb2.ReadLinesResponse.FromString,
        )
        for response in method(request):
            for line in response.lines:
                items += 1
                size += len(line.text)
    bench(items, size, since)


def main() -> None:
    command = json.loads(sys.stdin.readline())
    try:
        serve(command, "--threads" in sys.argv)
    except p.PerennialError as error:
        # Of the constructor: the others are reported where they happen.
        end(error)


def serve(command: dict[str, Any], in_threads: bool) -> None:
    if command["do"] == "info":
        say(info={"package": "perennial-streams", "version": "0.1.0", "language": "python", "can": CAN})
    elif command["do"] == "stream":
        kit = Kit(command)
        threading.Thread(target=kit.read, daemon=True).start()
        if in_threads:
            stream_in_threads(command, kit)
        else:
            asyncio.run(stream(command, kit))
    elif command["do"] == "publish":
        publish_in_threads(command) if in_threads else asyncio.run(publish(command))
    elif command["do"] == "call":
        asyncio.run(call(command))
    elif command["do"] == "bench_generated":
        bench_generated(command)
    else:
        bench_in_threads(command) if in_threads else asyncio.run(bench_stream(command))


if __name__ == "__main__":
    main()
