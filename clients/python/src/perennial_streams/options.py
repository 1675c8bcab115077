"""The options of streams, as keyword arguments with types."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import TypedDict

from .kinds import Kind
from .stores import FileStore, Store

Seconds = float | timedelta


class StreamOptions(TypedDict, total=False):
    """Options of every stream. The others of each call are the fields of its request: see proto/."""

    state: str | None
    """Continue after this `state` of an earlier stream. None: begin, and keep a state from the first item on."""
    store: Store | str | os.PathLike[str]
    """Keep the state here, and continue from it. A path names a file."""
    save_every: float
    """Save to the store at most once in this many seconds. 0, the default: after each item."""
    timeout: float
    """The deadline of the stream in seconds, over all its attempts. Unset: none."""
    connect_timeout: float
    """Try for this many seconds until the first response. Default: 10."""
    max_outage: float
    """Give up after this many seconds without a response. Unset: never."""
    cursor: str
    limit: int
    heartbeat: Seconds
    max_batch: int


class CountdownOptions(StreamOptions, total=False):
    """Options of `countdown`. Exactly one of `start`, `until_time` and `name` is needed."""

    until_time: datetime
    name: str
    to: int
    step: int
    interval: Seconds
    wait_first: bool
    align: bool
    on_lag: int


class LinesOptions(StreamOptions, total=False):
    """Options of `read_lines`."""

    last: int
    from_line: int
    from_offset: int
    follow: bool
    on_gap: int
    wait_for_create: bool
    until_line: int
    until_offset: int
    long_line: int
    partial_flush: Seconds
    delimiter: str
    max_line_bytes: int
    history: bool
    include: Sequence[str]
    exclude: Sequence[str]
    literal_patterns: bool
    ignore_case: bool


class MessagesOptions(StreamOptions, total=False):
    """Options of `messages`."""

    earliest: bool
    sequence: int
    time: datetime
    last: int
    last_per_topic: bool
    until_sequence: int
    until_time: datetime
    until_caught_up: bool
    on_gap: int
    consumer: str
    commit_every: float
    """With `consumer`: commit by itself, at most once in this many seconds, and at the end. Unset: call `commit()`."""


@dataclass(frozen=True)
class Options:
    """The options that are not fields of the request."""

    state: str | None
    is_tracked: bool
    store: Store | None
    save_every: float
    timeout: float | None
    connect_timeout: float
    max_outage: float | None
    commit_every: float | None


def split(kind: Kind, request: Any, options: Mapping[str, Any]) -> Options:
    """Sets the fields of the request, and returns the other options."""
    own = dict(options)
    store = own.pop("store", None)
    if isinstance(store, (str, os.PathLike)):
        store = FileStore(store)
    is_tracked = store is not None or "state" in own
    result = Options(
        state=own.pop("state", None),
        is_tracked=is_tracked,
        store=store,
        save_every=own.pop("save_every", 0.0),
        timeout=own.pop("timeout", None),
        connect_timeout=own.pop("connect_timeout", 10.0),
        max_outage=own.pop("max_outage", None),
        commit_every=own.pop("commit_every", None),
    )
    if result.store is not None and result.state is not None:
        raise ValueError("give a store or a state, not both")
    for name, value in own.items():
        set_field(kind.name, request, name, value)
    if kind.name == "messages" and request.HasField("consumer") and is_tracked:
        raise ValueError("a consumer keeps its cursor on the server: give a consumer or a store, not both")
    return result


def set_field(where: str, request: Any, name: str, value: Any) -> None:
    """Sets a field of a request from a Python value. Durations may be seconds."""
    field = request.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise TypeError(f"{where} has no option {name!r}")
    if value is None:
        return
    full_name = field.message_type.full_name if field.message_type is not None else ""
    if full_name == "google.protobuf.Duration":
        seconds = value if isinstance(value, timedelta) else timedelta(seconds=value)
        getattr(request, name).FromTimedelta(seconds)
    elif full_name == "google.protobuf.Timestamp":
        if isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError(f"{name} needs a datetime with a time zone")
        getattr(request, name).FromDatetime(value)
    elif isinstance(getattr(request, name), MutableSequence):
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{name} is a list: try {name}=[{value!r}]")
        type(request).MergeFrom(request, type(request)(**{name: list(value)}))
    elif full_name or isinstance(value, dict):
        type(request).MergeFrom(request, type(request)(**{name: value}))
    else:
        setattr(request, name, value)
