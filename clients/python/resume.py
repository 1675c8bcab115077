"""Resumes a stream of Perennial over as many connections as it takes: the rule of docs/errors.md, in Python.

Needs grpcio, googleapis-common-protos, and the modules that protoc generates from proto/.
"""

import asyncio
import os
import pathlib

import grpc
from google.rpc import error_details_pb2, status_pb2
from perennial.v1 import errors_pb2

# For the channel. Without a bound, grpcio waits up to two minutes between two attempts to connect. The pings find a
# connection that died in silence.
OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

# Codes of the transport and of the client's own library. A call that you cancel yourself raises another exception.
LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}


def retry_delay(error):
    """The seconds to wait before the same request is sent with the last cursor, or None if that cannot help."""
    is_from_the_server, delay = False, None
    for detail in details(error):
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        is_from_the_server |= detail.Unpack(info) and info.domain == "perennial"
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
    if is_from_the_server:
        return delay
    return 0.5 if error.code() in LOST else None


def details(error):
    """The details of the status with which the server ended a call: none if the client's own library ended it.

    `from_call` of grpcio-status can raise ValueError instead: if a deadline passes while the status arrives, grpcio 1.85
    does not decode the text of the status, and `from_call` finds that it differs from the text in the details.
    """
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value).details
    return ()


def reason(error):
    """Why the server refused a call: a value of ErrorReason, which is 0 if this client does not know the reason."""
    info = error_details_pb2.ErrorInfo()
    for detail in details(error):
        if detail.Unpack(info) and info.domain == "perennial":
            return dict(errors_pb2.ErrorReason.items()).get(info.reason, 0)
    return 0


async def resumed(method, request):
    """Yields the responses of a stream of grpc.aio, and opens it again where it was cut."""
    while True:
        try:
            async for response in method(request, wait_for_ready=True):
                yield response
                request.cursor = response.cursor
            return
        except grpc.aio.AioRpcError as error:
            delay = retry_delay(error)
            if delay is None:
                raise
        await asyncio.sleep(delay)


def load_cursor(path):
    """The cursor in a file, or None if there is no file yet. An empty file is an error, and not a fresh start."""
    try:
        cursor = pathlib.Path(path).read_text().strip()
    except FileNotFoundError:
        return None
    if not cursor:
        raise SystemExit(f"{path} is empty: restore the cursor, or delete the file to start from the beginning")
    return cursor


def save_cursor(path, cursor):
    """Replaces the file as a whole: after a crash it holds the old cursor or the new one, and never a part."""
    new = f"{path}.new"
    with open(new, "w") as file:
        file.write(cursor)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
