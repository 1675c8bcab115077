"""The peer in Python: the three classic async generators, served by grpc.aio. It needs grpcio-tools."""

import asyncio
import pathlib
import sys
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent))
protos, services = grpc.protos_and_services("peer.proto")


class Peer(services.PeerServicer):
    def __init__(self):
        self.queues = set()

    async def ReadLines(self, request, context):
        with open(request.text) as file:
            for line in file:
                yield protos.Text(text=line.rstrip("\n"))

    async def Messages(self, request, context):
        queue = asyncio.Queue()
        self.queues.add(queue)
        try:
            await context.send_initial_metadata(())
            while True:
                yield protos.Text(text=await queue.get())
        finally:
            self.queues.discard(queue)

    async def Publish(self, requests, context):
        count = 0
        async for message in requests:
            for queue in self.queues:
                queue.put_nowait(message.text)
            count += 1
        return protos.Text(text=str(count))

    async def Countdown(self, request, context):
        loop, wall = asyncio.get_running_loop(), time.time_ns()
        start = loop.time()
        for k in range(getattr(request, "from")):
            await asyncio.sleep(start + k * request.interval_nanos / 1e9 - loop.time())
            due = wall + k * request.interval_nanos
            yield protos.Tick(remaining=getattr(request, "from") - k, due=due, sent=time.time_ns())


async def main():
    server = grpc.aio.server()
    services.add_PeerServicer_to_server(Peer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"peer: listening on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


asyncio.run(main())
