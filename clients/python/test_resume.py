"""A client generated from proto/ uses all three streams, is cut again and again, and misses nothing.

Run with the Python of a virtual environment that has grpcio and grpcio-tools; it needs target/release/perenniald, or
the server that PERENNIALD names. Every connection goes through a proxy that cuts it after some bytes, and the server
is killed in the middle. The names of tests as arguments run these alone.
"""

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
# A test takes some seconds.
LIMIT_SECONDS = 90
SERVER = os.environ.get("PERENNIALD", str(ROOT / "target/release/perenniald"))


def generate(out):
    from grpc_tools import protoc

    files = ["countdown", "gap", "lines", "messages"]
    paths = [f"perennial/v1/{name}.proto" for name in files]
    well_known = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(arguments + paths) == 0, "protoc"
    sys.path.insert(0, str(out))


class Stop(Exception):
    """Why a test cannot go on: its time is over, or what runs beside it failed."""


class Beside(threading.Thread):
    """Runs beside a test, which fails with it at once, wherever it waits."""

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
    """Python runs it in the main thread, where it interrupts any wait; what is to be ended there is ended."""
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
        said = ""
        for line in self.process.stderr:
            said += line
            if found := re.match(r"perenniald: listening on http://(.*)", line):
                self.address = found[1]
                return
        raise AssertionError(f"the server did not start: {said}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends it for good, whoever may be about to start it again."""
        with self.lock:
            self.has_ended = True
        if self.process:
            self.kill()


class Proxy:
    """Passes bytes on, and cuts each connection when some have passed."""

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
    # A local pool: a channel that was cut must not be shared with the next one.
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


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
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), error
                time.sleep(0.05)


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


def a_shared_countdown_is_told_number_by_number_and_published_once(server, proxy, pb):
    def call(method, request):
        with channel(server.address) as connection:
            stub = pb.countdown_grpc.CountdownServiceStub(connection)
            return getattr(stub, method)(request, wait_for_ready=True, timeout=30).countdown

    interval = 5_000_000
    create = pb.countdown.CreateCountdownRequest(name="show", start=400, request_id="one")
    create.interval.FromNanoseconds(interval)
    create.on_end.topic, create.on_end.text = "over", "it is over"
    call("CreateCountdown", create)
    # Paused, it shows which numbers are to come.
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
            # Not before: who has no cursor begins with the file that is at the path, and must not find the second one.
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
                        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
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


class Generated:
    def __init__(self):
        from perennial.v1 import countdown_pb2, countdown_pb2_grpc, lines_pb2, lines_pb2_grpc
        from perennial.v1 import messages_pb2, messages_pb2_grpc

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
            assert proxy.cuts > 0, "nothing was cut"
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
        a_shared_countdown_is_told_number_by_number_and_published_once,
        a_log_is_read_and_followed_line_by_line,
        messages_are_published_and_each_is_read_once,
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
