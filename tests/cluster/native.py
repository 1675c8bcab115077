"""Publishes to a stream and reads it, with NATS's own client alone: native.py HOSTS SUBJECT PUBLISHED READ."""

import asyncio
import sys

import nats


async def main(hosts: str, subject: str, published: int, read: int) -> None:
    connection = await nats.connect(servers=[f"nats://{host}" for host in hosts.split(",")])
    stream = connection.jetstream()
    for n in range(published):
        await stream.publish(subject, f"theirs {n}".encode())
    subscription = await stream.subscribe(subject, ordered_consumer=True)
    for _ in range(read):
        message = await subscription.next_msg(timeout=60)
        print(message.metadata.sequence.stream, message.data.decode())
    await connection.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
