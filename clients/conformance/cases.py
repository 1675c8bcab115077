"""What the scenarios do, and the checks of what a client handed out."""

from __future__ import annotations

import asyncio
import re
import signal

from bed import SERVER, Client, Failed, Late, Watch, output
from details import trailers
from proxy import Fault, Proxy

CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}  # fmt: skip
# How soon the server hears that a client has stopped.
STOP_SECONDS = 0.1
# How long a client tries its first response, where that is not what a scenario is about.
CONNECT_SECONDS = 200


def text_of(item):
    """What identifies an item: the text of a line or message, the number of a tick."""
    return str(item["remaining"]) if "remaining" in item else item.get("text", "")


class Run:
    """One run of one scenario: its server, its data, and what the client has handed out."""

    def __init__(self, command, scenario, server, attempt=0):
        self.command, self.scenario, self.server = command, scenario, server
        # Times that a busy machine can exceed are longer in another attempt.
        self.scale = 4**attempt
        self.kind, self.items = scenario["kind"], scenario["items"]
        self.is_live = scenario.get("live", False)
        self.expected, self.seen, self.skipped, self.events = [], [], 0, []
        self.error, self.end = None, None
        self.is_over = False
        self.restarted = None

    def get(self, name, default=None):
        return self.scenario.get(name, default)

    def progress(self):
        return f"{len(self.seen)} of {len(self.expected)} items, the last {self.seen[-1:]}"

    def fault(self):
        found = dict(self.get("fault", {}))
        if "append" in found:
            found["append"] = bytes.fromhex(found["append"])
        if found.get("do") == "status":
            found["trailers"] = trailers(self.scenario["code"], self.get("details"))
        # The first call of a stream may be for its first item alone.
        return Fault(**found)

    # The data

    async def prepare(self):
        """Writes what is to be read; if it is read live, the first half of it."""
        pad = "x" * 60
        if self.kind == "countdown":
            self.expected = [str(n) for n in range(self.items - 1, -1, -1)]
            return
        self.expected = [f"item {n} {pad[: n % 60]}" for n in range(self.items)]
        half = self.items // 2 if self.is_live else self.items
        await self.write(0, half)

    async def write(self, start, end):
        texts = self.expected[start:end]
        if self.kind == "countdown":
            return
        if self.kind == "lines":
            with (self.server.logs / "a.log").open("a") as file:
                file.writelines(f"{text}\n" for text in texts)
        else:
            await self.server.publish("t.a", texts)

    async def write_live(self):
        """Writes the second half in parts, and does to the file and to the server what the scenario says."""
        rotations = list(self.get("rotate_at", []))
        part = max(1, self.items // 40)
        for start in range(self.items // 2, self.items, part):
            await self.write(start, min(start + part, self.items))
            if rotations and start >= rotations[0]:
                rotations.pop(0)
                path = self.server.logs / "a.log"
                path.rename(path.with_suffix(f".log.{len(rotations) + 1}"))
                # The reader needs to see each file; the grace of the server for late lines is 200 ms.
                path.touch()
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.02)

    def request(self):
        given = self.get("request", {})
        if self.kind == "countdown":
            base = {"start": self.items - 1, "interval": f"{0.03 * self.scale:g}s"}
        elif self.kind == "lines":
            base = {"path": "logs/a.log", "follow": self.is_live}
        else:
            base = {"topics": ["t.*"], "earliest": True, "until_caught_up": not self.is_live}
        if self.is_live and self.kind != "countdown":
            base["limit"] = str(self.items)
        return {name: value for name, value in (base | given).items() if value is not False}

    def stream(self, client, address, **options):
        if self.get("events"):
            options["events"] = True
        options.setdefault("connect_timeout", CONNECT_SECONDS)
        self.send(client, address, do="stream", kind=self.kind, request=self.request(), **options)

    def send(self, client, address, **command):
        """Sends a command for the server, or the proxy, at an address."""
        client.send(server=f"{self.server.scheme}://{address}", **(self.server.credentials | command))

    def proxy(self):
        return Proxy(lambda: self.server.address, self.fault(), is_sealed=self.server.scheme == "https")

    def matching(self):
        """The items that the filter of the request admits."""
        wanted = self.get("expect_matching")
        if wanted is None:
            return self.expected
        include, exclude = re.compile(wanted["include"]), re.compile(wanted["exclude"])
        return [text for text in self.expected if include.search(text) and not exclude.search(text)]

    # What the client printed

    def take(self, line):
        """Takes a line of the client."""
        if "item" in line:
            self.seen.append(text_of(line["item"]))
        elif "skipped" in line:
            self.skipped += int(line["skipped"])
        elif "event" in line:
            self.events.append(line["event"])
        elif "error" in line:
            self.error = line["error"]
        elif "end" in line:
            self.end = line["end"]

    async def read_all(self, client):
        async for line in client.lines():
            self.take(line)

    # The checks

    def check_end(self, end="ok"):
        if self.end != end:
            raise Failed(f"it ended with {self.end}, not {end}: {self.error}; {self.progress()}")

    def check_items(self, expected=None):
        """Each item once and in order; numbers of a countdown may be reported as skipped."""
        expected = self.expected if expected is None else expected
        if self.kind == "countdown":
            numbers = [int(text) for text in self.seen]
            if numbers != sorted(set(numbers), reverse=True) or numbers[-1:] != [0]:
                raise Failed(f"the numbers are not in order, or not unique, or the last is missing: {numbers}")
            if len(numbers) + self.skipped != len(expected):
                raise Failed(f"{len(numbers)} numbers and {self.skipped} skipped are not {len(expected)}: {numbers}")
            return
        for n, (seen, wanted) in enumerate(zip(self.seen, expected)):
            if seen != wanted:
                raise Failed(f"item {n} is {seen!r}, not {wanted!r}")
        if len(self.seen) != len(expected):
            raise Failed(f"{len(self.seen)} items, not {len(expected)}; the last: {self.seen[-1:]}")

    def check_error(self, wanted):
        for name, value in wanted.items():
            found = (self.error or {}).get(name)
            if found != value:
                raise Failed(f"the error has {name} {found!r}, not {value!r}: {self.error}")


def within(event, key_values):
    """Whether an event has these fields, with numbers as texts or not."""
    for key, value in key_values.items():
        found = event.get(key, event.get("".join(p.title() if i else p for i, p in enumerate(key.split("_")))))
        if isinstance(value, dict):
            if not isinstance(found, dict) or not within(found, value):
                return False
        elif str(found) != str(value):
            return False
    return True


async def read(run):
    """One client reads everything over the faults of the proxy and of the server."""
    await run.prepare()
    began = Watch()
    async with run.proxy() as proxy, Client(run.command) as client:
        options = {"credit": 3} if run.get("pause") else {}
        run.stream(client, proxy.address, **options)
        beside = [asyncio.create_task(disturb(run))]
        back_at = None
        async for line in client.lines():
            run.take(line)
            if run.is_live and len(run.seen) == 1 and run.kind != "countdown" and len(beside) == 1:
                beside.append(asyncio.create_task(run.write_live()))
            if "item" in line and back_at is None and run.get("back_within") and run.restarted:
                back_at = run.restarted.spent()
            if options and "item" in line and len(run.seen) == 3:
                await asyncio.sleep(run.get("pause"))
                client.send(do="more", items=1_000_000)
        run.is_over = True
        await asyncio.gather(*beside)
    expect_error = run.get("expect_error") or ({"code": CODES[run.get("code")]} if run.get("expect_code") else None)
    if expect_error:
        run.check_end("error")
        run.check_error(expect_error)
        return
    run.check_end()
    run.check_items(run.matching()[: run.get("expect_items", len(run.expected))])
    if proxy.faults < run.get("least_faults", 0):
        # Of a countdown that is late, numbers are skipped, and with them responses.
        kind = Late if run.kind == "countdown" else Failed
        raise kind(f"only {proxy.faults} faults happened: the scenario shows nothing")
    if proxy.connections > run.get("most_connections", proxy.connections):
        raise Late(f"{proxy.connections} connections, not {run.get('most_connections')}")
    if began.seconds() < run.get("at_least", 0):
        raise Failed(f"it took {began.seconds():.1f} s, less than {run.get('at_least')} s")
    if run.get("within"):
        began.check(run.get("within"), "the whole stream")
    if run.get("back_within") and (back_at is None or back_at > run.get("back_within")):
        raise Late(f"it was back {back_at} s after the server")
    if wanted := run.get("expect_event"):
        if not any(within(event, wanted) for event in run.events):
            raise Failed(f"no event {wanted}: {run.events[:3]}")


async def disturb(run):
    """Kills or drains the server when the client has so many items. Each of these must have happened before it ended."""
    run.restarted = None
    for how, marks in ((signal.SIGKILL, run.get("kill_server_at", [])), (signal.SIGTERM, run.get("drain_server_at", []))):
        for mark in marks:
            while len(run.seen) < mark:
                if run.is_over:
                    kind = Late if run.kind == "countdown" else Failed
                    raise kind(f"the client ended before the server was killed at item {mark}: {run.progress()}")
                await asyncio.sleep(0.01)
            await run.server.restart(how, run.get("away", 0.0))
            run.restarted = run.server.listening


async def unary_error(run):
    async with Client(run.command) as client:
        client.send(do="call", server=f"http://{run.server.address}", method="GetCountdown", request={"name": "no"})
        await run.read_all(client)
    run.check_end("error")
    run.check_error({"code": "NOT_FOUND", "reason": "COUNTDOWN_NOT_FOUND", "retryable": False})


async def stop(run):
    """The server counts one open stream less."""
    run.is_live = True
    await run.prepare()
    run.scenario["request"] = {"interval": "0.5s", "start": 1000} if run.kind == "countdown" else {"limit": "1000"}
    # A busy machine may pause for a while, but not each time.
    delays = []
    while not delays or (delays[-1] > STOP_SECONDS and len(delays) < 5):
        delays.append(await stop_once(run))
    if delays[-1] > STOP_SECONDS:
        raise Late(f"the server heard of it after {', '.join(f'{delay:.3f}' for delay in delays)} s")


async def stop_once(run):
    """The seconds until the server knew that the client has stopped."""
    run.seen, sent = [], None
    async with Client(run.command) as client:
        run.stream(client, run.server.address)
        async for line in client.lines():
            run.take(line)
            if "item" in line and len(run.seen) == 1:
                # The first item may be of a call of its own. The second is of one that goes on.
                await run.write(1, 2)
            elif "item" in line and sent is None:
                while await run.server.open_streams() != 1:
                    pass
                sent = Watch()
                client.send(do="stop")
                while await run.server.open_streams() > 0:
                    if sent.seconds() > 10 * run.scale:
                        raise Failed("the server holds the stream of a client that has stopped")
                delay = sent.spent()
        run.check_end("stopped")
        return delay


async def stop_while_away(run):
    run.is_live = True
    await run.prepare()
    async with Client(run.command) as client:
        run.stream(client, run.server.address)
        await client.line()
        await run.server.end()
        await asyncio.sleep(1.5)
        sent = Watch()
        client.send(do="stop")
        await run.read_all(client)
        run.check_end("stopped")
        sent.check(0.5, "the end")


async def deadline(run):
    run.is_live = True
    await run.prepare()
    async with Client(run.command) as client:
        timeout = 2.5 * run.scale
        run.stream(client, run.server.address, timeout=timeout)
        if "item" not in (line := await client.line() or {}):
            raise Late(f"no item came before the deadline: {line}")
        since = Watch()
        await run.server.end()
        await run.read_all(client)
        run.check_end("error")
        run.check_error({"code": "DEADLINE_EXCEEDED", "retryable": False})
        since.check(timeout + 1.5, "the end")


async def no_server(run):
    await run.server.end()
    async with Client(run.command) as client:
        since = Watch()
        run.stream(client, run.server.address, connect_timeout=1.0)
        await run.read_all(client)
        run.check_end("error")
        run.check_error({"code": "UNAVAILABLE"})
        since.check(6 * run.scale, "the end")


async def max_outage(run):
    """The stream ends with the last error of its attempts, and another client continues after its last item."""
    run.is_live = True
    await run.prepare()
    run.scenario["request"] = {"interval": f"{0.2 * run.scale:g}s"} if run.kind == "countdown" else {}
    file = {"store": str(run.server.directory / "state")} if run.get("store") else {}
    half, state = run.items // 2, None
    async with Client(run.command) as client:
        run.stream(client, run.server.address, max_outage=1.5, states=not file, **file)
        since = None
        async for line in client.lines():
            run.take(line)
            state = line.get("state") or state
            if since is None and len(run.seen) == (5 if run.kind == "countdown" else half):
                await run.server.end()
                since = Watch()
        run.check_end("error")
        run.check_error({"code": "UNAVAILABLE", "reason": "", "retryable": True})
        since.check(5 * run.scale, "the end")
    run.error = run.end = None
    await run.server.start()
    await run.write(half, run.items)
    async with Client(run.command) as client:
        run.stream(client, run.server.address, **(file or {"state": state}))
        async for line in client.lines():
            run.take(line)
            if len(run.seen) == run.items:
                break
    run.check_items()


async def token_in_plain_text(run):
    async with Client(run.command) as client:
        # An address that no machine has.
        run.stream(client, "192.0.2.1:50051", token="secret-of-the-kit", connect_timeout=20 * run.scale)
        since = Watch()
        await run.read_all(client)
        since.check(8 * run.scale, "the end of a client that should not connect")
    run.check_end("error")
    if not run.error:
        raise Failed("it ended without an error")
    if "secret-of-the-kit" in str(run.error):
        raise Failed("the error has the token")


async def token(run):
    """A server with rules: a token from each place where it may be, and none."""
    await run.prepare()
    access, tokens, file = (run.server.directory / name for name in ("access.toml", "tokens.toml", "token"))
    access.write_text('[[rule]]\nwho = ["token:kit"]\nmay = ["administer"]\n')
    secret = (await output(SERVER, "token", "--tokens", tokens, "new", "kit")).strip()
    file.write_text(secret + "\n")
    file.chmod(0o600)
    run.server.options = ("--access", access, "--tokens", tokens)
    await run.server.restart()
    for options, environment in (
        ({"token": secret}, {}), ({"token_file": str(file)}, {}), ({}, {"PERENNIAL_TOKEN": secret}),
    ):  # fmt: skip
        run.seen = []
        async with Client(run.command, environment) as client:
            run.stream(client, run.server.address, **options)
            await run.read_all(client)
        run.check_end()
        run.check_items()
    async with Client(run.command) as client:
        run.stream(client, run.server.address)
        await run.read_all(client)
    run.check_end("error")
    run.check_error({"code": "UNAUTHENTICATED", "reason": "CREDENTIALS_MISSING", "retryable": False})


CASES = {
    function.__name__: function
    for function in (
        read, unary_error, stop,
        stop_while_away, deadline, no_server, max_outage, token_in_plain_text,
        token,
    )
}  # fmt: skip
