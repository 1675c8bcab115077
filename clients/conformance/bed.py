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

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = os.environ.get("PERENNIALD", str(ROOT / "target/release/perenniald"))
CLI = os.environ.get("PERENNIAL", str(ROOT / "target/release/perennial"))
# A line of a client may hold a message of 1 MiB in JSON.
LINE_BYTES = 16 * 1024 * 1024


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

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            SERVER, "--listen", self.address, "--data", self.directory / "data", "--root", f"logs={self.logs}",
            "--log", "error", *self.options, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed = ""
        async for line in self.process.stderr:
            printed += line.decode()
            if found := re.match(r"perenniald: listening on http://(.*)", line.decode()):
                self.address = found[1]
                self.listening = Watch()
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
        return await output(CLI, "--server", f"http://{self.address}", *arguments, stdin=stdin)

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


async def output(*command, stdin=b""):
    """The output of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
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
