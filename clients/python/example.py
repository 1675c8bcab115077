"""Prints the messages of the demo, and continues where it stopped: after Ctrl-C, a lost connection, a restart."""

import time

import grpc
from perennial.v1 import messages_pb2, messages_pb2_grpc
from resume import OPTIONS, load_cursor, retry_delay, save_cursor

SAVED = "cursor.txt"
request = messages_pb2.MessagesRequest(topics=["demo.>"], earliest=True)
stub = messages_pb2_grpc.MessageServiceStub(grpc.insecure_channel("127.0.0.1:50051", options=OPTIONS))
while True:
    if cursor := load_cursor(SAVED):
        request.cursor = cursor
    try:
        for response in stub.Messages(request, wait_for_ready=True):
            for message in response.messages:
                print(message.sequence, message.topic, message.text, flush=True)
            save_cursor(SAVED, response.cursor)
        break
    except grpc.RpcError as error:
        delay = retry_delay(error)
        if delay is None:
            raise
        time.sleep(delay)
