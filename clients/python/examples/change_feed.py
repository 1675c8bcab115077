"""A change feed: the newest message of each topic makes a table, and the messages after that change it."""

import asyncio
import contextlib

from perennial_streams import AsyncClient, CaughtUp
from perennial_streams.v1.messages_pb2 import StoredMessage


async def main() -> None:
    users: dict[str, str] = {}
    async with AsyncClient() as client:
        for name, city in (("ada", "London"), ("grace", "New York"), ("ada", "Paris")):
            await client.publish(f"users.{name}", city)
        stream = client.messages("users.*", last_per_topic=True)
        async for value in stream.with_events():
            if isinstance(value, StoredMessage):
                users[value.topic] = value.text
            elif isinstance(value, CaughtUp):
                print(len(users), "users:", users, flush=True)


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
