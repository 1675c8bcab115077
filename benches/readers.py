#!/usr/bin/env python3
"""Compares the server's processor time for a delivery: readers of server-sent events, and of gRPC, each on its own connection.

    benches/readers.py [READERS] [MESSAGES] [MESSAGES A SECOND]

`perennial bench pubsub` publishes, and is the readers of gRPC; this program is those of events, which it only counts. Each kind
runs with a tenth of the messages and with all, and the difference is what the deliveries cost: opening the streams is in both.
It needs target/release/perenniald and perennial, or those that PERENNIALD and PERENNIAL name.
"""

import os
import pathlib
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading

RELEASE = pathlib.Path(__file__).resolve().parent.parent / "target/release"
SERVER = os.environ.get("PERENNIALD", RELEASE / "perenniald")
CLIENT = os.environ.get("PERENNIAL", RELEASE / "perennial")
PATIENCE_SECONDS = 600
# Each message of an event has it once.
MARK = b'"sequence":"'


class Server:
    def __init__(self, directory, readers):
        self.process = subprocess.Popen(
            [SERVER, "--listen", "127.0.0.1:0", "--data", directory, "--log", "error", "--max-connections", str(2 * readers + 100)],
            stderr=subprocess.PIPE, text=True,
        )
        for line in self.process.stderr:
            if found := re.match(r"perenniald: listening on http://(.*):(\d+)$", line):
                self.address = (found[1], int(found[2]))
                return
        sys.exit("the server did not start")

    def cpu(self):
        """Its processor time, in seconds."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Events:
    """Readers of events."""

    def __init__(self, address, readers, messages):
        self.selector, self.left, self.started = selectors.DefaultSelector(), readers * messages, threading.Event()
        self.waiting, self.done = readers, threading.Event()
        request = f"GET /v1/messages?topic=bench.> HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode()
        for _ in range(readers):
            connection = socket.create_connection(address)
            connection.sendall(request)
            self.selector.register(connection, selectors.EVENT_READ, [b"", False])
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while self.left > 0:
            for key, _ in self.selector.select():
                data = key.fileobj.recv(1 << 16)
                if not data:
                    sys.exit("a stream of events ended")
                state = key.data
                if not state[1]:
                    # The first event confirms the subscription.
                    state[0] += data
                    if b"data: " in state[0]:
                        state[1] = True
                        self.waiting -= 1
                        if self.waiting == 0:
                            self.started.set()
                    continue
                # The mark may be cut between two reads: what is kept of the first is shorter than it.
                text = state[0] + data
                self.left -= text.count(MARK)
                state[0] = text[1 - len(MARK):]
        self.done.set()

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()


def publish(server, messages, rate, subscribers):
    command = [CLIENT, "bench", "pubsub", "--server", f"http://{server.address[0]}:{server.address[1]}", "--messages", str(messages),
               "--rate", str(rate), "--subscribers", str(subscribers), "--connections", str(subscribers)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS).stdout


def measure(kind, readers, messages, rate):
    """The processor time of the server for this number of messages."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, readers)
        try:
            events = Events(server.address, readers, messages) if kind == "events" else None
            if events and not events.started.wait(PATIENCE_SECONDS):
                sys.exit("not every stream of events began")
            before = server.cpu()
            # One subscriber beside the readers of events, because the bench needs one.
            publish(server, messages, rate, 1 if events else readers)
            if events and not events.done.wait(PATIENCE_SECONDS):
                sys.exit(f"{events.left} deliveries did not come")
            cost = server.cpu() - before
            if events:
                events.close()
            return cost
        finally:
            server.process.kill()
            server.process.wait()


def main():
    readers, messages, rate = (int(text) for text in [*sys.argv[1:], *["1000", "1000", "20"][len(sys.argv) - 1:]])
    costs = {}
    for kind in ["grpc", "events"]:
        few, many = (measure(kind, readers, part, rate) for part in [messages // 10, messages])
        costs[kind] = (many - few) / ((messages - messages // 10) * readers) * 1e6
        print(f"{kind}: {costs[kind]:.2f} µs a delivery", flush=True)
    print(f"events / grpc: {costs['events'] / costs['grpc']:.2f}")


if __name__ == "__main__":
    main()
