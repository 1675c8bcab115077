"""The errors of this package, and the one rule that decides after which of them a call is repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from .v1 import errors_pb2

DOMAIN = "perennial"

# How the transport, a proxy and libraries report a lost connection.
_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}


# How grpcio reports that client and server do not trust each other, or that only one of them speaks TLS: with the code
# UNAVAILABLE, as it reports a server that restarts. The texts are those of BoringSSL, of the two checks of the host
# name, of an alert that the server has sent, and of a server in plain text. After another text the call is repeated:
# grpcio 1.76 reports an alert as "Secure read failed", which it also says of a server that was killed.
_DISTRUST = (
    "CERTIFICATE_VERIFY_FAILED",
    "Hostname Verification Check failed",
    "is not in peer certificate",
    "Unwrap failed (TSI_DATA_CORRUPTED)",
    "WRONG_VERSION_NUMBER",
)
_ADVICE = "client and server do not trust each other: check `ca`, `cert`, `key` and the host in the address"


class PerennialError(Exception):
    """Base of the errors of this package."""


class CallError(PerennialError):
    """A call failed: the server refused it, or it was lost and may not be repeated.

    `code` is the gRPC code, `reason` the name of a value of `ErrorReason`, such as `CURSOR_EXPIRED`, or empty if the
    server gave no reason. `field` is the field of the request that was wrong, or empty. `metadata` has facts for
    programs. `retry_delay` is the wait in seconds that the server asks for, and None if it does not. `is_distrust`: client
    and server do not trust each other, or only one of them speaks TLS.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: float | None = None,
        retryable: bool | None = None,
        is_distrust: bool = False,
    ) -> None:
        text = f"{code.name} ({reason}): {message}" if reason else f"{code.name}: {message}"
        super().__init__(text)
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay
        self.is_distrust = is_distrust
        self._retryable = False if is_distrust else retryable

    @property
    def is_retryable(self) -> bool:
        """Whether the same call, with the last cursor, can succeed later."""
        if self._retryable is not None:
            return self._retryable
        return self.retry_delay is not None if self.reason else self.code in _LOST

    def has_reason(self, reason: errors_pb2.ErrorReason) -> bool:
        """Whether the server gave this reason."""
        return self.reason != "" and self.reason == _name(int(reason))


class ClientClosedError(PerennialError):
    """The client or the stream was closed, and was used after that."""


class StateError(PerennialError):
    """A saved state cannot be used. A stream never starts from the beginning instead."""


class GapError(PerennialError):
    """Items are missing, and the caller did not ask for events. `gap` has the facts, as the server sent them.

    Iterate `stream.with_events()` to get gaps as values, in their place.
    """

    def __init__(self, gap: Any) -> None:
        super().__init__(f"items are missing: {' '.join(str(gap).split())}; iterate with_events() to get gaps as values")
        self.gap = gap


class OutcomeUnknownError(PerennialError):
    """A message may or may not have been published.

    It was sent, no answer came, and the window in which the server recognizes its id is over.
    """


class ProtocolError(PerennialError):
    """The server does not keep to the protocol."""


def _name(number: int) -> str:
    value = errors_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(number)
    return value.name if value is not None else ""


def from_rpc(code: grpc.StatusCode, text: str | None, metadata: Iterable[Any] | None) -> CallError:
    """The error of a call that ended with this status and these trailers."""
    reason, field, facts, delay = "", "", {}, None
    for detail in _details(metadata):
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        # A proxy may answer with an ErrorInfo of its own domain.
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, facts = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            delay = float(retry.retry_delay.ToNanoseconds()) / 1e9
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    is_distrust = code is grpc.StatusCode.UNAVAILABLE and not reason and any(it in (text or "") for it in _DISTRUST)
    message = f"{_ADVICE}: {text}" if is_distrust else text or ""
    return CallError(
        code, message, reason=reason, field=field, metadata=facts, retry_delay=delay, is_distrust=is_distrust
    )


def _details(metadata: Iterable[Any] | None) -> Iterable[Any]:
    """The details of the status: none if the client's own library ended the call.

    `from_call` of grpcio-status is not used: if a deadline passes while the status arrives, grpcio does not decode the
    text of the status, and `from_call` fails because it differs from the text in the details.
    """
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()


def from_publish(error: Any) -> CallError:
    """The error of one message of a PublishStream."""
    code = next((code for code in grpc.StatusCode if code.value[0] == error.code), grpc.StatusCode.UNKNOWN)
    delay = error.retry_delay.ToNanoseconds() / 1e9 if error.HasField("retry_delay") else None
    return CallError(
        code,
        error.message,
        reason=_name(error.reason) or str(error.reason),
        field=error.field,
        metadata=error.metadata,
        retry_delay=delay,
    )
