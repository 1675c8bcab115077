"""The real server, the client under test, and what a scenario writes for them to read."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import os
import pathlib
import re
import signal
import time

from authority import Authority

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = os.environ.get("PERENNIALD", str(ROOT / "target/release/perenniald"))
CLI = os.environ.get("PERENNIAL", str(ROOT / "target/release/perennial"))
# A line of a client may hold a message of 1 MiB in JSON.
LINE_BYTES = 16 * 1024 * 1024
# In the certificate of a server that clients reach.
NAMES = "DNS:localhost,IP:127.0.0.1"


class Failed(Exception):
    """Why a scenario failed."""


class Late(Failed):
    """Why a scenario failed that depends on time. A busy machine can cause that, too."""


class Pauses:
    """The seconds in which the machine did not run the kit, and probably not the client either."""

    STEP_SECONDS, LEAST_SECONDS = 0.02, 0.005

    def __init__(self):
        self.total = 0.0

    async def watch(self):
        while True:
            due = time.monotonic() + self.STEP_SECONDS
            await asyncio.sleep(self.STEP_SECONDS)
            late = time.monotonic() - due
            self.total += late if late > self.LEAST_SECONDS else 0.0


PAUSES = Pauses()


class Watch:
    """Measures a time that has a limit, without the pauses of the machine."""

    def __init__(self):
        self.began, self.paused = time.monotonic(), PAUSES.total

    def seconds(self):
        """The seconds since the begin, for a least time."""
        return time.monotonic() - self.began

    def spent(self):
        """The seconds since the begin in which the kit ran, for a limit."""
        return self.seconds() - (PAUSES.total - self.paused)

    def check(self, limit, what):
        if self.spent() > limit:
            raise Late(f"{what} took {self.spent():.2f} s, and {self.seconds() - self.spent():.2f} s of pauses, not {limit} s")


# The clients of the scenario that runs.
CLIENTS = contextvars.ContextVar("CLIENTS")


class Server:
    """A perenniald that keeps its address when it is killed and started again."""

    def __init__(self, directory, options=()):
        self.directory, self.address, self.options = directory, "127.0.0.1:0", options
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.process = None
        self.listening = None
        self.scheme, self.metrics = "http", ""
        # What a client needs to be let in, as fields of the command of the kit.
        self.credentials = {}
        self.authority = None

    async def secure(self):
        """Lets in only clients with a certificate and a token, by TLS, from the next start on."""
        ours = self.authority = Authority(self.directory / "ours")
        ours.sign("server", NAMES)
        ours.sign("client", "DNS:client")
        (ours / "access.toml").write_text('[[rule]]\nwho = ["token:kit"]\nmay = ["administer"]\n')
        self.scheme = "https"
        self.options = (
            *self.options, "--tls-cert", ours / "server.pem", "--tls-key", ours / "server.key", "--tls-client-ca", ours / "ca.pem",
            "--access", ours / "access.toml", "--tokens", ours / "tokens.toml",
        )  # fmt: skip
        self.credentials = {"ca": str(ours / "ca.pem"), "cert": str(ours / "client.pem"), "key": str(ours / "client.key")}
        self.credentials["token"] = await self.new_token()

    async def new_token(self):
        return (await self.tokens("new", "kit")).strip()

    async def tokens(self, *arguments):
        return await output(SERVER, "token", "--tokens", self.directory / "ours/tokens.toml", *arguments)

    async def open_streams(self):
        return await self.metric("perennial_streams_open{.*}")

    async def metric(self, name):
        """The sum of a metric of the server, over the labels that match."""
        host, port = self.metrics.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return sum(map(int, re.findall(rf"^{name} (\d+)\r?$", text, re.MULTILINE)))

    def reload(self):
        """Makes the server read its files again."""
        self.process.send_signal(signal.SIGHUP)

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            SERVER, "--listen", self.address, "--data", self.directory / "data", "--root", f"logs={self.logs}",
            "--metrics", "127.0.0.1:0", "--log", "error", *self.options, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed = ""
        async for line in self.process.stderr:
            printed += line.decode()
            if found := re.match(r"perenniald: listening on https?://(.*)", line.decode()):
                self.address = found[1]
                self.listening = Watch()
            if found := re.match(r"perenniald: metrics are at http://(.*)/metrics", line.decode()):
                self.metrics = found[1]
                return
        raise Failed(f"the server did not start: {printed}")

    async def end(self, how=signal.SIGKILL):
        if self.process and self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()

    async def restart(self, how=signal.SIGKILL, away=0.0):
        await self.end(how)
        await asyncio.sleep(away)
        await self.start()

    async def cli(self, *arguments, stdin=b""):
        secure = {"ca": "PERENNIAL_CA", "cert": "PERENNIAL_CERT", "key": "PERENNIAL_CERT_KEY", "token": "PERENNIAL_TOKEN"}
        environment = {secure[name]: value for name, value in self.credentials.items()}
        server = f"{self.scheme}://{self.address}"
        return await output(CLI, "--server", server, *arguments, stdin=stdin, environment=environment)

    async def publish(self, topic, texts):
        """Publishes the texts, each once, also while the server is killed."""
        lines = [json.dumps({"topic": topic, "text": text, "messageId": text[:100]}) for text in texts]
        for attempt in range(100):
            try:
                await self.cli("publish", "--json", stdin="".join(f"{line}\n" for line in lines).encode())
                return
            except Failed:
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)

    async def published(self, topic):
        """The texts of a topic, in order."""
        out = await self.cli("-o", "ndjson", "messages", topic, "--from", "earliest", "--until-caught-up")
        return [json.loads(line)["text"] for line in out.splitlines()]


async def output(*command, stdin=b"", environment=None):
    """The output of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | (environment or {}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    if process.returncode != 0:
        raise Failed(f"{' '.join(str(part) for part in command)}: {err.decode()}")
    return out.decode()


class Client:
    """One run of the client under test."""

    def __init__(self, command, environment=None):
        self.command = command
        self.environment = os.environ | (environment or {})
        self.process = None
        self.stderr = b""
        CLIENTS.get([]).append(self)

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_shell(
            f"exec {self.command}", env=self.environment, limit=LINE_BYTES, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._errors = asyncio.create_task(self._read_errors())
        return self

    async def _read_errors(self):
        self.stderr = (await self.process.stderr.read())[-4000:]

    async def __aexit__(self, *_):
        self.kill()
        await self.process.wait()
        await asyncio.wait([self._errors], timeout=2)
        self._errors.cancel()

    def send(self, **line):
        # A client that has ended does not read: its last lines say why.
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(json.dumps(line).encode() + b"\n")

    def kill(self):
        """Kills it as `kill -9` does, with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def line(self):
        """The next line of the client as an object, or None after the last whole one."""
        text = await self.process.stdout.readline()
        if not text.endswith(b"\n"):
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise Failed(f"the client printed a line that is no JSON: {text[:200]!r}") from error

    async def lines(self):
        """The lines of the client up to its last one."""
        while (line := await self.line()) is not None:
            yield line
            if "end" in line:
                return
        await asyncio.wait([self._errors], timeout=2)
        raise Failed(f"the client ended without a line `end`: {self.stderr.decode(errors='replace')[-1500:]}")

    async def all(self):
        return [line async for line in self.lines()]
