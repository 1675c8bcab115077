"""Copies the messages of the demo into SQLite, each exactly once, however often this is killed.

A message and the state after it are written in one transaction: both are there, or neither.
"""

import sqlite3

from perennial_streams import Client

database = sqlite3.connect("messages.db")
database.execute("CREATE TABLE IF NOT EXISTS messages (sequence INTEGER PRIMARY KEY, topic TEXT, text TEXT)")
database.execute("CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 0), state TEXT NOT NULL)")
row = database.execute("SELECT state FROM state").fetchone()
with Client() as client:
    stream = client.messages("demo.>", earliest=True, until_caught_up=True, state=row[0] if row else None)
    for message in stream:
        with database:
            database.execute("INSERT INTO messages VALUES (?, ?, ?)", (message.sequence, message.topic, message.text))
            database.execute("INSERT OR REPLACE INTO state VALUES (0, ?)", (stream.state,))
print(database.execute("SELECT count(*), min(sequence) FROM messages").fetchone())
