"""Prints the messages of the demo, and continues where it stopped: after Ctrl-C, a crash, a restart of the server."""

import contextlib

from perennial_streams import Client

with contextlib.suppress(KeyboardInterrupt), Client() as client:
    for message in client.messages("demo.>", earliest=True, store="demo.state"):
        print(message.sequence, message.topic, message.text, flush=True)
