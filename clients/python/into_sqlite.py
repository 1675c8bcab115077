"""Copies the messages of the demo into SQLite, each exactly once, however often this is killed.

The messages of a response and its cursor are written in one transaction: both are there, or neither.
"""

import sqlite3
import time

import grpc
from perennial.v1 import messages_pb2, messages_pb2_grpc
from resume import OPTIONS, retry_delay

database = sqlite3.connect("messages.db")
database.execute("CREATE TABLE IF NOT EXISTS messages (sequence INTEGER PRIMARY KEY, topic TEXT, text TEXT)")
database.execute("CREATE TABLE IF NOT EXISTS cursor (id INTEGER PRIMARY KEY CHECK (id = 0), cursor TEXT NOT NULL)")
request = messages_pb2.MessagesRequest(topics=["demo.>"], earliest=True, until_caught_up=True)
stub = messages_pb2_grpc.MessageServiceStub(grpc.insecure_channel("127.0.0.1:50051", options=OPTIONS))
while True:
    if row := database.execute("SELECT cursor FROM cursor").fetchone():
        request.cursor = row[0]
    try:
        for response in stub.Messages(request, wait_for_ready=True):
            with database:
                rows = [(message.sequence, message.topic, message.text) for message in response.messages]
                database.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)
                database.execute("INSERT OR REPLACE INTO cursor VALUES (0, ?)", [response.cursor])
        break
    except grpc.RpcError as error:
        delay = retry_delay(error)
        if delay is None:
            raise
        time.sleep(delay)
print(database.execute("SELECT count(*), min(sequence) FROM messages").fetchone())
