"""An outbox: an order and its message are written in one transaction, and the message is published from there.

The id of the row is the id of the message, so a message that is published again after a crash is stored once, if that is
within the window in which the server knows ids (`--dedupe-window`).
"""

import sqlite3

from perennial_streams import Client

database = sqlite3.connect("orders.db")
database.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, what TEXT)")
database.execute("CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, text TEXT)")


def order(what: str) -> None:
    with database:
        number = database.execute("INSERT INTO orders (what) VALUES (?)", (what,)).lastrowid
        database.execute("INSERT INTO outbox (topic, text) VALUES ('orders.new', ?)", (f"order {number}: {what}",))


def publish_outbox() -> None:
    rows = database.execute("SELECT id, topic, text FROM outbox ORDER BY id").fetchall()
    with Client() as client, client.publisher() as publisher:
        receipts = [(number, publisher.publish(topic, text, message_id=f"outbox-{number}")) for number, topic, text in rows]
        for number, receipt in receipts:
            print("published as", receipt.result().sequence)
            with database:
                database.execute("DELETE FROM outbox WHERE id = ?", (number,))


order("a crème brûlée")
order("two coffees")
publish_outbox()
