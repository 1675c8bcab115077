"""Tests of what a kit outside of the process cannot see, against the real server: `python test_package.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings

import grpc

from perennial_streams import AsyncClient, CallError, Client, ClientClosedError
from perennial_streams.publisher import _ids_known_for, _Message
from perennial_streams.v1.lines_pb2 import ReadLinesRequest as LinesRequest
from perennial_streams.v1.lines_pb2 import WatchFilesResponse
from perennial_streams.v1.messages_pb2 import PublishRequest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = os.environ.get("PERENNIALD", str(ROOT / "target/release/perenniald"))
LIMIT_SECONDS = 120


class SlowStore:
    """A store of the caller whose saves take a while."""

    def __init__(self) -> None:
        self.text: str | None = None

    def load(self) -> str | None:
        return self.text

    async def save(self, text: str) -> None:
        await asyncio.sleep(0.3)
        self.text = text


class Package(unittest.TestCase):
    def setUp(self) -> None:
        # What is left open makes a warning when it is collected, which Python can only print.
        self.left: list[str] = []
        hook, sys.unraisablehook = sys.unraisablehook, lambda fault: self.left.append(f"{fault.exc_value!r} in {fault.object!r}")
        self.addCleanup(setattr, sys, "unraisablehook", hook)
        self.addCleanup(self.check_left)
        warnings.simplefilter("error", ResourceWarning)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory, self.address = pathlib.Path(directory.name), "127.0.0.1:0"
        (self.directory / "logs").mkdir()
        (self.directory / "logs/a.log").write_text("one\ntwo\nthree\n")
        self.start()

    def start(self, *arguments: str) -> None:
        command = [SERVER, "--listen", self.address, "--data", str(self.directory / "data"), "--log", "error"]
        command += ["--root", f"logs={self.directory / 'logs'}", *arguments]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop)
        for line in self.server.stderr or ():
            if found := re.match(r"perenniald: listening on https?://(.*)", line):
                self.address = found[1]
                return
        self.fail("the server did not start")

    def stop(self) -> None:
        self.server.kill()
        self.server.wait()
        if self.server.stderr:
            self.server.stderr.close()

    def check_left(self) -> None:
        gc.collect()
        self.assertEqual(self.left, [])

    def run_async(self, test: object) -> None:
        asyncio.run(asyncio.wait_for(test, LIMIT_SECONDS))  # type: ignore[arg-type]

    def certificate(self, name: str, host: str) -> tuple[str, str]:
        """A certificate of its own authority, and its key."""
        certificate, key = (str(self.directory / f"{name}.{end}") for end in ("crt", "key"))
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
        command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-keyout", key, "-out", certificate]
        # rustls takes no certificate of an authority for that of a caller.
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)
        os.chmod(key, 0o600)
        return certificate, key

    def test_a_server_that_is_not_trusted_or_does_not_trust_is_not_tried_again(self) -> None:
        here = self.certificate("here", "IP:127.0.0.1")
        elsewhere = self.certificate("elsewhere", "DNS:elsewhere.example")

        async def refused(what: str, address: str, **options: str) -> None:
            async with AsyncClient(f"https://{address}", **options) as client:
                for stream in (client.countdown(3), client.messages(">"), client.read_lines("logs/a.log")):
                    with self.assertRaises(CallError, msg=what) as caught:
                        async for _ in stream:
                            pass
                    self.assertFalse(caught.exception.is_retryable, (what, str(caught.exception)))

        def serve(certificate: tuple[str, str], *arguments: str) -> str:
            self.stop()
            self.address = "127.0.0.1:0"
            self.start("--tls-cert", certificate[0], "--tls-key", certificate[1], *arguments)
            return self.address

        async def test() -> None:
            await refused("a server in plain text", self.address, ca=here[0])
            address = serve(elsewhere)
            await refused("another name", address, ca=elsewhere[0])
            address = serve(here, "--tls-client-ca", here[0])
            async with AsyncClient(f"https://{address}", ca=here[0], cert=here[0], key=here[1]) as client:
                self.assertEqual([tick.remaining async for tick in client.countdown(1)], [1, 0])
            await refused("another authority", address, ca=elsewhere[0])
            await refused("no certificate", address, ca=here[0])
            await refused("another certificate", address, ca=here[0], cert=elsewhere[0], key=elsewhere[1])

        self.run_async(test())

    def test_a_publisher_and_a_stream_end_when_the_server_comes_back_with_another_certificate(self) -> None:
        here, elsewhere = self.certificate("here", "IP:127.0.0.1"), self.certificate("elsewhere", "IP:127.0.0.1")

        async def test() -> None:
            self.stop()
            self.start("--tls-cert", here[0], "--tls-key", here[1])
            async with AsyncClient(f"https://{self.address}", ca=here[0]) as client:
                publisher = client.publisher(connect_timeout=LIMIT_SECONDS)
                await (await publisher.publish("t", "x"))
                messages = aiter(client.messages("t", earliest=True))
                self.assertEqual((await anext(messages)).text, "x")
                self.stop()
                self.start("--tls-cert", elsewhere[0], "--tls-key", elsewhere[1])
                receipt = await publisher.publish("t", "y")
                for waiting in (anext(messages), receipt, publisher.flush()):
                    with self.assertRaisesRegex(CallError, "do not trust each other") as caught:
                        await waiting
                    self.assertTrue(caught.exception.is_distrust and not caught.exception.is_retryable)

        self.run_async(test())

    def test_a_client_that_is_closed_ends_its_streams_and_its_publishers_with_a_clear_error(self) -> None:
        async def test() -> None:
            client = AsyncClient(self.address)
            begun = asyncio.Event()

            async def read() -> None:
                async for _ in client.read_lines("logs/a.log", follow=True):
                    begun.set()

            reading = asyncio.create_task(read())
            await begun.wait()
            publisher = client.publisher()
            self.stop()
            receipt = await publisher.publish("t", "x")
            flushing = asyncio.create_task(publisher.flush())
            await asyncio.sleep(0.1)
            await client.close()
            for waiting in (reading, receipt, flushing):
                with self.assertRaises(ClientClosedError):
                    await waiting
            with self.assertRaises(ClientClosedError):
                await publisher.publish("t", "y")

        self.run_async(test())

    def test_a_client_that_is_closed_ends_the_threads_that_wait_for_it(self) -> None:
        for is_away in (False, True):
            with self.subTest(is_away=is_away):
                client, raised, begun = Client(self.address), [], threading.Event()

                def read(client: Client = client, raised: list[BaseException] = raised, begun: threading.Event = begun) -> None:
                    try:
                        for _ in client.read_lines("logs/a.log", follow=True):
                            begun.set()
                    except BaseException as error:
                        raised.append(error)

                thread = threading.Thread(target=read, daemon=True)
                thread.start()
                begun.wait(LIMIT_SECONDS)
                if is_away:
                    self.stop()
                time.sleep(0.7)
                client.close()
                thread.join(LIMIT_SECONDS)
                self.assertIsInstance(raised[0] if raised else None, ClientClosedError)

    def test_a_save_that_is_interrupted_is_finished(self) -> None:
        async def test() -> None:
            store = SlowStore()
            async with AsyncClient(self.address) as client:
                seen = []

                async def read() -> None:
                    async for line in client.read_lines("logs/a.log", follow=True, store=store):
                        seen.append(line.text)

                reading = asyncio.create_task(read())
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
                # The save of the second line has begun.
                await asyncio.sleep(0.1)
                reading.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await reading
                again = [line.text async for line in client.read_lines("logs/a.log", store=store)]
                self.assertEqual(seen + again, ["one", "two", "three"])

        self.run_async(test())

    def test_patterns_are_any_sequence_of_texts_and_not_a_text(self) -> None:
        async def test() -> None:
            async with AsyncClient(self.address) as client:
                for patterns in (["two", "three"], ("two", "three"), LinesRequest(include=["two", "three"]).include):
                    lines = [line.text async for line in client.read_lines("logs/a.log", include=patterns, last=1)]
                    self.assertEqual(lines, ["three"])
                with self.assertRaisesRegex(TypeError, r"include is a list: try include=\['two'\]"):
                    client.read_lines("logs/a.log", include="two")

        self.run_async(test())

    def test_files_that_match_globs_are_watched_over_a_server_that_is_killed(self) -> None:
        logs = self.directory / "logs"

        async def test() -> None:
            files: set[str] = set()
            relisted = 0

            def take(response: WatchFilesResponse) -> None:
                nonlocal relisted
                if any(event.HasField("relisted") for event in response.events):
                    files.clear()
                    relisted += 1
                for change in response.changes:
                    if change.HasField("added"):
                        self.assertNotIn(change.added.path, files)
                        files.add(change.added.path)
                    else:
                        files.remove(change.removed.path)

            async with AsyncClient(self.address) as client:
                responses = client.watch_files("logs/**/*.log", heartbeat=1)

                async def until(*wanted: str) -> None:
                    while files != set(wanted):
                        take(await anext(responses))

                await until("logs/a.log")
                (logs / "b.log").write_text("one\n")
                await until("logs/a.log", "logs/b.log")
                self.stop()
                self.start()
                (logs / "c.log").write_text("one\n")
                (logs / "a.log").unlink()
                await until("logs/b.log", "logs/c.log")
                await responses.aclose()
                limited = client.watch_files("logs/*", limit=1)
                self.assertEqual([change.added.path async for it in limited for change in it.changes], ["logs/b.log"])
                with self.assertRaises(CallError) as caught:
                    await anext(client.watch_files("none/*"))
                self.assertEqual(caught.exception.reason, "FILE_NOT_FOUND")
                with self.assertRaises(TypeError):
                    client.watch_files("logs/*", store="file")  # type: ignore[call-arg]

        self.run_async(test())
        with Client(self.address) as client:
            listed = client.watch_files("logs/*", until_caught_up=True)
            paths = [change.added.path for response in listed for change in response.changes]
            self.assertEqual(paths, ["logs/b.log", "logs/c.log"])
            for response in client.watch_files("logs/*"):
                if response.caught_up:
                    break

    def test_one_request_that_is_sent_ten_times_is_ten_messages(self) -> None:
        async def test() -> None:
            request = PublishRequest(topic="t", text="x")
            async with AsyncClient(self.address) as client:
                async with client.publisher(connect_timeout=LIMIT_SECONDS) as publisher:
                    receipts = [await publisher.send(request) for _ in range(10)]
                    self.assertEqual(len({(await receipt).sequence for receipt in receipts}), 10)
            self.assertFalse(request.HasField("message_id"))

        self.run_async(test())

    def test_flush_and_close_wait_for_every_receipt(self) -> None:
        async def test() -> None:
            async with AsyncClient(self.address) as client:
                publisher = client.publisher(connect_timeout=LIMIT_SECONDS)
                await publisher.flush()
                receipts = [await publisher.publish("t", str(n)) for n in range(3_000)]
                await publisher.flush()
                self.assertTrue(all(receipt.done() for receipt in receipts))
                receipts.append(await publisher.publish("t", "last"))
                await publisher.close()
                self.assertEqual([receipt.result().sequence for receipt in receipts], list(range(1, 3_002)))
                with self.assertRaises(ClientClosedError):
                    await publisher.publish("t", "later")

        self.run_async(test())

    def test_a_publisher_that_reaches_no_server_fails_after_its_connect_timeout(self) -> None:
        async def test() -> None:
            self.stop()
            async with AsyncClient(self.address) as client:
                publisher = client.publisher(connect_timeout=0.3)
                receipt = await publisher.publish("t", "x")
                for waiting in (receipt, publisher.flush(), publisher.publish("t", "y"), publisher.close()):
                    with self.assertRaises(CallError) as raised:
                        await waiting
                    self.assertEqual(raised.exception.code, grpc.StatusCode.UNAVAILABLE)

        self.run_async(test())

    def test_a_call_ends_before_the_server_forgets_the_id_of_a_message_that_it_sends_again(self) -> None:
        window, now, call = 60.0, 1_000.0, 3
        # The call ends 10 s before the end of the window.
        known = now - 43

        async def test() -> None:
            oldest = _Message(PublishRequest(), asyncio.get_running_loop().create_future())
            for name, sent_at, first_call, sent, expected in (
                ("a message that was never sent", None, -1, 0, None),
                ("sent by an earlier call, and not yet by this one", known, 2, 0, 30.0),
                ("sent first by this call", known, call, 1, None),
                ("sent again by this call", known, 2, 1, 7.0),
                ("sent again, and the id is forgotten", now - 51, 2, 1, -1.0),
            ):
                oldest.sent_at, oldest.first_call = sent_at, first_call
                self.assertEqual(_ids_known_for(oldest, sent, call, window, now), expected, name)
            self.assertIsNone(_ids_known_for(None, 0, call, window, now))

        self.run_async(test())

    def test_a_publisher_whose_server_does_not_speak_ends_its_calls(self) -> None:
        async def test() -> None:
            async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                # A connection that comes late is cancelled with the loop.
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await reader.read()
                writer.transport.abort()

            async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
                async with AsyncClient("127.0.0.1:%d" % server.sockets[0].getsockname()[1]) as client:
                    publisher = client.publisher(connect_timeout=1)
                    with self.assertRaises(CallError):
                        await (await publisher.publish("t", "x"))

        self.run_async(test())

    def test_a_client_that_is_closed_leaves_no_connection(self) -> None:
        def connections() -> int:
            port = f":{int(self.address.rsplit(':', 1)[1]):04X}"
            # grpcio uses sockets of IPv6 for IPv4, too. State 1 is that of an established connection.
            files = [pathlib.Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
            rows = [row.split() for file in files if file.exists() for row in file.read_text().splitlines()[1:]]
            return sum(row[2].endswith(port) and row[3] == "01" for row in rows)

        async def in_tasks() -> None:
            async with AsyncClient(self.address) as client, client.publisher() as publisher:
                await publisher.publish("t", "x")
                async for _ in client.read_lines("logs/a.log", follow=True):
                    break
                self.assertGreater(connections(), 0)

        self.run_async(in_tasks())
        with Client(self.address) as client:
            for _ in client.read_lines("logs/a.log", follow=True):
                break
        deadline = time.monotonic() + LIMIT_SECONDS
        while connections() and time.monotonic() < deadline:
            # Old versions of grpcio keep the call of a flow in a cycle.
            gc.collect()
            time.sleep(0.01)
        self.assertEqual(connections(), 0)

    def test_a_stream_that_is_left_within_its_body_commits_when_it_is_closed(self) -> None:
        async def test() -> None:
            async with AsyncClient(self.address) as client:
                for n in range(3):
                    await client.publish("t", str(n))
                with contextlib.suppress(ZeroDivisionError):
                    stream = client.messages("t", earliest=True, consumer="c", commit_every=60, max_batch=1)
                    async with stream:
                        async for message in stream:
                            if message.text == "2":
                                raise ZeroDivisionError
                stream = client.messages("t", earliest=True, consumer="c", until_caught_up=True)
                # The message in hand was not done.
                self.assertEqual([message.text async for message in stream], ["2"])

        self.run_async(test())
        with Client(self.address) as client:
            with contextlib.suppress(ZeroDivisionError):
                with client.messages("t", earliest=True, consumer="d", commit_every=60, max_batch=1) as stream:
                    for message in stream:
                        if message.text == "2":
                            raise ZeroDivisionError
            stream = client.messages("t", earliest=True, consumer="d", until_caught_up=True)
            self.assertEqual([message.text for message in stream], ["2"])

    def test_the_last_commit_neither_delays_nor_replaces_a_cancel(self) -> None:
        async def test() -> None:
            async with AsyncClient(self.address) as client:
                await client.publish("t", "x")
                since = time.monotonic()
                with contextlib.suppress(asyncio.TimeoutError):

                    async def read() -> None:
                        stream = client.messages("t", earliest=True, consumer="c", commit_every=60)
                        async for _ in stream:
                            self.stop()

                    await asyncio.wait_for(read(), 1)
                self.assertLess(time.monotonic() - since, 5)

        self.run_async(test())

    def test_a_proxy_of_the_environment_gets_no_call_to_this_machine(self) -> None:
        async def test() -> None:
            async with AsyncClient(self.address, token="secret") as client:
                with contextlib.suppress(CallError):
                    await client.get_countdown("missing")

        called = []

        async def with_proxy() -> None:
            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                called.append(await reader.read(100))
                writer.transport.abort()

            async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
                os.environ["http_proxy"] = "http://127.0.0.1:%d" % proxy.sockets[0].getsockname()[1]
                try:
                    await test()
                finally:
                    del os.environ["http_proxy"]

        self.run_async(with_proxy())
        self.assertEqual(called, [])


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)
