"""All three streams at once. Each resumes by itself where it was cut."""

import asyncio
import contextlib

from perennial_streams import AsyncClient


async def ticks(client: AsyncClient) -> None:
    async for tick in client.countdown(3):
        print("tick", tick.remaining)


async def lines(client: AsyncClient) -> None:
    async for line in client.read_lines("demo/app.log", last=1, follow=True):
        print("line", line.text)


async def messages(client: AsyncClient) -> None:
    async for message in client.messages("demo.>", last=1):
        print("message", message.sequence, message.text)


async def main() -> None:
    async with AsyncClient() as client:
        await asyncio.gather(ticks(client), lines(client), messages(client))


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
