"""A launch: a countdown that 200 visitors watch, which is held once on the way."""

import asyncio

from perennial_streams import AsyncClient


async def visitor(client: AsyncClient) -> list[int]:
    return [tick.remaining async for tick in client.countdown(name="launch")]


async def main() -> None:
    async with AsyncClient() as client:
        await client.create_countdown("launch", duration=3, request_id="launch-1")
        visitors = [asyncio.create_task(visitor(client)) for _ in range(200)]
        await asyncio.sleep(1.5)
        await client.pause_countdown("launch")
        await client.resume_countdown("launch")
        seen = await asyncio.gather(*visitors)
        print(sum(numbers[-1] == 0 for numbers in seen), "visitors saw the launch")
        await client.delete_countdown("launch")


asyncio.run(main())
