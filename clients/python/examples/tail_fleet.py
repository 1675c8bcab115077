"""Follows the logs of all servers that its arguments name, and publishes an alert for each line that matches.

It continues where it stopped, and an alert that is published again soon after a crash has the same id, so it is stored once.
"""

import asyncio
import contextlib
import hashlib
import re
import sys

from perennial_streams import ON_GAP_SKIP, AsyncClient
from perennial_streams.v1.lines_pb2 import Line

PATTERN = re.compile(r"WARN|ERROR|POST /orders")


async def follow(server: str, path: str, client: AsyncClient, alerts: AsyncClient) -> None:
    store = f"{server}-{path}.state".replace("/", "-")
    stream = client.read_lines(path, follow=True, on_gap=ON_GAP_SKIP, store=store, save_every=1.0)
    async for value in stream.with_events():
        if not isinstance(value, Line):
            print(server, path, "event:", " ".join(str(value).split()), flush=True)
        elif PATTERN.search(value.text):
            alert = f"{server} {path}: {value.text}"
            number = hashlib.sha256(f"{value.offset} {alert}".encode()).hexdigest()
            answer = await alerts.publish("alerts", alert, message_id=number)
            print(server, path, "alert", answer.sequence, flush=True)


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = {server: await stack.enter_async_context(AsyncClient(server)) for server in sys.argv[1:]}
        alerts = next(iter(clients.values()))
        paths = [(server, file.path) for server, client in clients.items() async for file in client.list_files()]
        await asyncio.gather(*(follow(server, path, clients[server], alerts) for server, path in paths))


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
