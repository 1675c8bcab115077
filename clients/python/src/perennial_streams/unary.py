"""Calls with one answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio

from .calls import Backoff, Channels
from .errors import CallError, from_rpc

TIMEOUT = 30.0


async def unary(
    channels: Channels, method: str, request: Any, response: Any, *, repeats: bool, timeout: float = TIMEOUT
) -> Any:
    """The answer to a call. One that is safe to repeat is repeated after errors that can pass, until its deadline."""
    backoff, deadline = Backoff(), time.monotonic() + timeout
    while True:
        try:
            async with channels.use() as connection:
                call = connection.channel.unary_unary(
                    method, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
                )
                left = max(0.0, deadline - time.monotonic())
                return await call(request, timeout=left, metadata=channels.server.metadata())
        except grpc.aio.AioRpcError as failed:
            error: CallError = from_rpc(failed.code(), failed.details(), tuple(failed.trailing_metadata() or ()))
        wait = backoff.next(error)
        if not repeats or not error.is_retryable or time.monotonic() + wait >= deadline:
            raise error
        await asyncio.sleep(wait)
