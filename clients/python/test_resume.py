"""Cuts the connection of a client that is generated from proto/ again and again, and compares every item it gets.

Run with the Python of a virtual environment that has grpcio, grpcio-tools and googleapis-common-protos; it needs
target/release/perenniald, or the server that PERENNIALD names. Every connection goes through a proxy that cuts it after
some bytes, and the server is killed in the middle. With names of tests as arguments, only these run.
"""

import asyncio
import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# A test takes a few seconds.
LIMIT_SECONDS = 90
SERVER = os.environ.get("PERENNIALD", str(ROOT / "target/release/perenniald"))


def generate(out):
    from grpc_tools import protoc

    paths = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    well_known = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(arguments + paths) == 0, "protoc"
    sys.path.insert(0, str(out))
    # It imports what was generated.
    global resume
    import resume


class Stop(Exception):
    """The reason why a test is ended: its time is over, or a thread of it failed."""


class Beside(threading.Thread):
    """A thread of a test. If it fails, the test fails at once, wherever it waits."""

    why = None

    def __init__(self, server, work):
        super().__init__(daemon=True)
        self.server, self.work = server, work
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:
            if not self.server.has_ended:
                Beside.why = f"{self.work.__name__}: {type(error).__name__}: {error}"
                os.kill(os.getpid(), signal.SIGUSR1)


def stop(number, frame):
    """Handles a signal. Python does so in the main thread, where the exception interrupts any wait."""
    if number == signal.SIGTERM:
        sys.exit("ended by a signal")
    raise Stop(f"not done within {LIMIT_SECONDS} s" if number == signal.SIGALRM else Beside.why)


