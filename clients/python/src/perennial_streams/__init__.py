"""Countdowns, lines of files and messages of a Perennial server as generators that resume by themselves.

    async with AsyncClient() as client:
        async for tick in client.countdown(3):
            print(tick.remaining)

`AsyncClient` is for asyncio, and `Client` is the same for threads. `perennial_streams.v1` has the messages of `proto/`.
"""

from .client import AsyncClient
from .errors import (
    CallError,
    ClientClosedError,
    GapError,
    OutcomeUnknownError,
    PerennialError,
    ProtocolError,
    StateError,
)
from .position import CaughtUp, Skipped
from .publisher import AsyncPublisher
from .stores import FileStore, MemoryStore, Store
from .streams import AsyncStream
from .sync import Client, Publisher, Stream
from .v1.countdown_pb2 import ON_LAG_BURST, ON_LAG_SKIP
from .v1.errors_pb2 import ErrorReason
from .v1.gap_pb2 import ON_GAP_FAIL, ON_GAP_SKIP

__all__ = [
    "AsyncClient", "AsyncPublisher", "AsyncStream", "CallError", "CaughtUp", "Client", "ClientClosedError", "ErrorReason",
    "FileStore", "GapError", "MemoryStore", "ON_GAP_FAIL", "ON_GAP_SKIP", "ON_LAG_BURST", "ON_LAG_SKIP",
    "OutcomeUnknownError", "PerennialError", "ProtocolError", "Publisher", "Skipped", "StateError", "Store", "Stream",
]  # fmt: skip
