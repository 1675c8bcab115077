"""Measures a client: strings a second of a bulk read, and a million lines through twenty kills of the server."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
import time

from bed import Client, Failed, Server
from proxy import Fault, Proxy

LINES = 2_000_000
KILLED, KILLS = 1_000_000, 20


async def bench(command, server, what, request):
    async with Client(command) as client:
        client.send(do=what, server=f"http://{server.address}", kind="lines", request=request)
        async for line in client.lines():
            if "bench" in line:
                return line["bench"]
    raise Failed(f"no line `bench`: {line}")


async def measure(command, info):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(pathlib.Path(directory))
        line = "2026-11-23T03:36:35.282Z request={:010} status=200 bytes=1843 ms=12 path=/api/v1/items"
        with (server.logs / "bulk.log").open("w") as file:
            file.writelines(line.format(n) + "\n" for n in range(LINES))
        with (server.logs / "a.log").open("w") as file:
            file.writelines(f"{n}\n" for n in range(KILLED))
        await server.start()
        try:
            print(f"# {info['language']}: strings a second of ReadLines, lines of 82 bytes", flush=True)
            for name, what, request, lines in (
                ("package, bulk", "bench", {}, LINES),
                ("package, one line a message", "bench", {"max_batch": 1}, LINES // 20),
                ("generated code alone, one line a message", "bench_generated", {"max_batch": 1}, LINES // 20),
            ):
                if what in info["can"] or what == "bench":
                    best = None
                    for _ in range(3):
                        got = await bench(command, server, what, {"path": "logs/bulk.log", "limit": str(lines)} | request)
                        if int(got["items"]) != lines:
                            raise Failed(f"{got} is not {lines} items")
                        best = min(best or 1e9, got["seconds"])
                    print(f"{name}: {lines / best / 1e6:.3f} M/s", flush=True)
            await through_kills(command, server)
        except Failed as error:
            print(f"FAILED: {error}")
            return 1
        finally:
            await server.end()
    return 0


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