class Server:
    def __init__(self, directory):
        self.directory, self.address = directory, "127.0.0.1:0"
        self.process, self.has_ended, self.lock = None, False, threading.Lock()
        (directory / "logs").mkdir()

    def start(self):
        with self.lock:
            if self.has_ended:
                raise Stop("the test is over")
            self.process = subprocess.Popen(
                [SERVER, "--listen", self.address, "--data", self.directory / "data",
                 "--root", f"logs={self.directory / 'logs'}", "--log", "error"],
                stderr=subprocess.PIPE, text=True,
            )
        printed = ""
        for line in self.process.stderr:
            printed += line
            if found := re.match(r"perenniald: listening on http://(.*)", line):
                self.address = found[1]
                return
        raise AssertionError(f"the server did not start: {printed}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends it for good: a thread that would start it again fails."""
        with self.lock:
            self.has_ended = True
        if self.process:
            self.kill()


class Proxy:
    """Passes bytes on, and cuts each connection after 2,000 to `most` of them."""

    def __init__(self, server, most=200_000):
        self.server, self.cuts, self.most = server, 0, most
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        host, port = self.server.address.split(":")
        try:
            upstream = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        left = [random.randint(2_000, self.most)]

        def copy(source, target, counts):
            try:
                while data := source.recv(4096):
                    target.sendall(data)
                    if counts:
                        left[0] -= len(data)
                        if left[0] < 0:
                            self.cuts += 1
                            break
            except OSError:
                pass
            for end in (client, upstream):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        threading.Thread(target=copy, args=(client, upstream, False), daemon=True).start()
        copy(upstream, client, True)


def channel(address):
    # With a pool of its own, so that a connection that was cut is not shared with the next channel.
    return grpc.insecure_channel(address, options=[*resume.OPTIONS, ("grpc.use_local_subchannel_pool", 1)])


def resumed(address, service, method, request):
    """The responses of a stream, over as many connections as it takes."""
    while True:
        with channel(address) as connection:
            try:
                for response in getattr(service(connection), method)(request, timeout=60):
                    yield response
                    request.cursor = response.cursor
                return
            except grpc.RpcError as error:
                delay = resume.retry_delay(error)
                assert delay is not None, error
                time.sleep(delay / 10)


def a_countdown_delivers_or_counts_every_number(server, proxy, pb):
    request = pb.countdown.CountdownRequest(start=400)
    request.interval.FromMilliseconds(5)
    proxy.most = 5_000
    seen, skipped, is_killed = [], 0, False
    responses = resumed(proxy.address, pb.countdown_grpc.CountdownServiceStub, "Countdown", request)
    for response in responses:
        skipped += response.skipped_ticks
        seen += [tick.remaining for tick in response.ticks]
        if not is_killed and len(seen) > 100:
            is_killed = True
            server.kill()
            server.start()
    assert seen == sorted(set(seen), reverse=True) and seen[-1] == 0, seen
    assert len(seen) + skipped == 401, (len(seen), skipped)


def every_number_of_a_shared_countdown_comes_or_is_counted_and_its_end_is_published_once(server, proxy, pb):
    def call(method, request):
        with channel(server.address) as connection:
            stub = pb.countdown_grpc.CountdownServiceStub(connection)
            return getattr(stub, method)(request, wait_for_ready=True, timeout=30).countdown

    interval = 5_000_000
    create = pb.countdown.CreateCountdownRequest(name="show", start=400, request_id="one")
    create.interval.FromNanoseconds(interval)
    create.on_end.topic, create.on_end.text = "over", "it is over"
    call("CreateCountdown", create)
    # While it is paused, the time that is left says how many numbers are still to come.
    paused = call("PauseCountdown", pb.countdown.PauseCountdownRequest(name="show"))
    left = -(-paused.remaining_duration.ToNanoseconds() // interval)
    proxy.most = 5_000
    request = pb.countdown.CountdownRequest(name="show")
    seen, skipped, changes, last, is_killed = [], 0, [], None, False
    for response in resumed(proxy.address, pb.countdown_grpc.CountdownServiceStub, "Countdown", request):
        if last is None:
            call("ResumeCountdown", pb.countdown.ResumeCountdownRequest(name="show"))
        skipped += response.skipped_ticks
        seen += [tick.remaining for tick in response.ticks]
        changes += [event.changed.change for event in response.events if event.HasField("changed")]
        last = response.countdown if response.HasField("countdown") else last
        if not is_killed and len(seen) > 100:
            is_killed = True
            server.kill()
            server.start()
    assert seen == sorted(set(seen), reverse=True) and seen[-1] == 0, seen
    assert len(seen) + skipped == left, (len(seen), skipped, left)
    assert changes == [pb.countdown.COUNTDOWN_CHANGE_RESUMED, pb.countdown.COUNTDOWN_CHANGE_ENDED], changes
    assert last.state == pb.countdown.COUNTDOWN_STATE_ENDED, last
    with channel(server.address) as connection:
        request = pb.messages.MessagesRequest(topics=["over"], earliest=True, until_caught_up=True)
        responses = pb.messages_grpc.MessageServiceStub(connection).Messages(request, timeout=30)
        texts = [message.text for response in responses for message in response.messages]
    assert texts == ["it is over"], texts


def a_log_is_read_and_followed_line_by_line(server, proxy, pb):
    path = server.directory / "logs" / "app.log"
    expected = [f"line {n} — {'x' * (n % 90)}" for n in range(40_000)]
    half = len(expected) // 2
    path.write_text("".join(line + "\n" for line in expected[:half]))

    def write():
        for start in range(half, len(expected), 500):
            with path.open("a") as file:
                file.writelines(line + "\n" for line in expected[start:start + 500])
            if start == half + 5_000:
                path.rename(path.with_suffix(".log.1"))
            if start == half + 10_000:
                server.kill()
                server.start()
            time.sleep(0.02)

    request = pb.lines.ReadLinesRequest(path="logs/app.log", follow=True, wait_for_create=True)
    seen, last, writer = [], None, None
    try:
        for last in resumed(proxy.address, pb.lines_grpc.LineServiceStub, "ReadLines", request):
            # The first response has the first cursor: without one, the reader would start with the second file.
            writer = writer or Beside(server, write)
            lines = [line.text for line in last.lines]
            wanted = expected[len(seen):len(seen) + len(lines)]
            seen += lines
            assert lines == wanted, next((p for p in zip(lines, wanted) if p[0] != p[1]), "more lines than written")
            if len(seen) == len(expected):
                break
    except AssertionError as error:
        raise AssertionError(
            f"{len(seen)} of {len(expected)} lines, the last response "
            f"{last.caught_up=} {last.events=} {last.cursor=}: {error}"
        ) from error
    writer.join()


def messages_are_published_and_each_is_read_once(server, proxy, pb):
    count = 3_000
    expected = [f"message {n}" for n in range(count)]

    def publish():
        with channel(server.address) as connection:
            stub = pb.messages_grpc.MessageServiceStub(connection)
            for start in range(0, count, 100):
                messages = [
                    pb.messages.PublishRequest(topic=f"t.{n % 3}", text=expected[n], message_id=str(n))
                    for n in range(start, start + 100)
                ]
                while True:
                    # A batch whose answer is lost is repeated; its ids keep it from being there twice.
                    try:
                        batch = pb.messages.PublishBatchRequest(messages=messages)
                        stub.PublishBatch(batch, wait_for_ready=True, timeout=30)
                        break
                    except grpc.RpcError as error:
                        assert resume.retry_delay(error) is not None, error
                if start == 1_500:
                    server.kill()
                    server.start()

    publisher = Beside(server, publish)
    proxy.most = 20_000
    request = pb.messages.MessagesRequest(topics=["t.*"], earliest=True, max_batch=20)
    seen, sequences = [], []
    for response in resumed(proxy.address, pb.messages_grpc.MessageServiceStub, "Messages", request):
        seen += [message.text for message in response.messages]
        sequences += [message.sequence for message in response.messages]
        if len(seen) >= count:
            break
    publisher.join()
    assert seen == expected
    assert sequences == sorted(set(sequences))


def one_asyncio_program_reads_all_three_streams(server, proxy, pb):
    expected = [f"line {n}" for n in range(2_000)]
    path = server.directory / "logs" / "app.log"
    path.write_text("".join(line + "\n" for line in expected[:1_000]))
    proxy.most = 50_000
    countdown = pb.countdown.CountdownRequest(start=100, on_lag=pb.countdown.ON_LAG_BURST)
    countdown.interval.FromMilliseconds(20)
    lines = pb.lines.ReadLinesRequest(path="logs/app.log", follow=True)
    messages = pb.messages.MessagesRequest(topics=["t"], earliest=True)

    async def publish(channel, start):
        stub = pb.messages_grpc.MessageServiceStub(channel)
        batch = [pb.messages.PublishRequest(topic="t", text=text, message_id=text) for text in expected[start:][:1_000]]
        while True:
            try:
                await stub.PublishBatch(pb.messages.PublishBatchRequest(messages=batch), wait_for_ready=True)
                return
            except grpc.aio.AioRpcError as error:
                delay = resume.retry_delay(error)
                assert delay is not None, error
                await asyncio.sleep(delay)

    async def read(method, request, items, count, has_begun):
        """The items of a stream: `count` of them, or all if it is None."""
        seen = []
        async with contextlib.aclosing(resume.resumed(method, request)) as responses:
            async for response in responses:
                has_begun.set()
                seen += items(response)
                if len(seen) == count:
                    break
        return seen

    def restart():
        server.kill()
        server.start()

    async def main():
        async with grpc.aio.insecure_channel(proxy.address, options=resume.OPTIONS) as channel:
            await publish(channel, 0)
            have_begun = [asyncio.Event() for _ in range(3)]
            streams = [
                (pb.countdown_grpc.CountdownServiceStub(channel).Countdown, countdown,
                 lambda response: [tick.remaining for tick in response.ticks], None),
                (pb.lines_grpc.LineServiceStub(channel).ReadLines, lines,
                 lambda response: [line.text for line in response.lines], len(expected)),
                (pb.messages_grpc.MessageServiceStub(channel).Messages, messages,
                 lambda response: [message.text for message in response.messages], len(expected)),
            ]
            readers = [asyncio.create_task(read(*stream, begun)) for stream, begun in zip(streams, have_begun)]
            for begun in have_begun:
                await begun.wait()
            await asyncio.to_thread(restart)
            with path.open("a") as file:
                file.writelines(line + "\n" for line in expected[1_000:])
            await publish(channel, 1_000)
            return await asyncio.gather(*readers)

    ticks, seen_lines, seen_messages = asyncio.run(main())
    assert ticks == list(range(100, -1, -1)), ticks
    assert seen_lines == expected, len(seen_lines)
    assert seen_messages == expected, len(seen_messages)


def a_refused_call_has_its_reason_and_is_not_tried_again(server, proxy, pb):
    with channel(server.address) as connection:
        stub = pb.countdown_grpc.CountdownServiceStub(connection)
        calls = [
            (lambda: stub.GetCountdown(pb.countdown.GetCountdownRequest(name="missing"), wait_for_ready=True),
             pb.errors.COUNTDOWN_NOT_FOUND),
            (lambda: list(stub.Countdown(pb.countdown.CountdownRequest())), pb.errors.INVALID_FIELD),
        ]
        for call, expected in calls:
            try:
                raise AssertionError(call())
            except grpc.RpcError as error:
                assert resume.reason(error) == expected, (resume.reason(error), error)
                assert resume.retry_delay(error) is None, error
        # The server and this library measure the deadline, and either can be the first to end the call.
        for _ in range(200):
            try:
                raise AssertionError(list(stub.Countdown(pb.countdown.CountdownRequest(start=1_000), timeout=0.01)))
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and resume.retry_delay(error) is None, error
                assert resume.reason(error) in (0, pb.errors.DEADLINE_EXCEEDED), error


# Tests without a proxy that cuts.
UNCUT = {a_refused_call_has_its_reason_and_is_not_tried_again}


class Generated:
    def __init__(self):
        from perennial.v1 import countdown_pb2, countdown_pb2_grpc, errors_pb2, lines_pb2, lines_pb2_grpc
        from perennial.v1 import messages_pb2, messages_pb2_grpc

        self.errors = errors_pb2
        self.countdown, self.countdown_grpc = countdown_pb2, countdown_pb2_grpc
        self.lines, self.lines_grpc = lines_pb2, lines_pb2_grpc
        self.messages, self.messages_grpc = messages_pb2, messages_pb2_grpc


def passes(test, pb):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(pathlib.Path(directory))
        signal.signal(signal.SIGUSR1, stop)
        signal.alarm(LIMIT_SECONDS)
        try:
            server.start()
            proxy = Proxy(server)
            test(server, proxy, pb)
            assert proxy.cuts > 0 or test in UNCUT, "nothing was cut"
            print(f"ok      {test.__name__} ({proxy.cuts} cuts)", flush=True)
            return True
        except Exception as error:
            print(f"FAILED  {test.__name__}: {type(error).__name__}: {str(error)[:500]}", flush=True)
            return False
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            server.end()


def main():
    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, stop)
    tests = [
        a_countdown_delivers_or_counts_every_number,
        every_number_of_a_shared_countdown_comes_or_is_counted_and_its_end_is_published_once,
        a_log_is_read_and_followed_line_by_line,
        messages_are_published_and_each_is_read_once,
        one_asyncio_program_reads_all_three_streams,
        a_refused_call_has_its_reason_and_is_not_tried_again,
    ]
    if sys.argv[1:]:
        tests = [test for test in tests if test.__name__ in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as out:
        generate(out)
        pb = Generated()
        passed = sum(passes(test, pb) for test in tests)
    failed = len(tests) - passed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
