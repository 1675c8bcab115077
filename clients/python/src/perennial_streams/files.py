"""The stream of the files that match globs. Its unit is the response: it has no items of its own, and keeps no state."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from typing_extensions import TypedDict

from .calls import Channels, Responses
from .errors import ProtocolError
from .options import Seconds, set_field
from .v1 import lines_pb2 as l


class FilesOptions(TypedDict, total=False):
    """Options of `watch_files`. The others are those of every stream, except that it keeps no state."""

    include_rotated: bool
    until_caught_up: bool
    timeout: float
    connect_timeout: float
    max_outage: float
    cursor: str
    limit: int
    heartbeat: Seconds
    max_batch: int


class _Kind:
    name = "files"
    method = "/perennial.v1.LineService/WatchFiles"
    request = l.WatchFilesRequest
    response = l.WatchFilesResponse


class _Position:
    """What `Responses` asks for: the request after the last response."""

    kind = _Kind()

    def __init__(self, request: l.WatchFilesRequest) -> None:
        self._request = request
        self._has_limit = request.HasField("limit")

    @property
    def is_complete(self) -> bool:
        return self._has_limit and self._request.limit <= 0

    def request(self) -> l.WatchFilesRequest:
        return self._request

    def received(self, response: l.WatchFilesResponse) -> None:
        if not response.cursor:
            raise ProtocolError("a response has no cursor")
        self._request.cursor = response.cursor
        if self._has_limit:
            self._request.limit -= len(response.changes)


def watch(
    channels: Channels, globs: tuple[str, ...], options: Mapping[str, Any]
) -> AsyncGenerator[l.WatchFilesResponse, None]:
    request, own = l.WatchFilesRequest(globs=globs), dict(options)
    limits: dict[str, float | None] = {
        name: own.pop(name, default)
        for name, default in (("timeout", None), ("connect_timeout", 10.0), ("max_outage", None))
    }
    for name, value in own.items():
        set_field("watch_files", request, name, value)
    return _responses(channels, _Position(request), limits)


async def _responses(
    channels: Channels, position: _Position, limits: Mapping[str, Any]
) -> AsyncGenerator[l.WatchFilesResponse, None]:
    responses = Responses(channels, position, **limits)
    try:
        while (response := await responses.next()) is not None:
            position.received(response)
            yield response
    finally:
        responses.close()
        await responses.aclose()
