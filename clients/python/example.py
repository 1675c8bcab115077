"""Prints the messages of the demo, and goes on where it stopped: after Ctrl-C, a lost connection, a restart."""

import pathlib
import time

import grpc
from perennial.v1 import messages_pb2, messages_pb2_grpc

saved = pathlib.Path("cursor.txt")
request = messages_pb2.MessagesRequest(topics=["demo.>"], earliest=True)
stub = messages_pb2_grpc.MessageServiceStub(grpc.insecure_channel("127.0.0.1:50051"))
while True:
    if saved.exists():
        request.cursor = saved.read_text()
    try:
        for response in stub.Messages(request, wait_for_ready=True):
            for message in response.messages:
                print(message.sequence, message.topic, message.text, flush=True)
            saved.write_text(response.cursor)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        time.sleep(1)
