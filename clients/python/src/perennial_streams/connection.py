"""Addresses, TLS, tokens and channels."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import grpc.aio

from .errors import PerennialError

DEFAULT_PORT = 50051
DEFAULT_SERVER = f"http://127.0.0.1:{DEFAULT_PORT}"
_EXAMPLE = "http://127.0.0.1:50051, https://logs.example:50051 or unix:/run/perennial.sock"

# Without a bound, grpcio waits up to two minutes between two attempts to connect. The pings find a connection that died
# silently, also while nothing is sent. With a pool of its own, a new channel is a new connection.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    # This package repeats calls itself.
    ("grpc.enable_retries", 0),
]

Token = str | Callable[[], str]


@dataclass(frozen=True, repr=False)
class Server:
    """Where the server is, and how it is trusted."""

    target: str
    credentials: grpc.ChannelCredentials | None
    token: Token | None
    token_file: pathlib.Path | None
    is_local: bool

    def channel(self) -> grpc.aio.Channel:
        # gRPC's core would send calls to this machine, and their tokens, to the proxy of the environment.
        options = [*_OPTIONS, ("grpc.enable_http_proxy", 0)] if self.is_local else _OPTIONS
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(self.target, self.credentials, options=options)

    def metadata(self) -> list[tuple[str, str]]:
        """The metadata of a call. The token is asked for at each attempt, so that it can be renewed."""
        token = self.token() if callable(self.token) else self.token
        if self.token_file is not None:
            token = self.token_file.read_text("utf-8").strip()
        return [("authorization", f"Bearer {token}")] if token else []


def server(
    address: str | None,
    *,
    ca: bytes | str | os.PathLike[str] | None,
    cert: bytes | str | os.PathLike[str] | None,
    key: bytes | str | os.PathLike[str] | None,
    token: Token | None,
    token_file: str | os.PathLike[str] | None,
) -> Server:
    address = address or os.environ.get("PERENNIAL_SERVER") or DEFAULT_SERVER
    target, is_secure, is_local = _parse(address)
    if token is not None and token_file is not None:
        raise PerennialError("give a token or a token_file, not both")
    if token is None and token_file is None:
        token = os.environ.get("PERENNIAL_TOKEN") or None
    if (token is not None or token_file is not None) and not is_secure and not is_local:
        raise PerennialError(f"a token is not sent in plain text over a network: use https, not {address!r}")
    if not is_secure and (ca is not None or cert is not None or key is not None):
        raise PerennialError(f"ca, cert and key need TLS: use https, not {address!r}")
    if (cert is None) != (key is None):
        raise PerennialError("cert and key belong together: give both")
    credentials = grpc.ssl_channel_credentials(_pem(ca), _pem(key), _pem(cert)) if is_secure else None
    return Server(target, credentials, token, pathlib.Path(token_file) if token_file is not None else None, is_local)


def _pem(source: bytes | str | os.PathLike[str] | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return pathlib.Path(source).read_bytes()


def _parse(address: str) -> tuple[str, bool, bool]:
    """The target for gRPC, whether it uses TLS, and whether it is on this machine."""
    if address.startswith("unix:"):
        return address, False, True
    url = urlsplit(address if "://" in address else f"http://{address}")
    try:
        port = url.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if url.scheme not in ("http", "https") or not url.hostname or not port or url.username or url.path not in ("", "/"):
        shown = re.sub(r"//.*@", "//…@", address)
        raise PerennialError(f"the server {shown!r} cannot be used; try {_EXAMPLE}")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    is_local = url.hostname in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", url.hostname) is not None
    return f"{host}:{port}", url.scheme == "https", is_local
