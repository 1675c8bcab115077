"""Measures a client: strings a second of a bulk read, the return after an outage, and a million lines through kills."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import tempfile
import time

from bed import PAUSES, Client, Failed, Server
from proxy import Fault, Proxy

PARTS = ("speed", "outage", "kills")
LINES = 2_000_000
KILLED, KILLS = 1_000_000, 20
OUTAGE_SECONDS, BACK_SECONDS, WAITING = 30.0, 2.5, 3


async def bench(command, server, what, request):
    async with Client(command) as client:
        client.send(do=what, server=f"http://{server.address}", kind="lines", request=request)
        async for line in client.lines():
            if "bench" in line:
                return line["bench"]
    raise Failed(f"no line `bench`: {line}")


async def measure(command, info, parts):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(pathlib.Path(directory))
        line = "2026-11-23T03:36:35.282Z request={:010} status=200 bytes=1843 ms=12 path=/api/v1/items"
        with (server.logs / "bulk.log").open("w") as file:
            file.writelines(line.format(n) + "\n" for n in range(LINES))
        with (server.logs / "a.log").open("w") as file:
            file.writelines(f"{n}\n" for n in range(KILLED))
        await server.start()
        try:
            print(f"# {info['language']}; speeds are strings a second of ReadLines, with lines of 90 bytes", flush=True)
            for name, what, request, lines in (
                ("package, bulk", "bench", {}, LINES),
                ("package, one line a message", "bench", {"max_batch": 1}, LINES // 40),
                ("generated code alone, one line a message", "bench_generated", {"max_batch": 1}, LINES // 40),
            ):
                if "speed" in parts and (what in info["can"] or what == "bench"):
                    best = None
                    for _ in range(3 if lines == LINES else 2):
                        got = await bench(command, server, what, {"path": "logs/bulk.log", "limit": str(lines)} | request)
                        if int(got["items"]) != lines:
                            raise Failed(f"{got} is not {lines} items")
                        best = min(best or 1e9, got["seconds"])
                    print(f"{name}: {lines / best / 1e6:.3f} M/s", flush=True)
            if "outage" in parts:
                await back(command, server)
            if "kills" in parts:
                await through_kills(command, server)
        except Failed as error:
            print(f"FAILED: {error}")
            return 1
        finally:
            await server.end()
    return 0


async def back(command, server):
    """Several clients follow a file while their server is away. Prints when each had the line that was written meanwhile."""
    (server.logs / "live.log").write_text("before\n")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(command)) for _ in range(WAITING)]
        for client in clients:
            request = {"path": "logs/live.log", "follow": True}
            client.send(do="stream", server=f"http://{server.address}", kind="lines", request=request, connect_timeout=200)
            await wait_for(client, "before")
        await server.end()
        (server.logs / "live.log").open("a").write("after\n")
        await asyncio.sleep(OUTAGE_SECONDS)
        await server.start()
        pauses = asyncio.create_task(PAUSES.watch())
        took = [f"{seconds:.2f}" for seconds in await asyncio.gather(*(returned(server, client) for client in clients))]
        pauses.cancel()
    if max(map(float, took)) > BACK_SECONDS:
        raise Failed(f"back after {', '.join(took)} s")
    print(f"back after an outage of {OUTAGE_SECONDS:g} s: {', '.join(took)} s", flush=True)


async def returned(server, client):
    await wait_for(client, "after")
    return server.listening.spent()


async def wait_for(client, text):
    async for line in client.lines():
        if line.get("item", {}).get("text") == text:
            return
    raise Failed(f"the stream ended: {line}")


async def through_kills(command, server):
    """Reads a million lines while the server is killed and started again twenty times."""
    expected, since, kills = 0, time.monotonic(), 0
    # Slow enough that every kill meets an open stream.
    async with Proxy(lambda: server.address, Fault()) as proxy, Client(command) as client:
        client.send(do="stream", server=f"http://{proxy.address}", kind="lines", request={"path": "logs/a.log"})
        async for line in client.lines():
            if "item" in line:
                if line["item"].get("text") != str(expected):
                    raise Failed(f"item {expected} is {line['item']}")
                expected += 1
                if expected % (KILLED // (KILLS + 1)) == 0 and kills < KILLS:
                    kills += 1
                    await server.restart()
            elif "error" in line:
                raise Failed(f"{line}")
    if expected != KILLED:
        raise Failed(f"{expected} of {KILLED} lines")
    print(f"{KILLED:,} lines through {kills} kills: all, once, in {time.monotonic() - since:.0f} s", flush=True)
