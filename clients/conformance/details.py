"""The details of a gRPC status, encoded by hand so that the kit needs no library."""

from __future__ import annotations

import base64


def varint(number):
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def field(number, value):
    """A field of a protobuf: a varint for an integer, else bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def any_of(name, value):
    return field(3, field(1, f"type.googleapis.com/google.rpc.{name}") + field(2, value))


def trailers(code, details):
    """The trailers of a call that ends with this code: with an ErrorInfo and a RetryInfo if `details` asks for them."""
    found = {"grpc-status": str(code), "grpc-message": "made by the proxy of the conformance kit"}
    if details:
        info = field(1, details["reason"]) + field(2, details["domain"])
        for name, value in details.get("metadata", {}).items():
            info += field(3, field(1, name) + field(2, value))
        status = field(1, code) + field(2, "made by the proxy") + any_of("ErrorInfo", info)
        if "retry" in details:
            seconds = int(details["retry"])
            delay = field(1, seconds) + field(2, int((details["retry"] - seconds) * 1e9))
            status += any_of("RetryInfo", field(1, delay))
        found["grpc-status-details-bin"] = base64.b64encode(status).rstrip(b"=").decode()
    return found
