"""All three streams at once, each resumed where it was cut."""

import asyncio
import contextlib

import grpc
from perennial.v1.countdown_pb2 import CountdownRequest
from perennial.v1.countdown_pb2_grpc import CountdownServiceStub
from perennial.v1.lines_pb2 import ReadLinesRequest
from perennial.v1.lines_pb2_grpc import LineServiceStub
from perennial.v1.messages_pb2 import MessagesRequest
from perennial.v1.messages_pb2_grpc import MessageServiceStub
from resume import OPTIONS, resumed


async def ticks(channel):
    async for response in resumed(CountdownServiceStub(channel).Countdown, CountdownRequest(start=3)):
        for tick in response.ticks:
            print("tick", tick.remaining)


async def lines(channel):
    request = ReadLinesRequest(path="demo/app.log", last=1, follow=True)
    async for response in resumed(LineServiceStub(channel).ReadLines, request):
        for line in response.lines:
            print("line", line.text)


async def messages(channel):
    request = MessagesRequest(topics=["demo.>"], last=1)
    async for response in resumed(MessageServiceStub(channel).Messages, request):
        for message in response.messages:
            print("message", message.sequence, message.text)


async def main():
    async with grpc.aio.insecure_channel("127.0.0.1:50051", options=OPTIONS) as channel:
        await asyncio.gather(ticks(channel), lines(channel), messages(channel))


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
