package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.FileChange;
import dev.perennial.v1.Line;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.MessageServiceGrpc;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.MessagesRequest;
import dev.perennial.v1.OnGap;
import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.PurgeTopicRequest;
import dev.perennial.v1.ReadLinesRequest;
import dev.perennial.v1.StoredMessage;
import dev.perennial.v1.Tick;
import dev.perennial.v1.WatchFilesRequest;
import dev.perennial.v1.WatchFilesResponse;
import io.grpc.Status;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(120)
class StreamTest {
    @TempDir
    Path directory;

    private Server server;

    @BeforeEach
    void start() {
        server = new Server(directory);
    }

    @AfterEach
    void end() {
        server.close();
    }

    private static ReadLinesRequest.Builder lines(String path) {
        return ReadLinesRequest.newBuilder().setPath(path);
    }

    private static List<String> texts(ItemStream<Line, LineStreamEvent> lines) {
        try (lines) {
            return lines.stream().map(Line::getText).toList();
        }
    }

    private static List<String> numbers(int count) {
        return IntStream.range(0, count).mapToObj(Integer::toString).toList();
    }

    /** Takes the changes of a response, and returns whether all files come again. */
    private static boolean take(Set<String> files, WatchFilesResponse response) {
        boolean isRelisted = response.getEventsList().stream().anyMatch(event -> event.hasRelisted());
        if (isRelisted) {
            files.clear();
        }
        for (FileChange change : response.getChangesList()) {
            if (change.hasAdded()) {
                assertTrue(files.add(change.getAdded().getPath()), "a file comes twice");
            } else {
                files.remove(change.getRemoved().getPath());
            }
        }
        return isRelisted;
    }

    @Test
    void filesThatMatchGlobsAreWatchedOverAServerThatIsKilled() throws IOException {
        server.numbers("a.log", 1);
        server.numbers("a.txt", 1);
        try (PerennialClient client = Server.connect(server.address())) {
            Set<String> files = new TreeSet<>();
            try (PerennialStream<WatchFilesResponse> responses = client.watchFiles("logs/*.log")) {
                while (!files.equals(Set.of("logs/a.log"))) {
                    take(files, responses.next());
                }
                server.numbers("b.log", 1);
                while (!files.equals(Set.of("logs/a.log", "logs/b.log"))) {
                    take(files, responses.next());
                }
                server.kill();
                server.numbers("c.log", 1);
                Files.delete(directory.resolve("logs/a.log"));
                server.start();
                boolean isRelisted = false;
                while (!files.equals(Set.of("logs/b.log", "logs/c.log"))) {
                    isRelisted |= take(files, responses.next());
                }
                assertTrue(isRelisted);
            }
            WatchFilesRequest.Builder all = WatchFilesRequest.newBuilder().addGlobs("logs").setUntilCaughtUp(true);
            Set<String> listed = new TreeSet<>();
            try (PerennialStream<WatchFilesResponse> responses = client.watchFiles(all.build(), StreamOptions.defaults())) {
                responses.forEachRemaining(response -> take(listed, response));
            }
            assertEquals(Set.of("logs/a.txt", "logs/b.log", "logs/c.log"), listed);
            StreamOptions stored = StreamOptions.defaults().withStore(new MemoryStore());
            assertThrows(IllegalArgumentException.class, () -> client.watchFiles(all.build(), stored));
            WatchFilesRequest limited = all.setLimit(1).build();
            assertThrows(IllegalArgumentException.class, () -> client.watchFiles(limited, StreamOptions.defaults()));
            try (PerennialStream<WatchFilesResponse> missing = client.watchFiles("none/*")) {
                PerennialException error = assertThrows(PerennialException.class, missing::hasNext);
                assertEquals("FILE_NOT_FOUND", error.reason());
            }
        }
    }

    @Test
    void aStreamThatIsCutAgainAndAgainGivesEachLineOnceAndInOrder() {
        String path = server.numbers("a.log", 20_000);
        AtomicInteger interrupted = new AtomicInteger();
        AtomicInteger resumed = new AtomicInteger();
        ConnectionObserver observer = new ConnectionObserver() {
            @Override
            public void interrupted(PerennialException error, Duration wait) {
                interrupted.incrementAndGet();
            }

            @Override
            public void resumed() {
                resumed.incrementAndGet();
            }
        };
        try (Proxy proxy = new Proxy(server).cutWithin(60_000);
                PerennialClient client = PerennialClient.builder(proxy.address()).observer(observer).build()) {
            StreamOptions options = StreamOptions.defaults();
            assertEquals(numbers(20_000), texts(client.readLines(lines(path).setMaxBatch(700).build(), options)));
            int limit = 7_001;
            ReadLinesRequest limited = lines(path).setMaxBatch(700).setLimit(limit).build();
            assertEquals(numbers(limit), texts(client.readLines(limited, options)));
            assertTrue(interrupted.get() > 3, interrupted + " interruptions");
            assertTrue(resumed.get() > 3, resumed + " times resumed");
        }
    }

    @Test
    void aServerThatIsKilledLosesAndRepeatsNoMessage() {
        try (PerennialClient client = Server.connect(server.address());
                Publisher publisher = client.publisher()) {
            for (int n = 0; n < 300; n++) {
                publisher.publish("t", Integer.toString(n));
            }
            publisher.flush();
            List<String> got = new ArrayList<>();
            try (ItemStream<StoredMessage, MessageStreamEvent> messages =
                    client.messages("t", request -> request.setEarliest(true).setMaxBatch(7))) {
                for (StoredMessage message : messages) {
                    got.add(message.getText());
                    if (got.size() % 100 == 0) {
                        server.kill();
                        server.start();
                        for (int n = 0; n < 50; n++) {
                            publisher.publish("t", Integer.toString(got.size() + 200 + n));
                        }
                    }
                    if (got.size() == 350) {
                        break;
                    }
                }
            }
            assertEquals(numbers(300), got.subList(0, 300));
            assertEquals("300", got.get(300));
        }
    }

    @Test
    void aStateOfAnyItemContinuesAfterThatItem() {
        String path = server.numbers("a.log", 40);
        try (PerennialClient client = Server.connect(server.address())) {
            ReadLinesRequest request = lines(path).setMaxBatch(7).build();
            List<String> states = new ArrayList<>();
            try (ItemStream<Line, LineStreamEvent> stream = client.readLines(request, StreamOptions.defaults())) {
                assertTrue(stream.state().isEmpty());
                for (Line line : stream) {
                    states.add(stream.state().orElseThrow());
                    assertEquals(states.size() - 1, Integer.parseInt(line.getText()));
                }
            }
            for (int done = 0; done < 40; done++) {
                StreamOptions options = StreamOptions.defaults().withState(states.get(done));
                assertEquals(numbers(40).subList(done + 1, 40), texts(client.readLines(request, options)), states.get(done));
                ReadLinesRequest limited = request.toBuilder().setLimit(5).build();
                int end = Math.min(40, done + 6);
                assertEquals(numbers(40).subList(done + 1, end), texts(client.readLines(limited, options)));
            }
        }
    }

    @Test
    void aStoreContinuesAfterTheItemThatWasDoneLastWhereverTheReaderStopped() {
        String path = server.numbers("a.log", 60);
        Store store = Store.file(directory.resolve("state"));
        try (PerennialClient client = Server.connect(server.address())) {
            List<String> got = new ArrayList<>();
            for (int run = 1; got.size() < 60; run++) {
                StreamOptions options = StreamOptions.defaults().withStore(store);
                int left = run % 9 + 1;
                try (ItemStream<Line, LineStreamEvent> stream =
                        client.readLines(lines(path).setMaxBatch(8).build(), options)) {
                    // Asking for one more item says that those before it are done; it is not, and comes again.
                    while (stream.hasNext() && left-- > 0) {
                        got.add(stream.next().getText());
                    }
                }
            }
            assertEquals(numbers(60), got);
            assertEquals(List.of(), texts(client.readLines(lines(path).build(), StreamOptions.defaults().withStore(store))));
        }
    }

    @Test
    void aDamagedStateIsAnErrorAndNoCallIsMade() throws IOException {
        Path file = directory.resolve("state");
        Files.writeString(file, "");
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                ItemStream<Tick, ?> stream = client.countdown(
                        CountdownRequest.newBuilder().setStart(1).build(),
                        StreamOptions.defaults().withStore(Store.file(file)))) {
            StateException thrown = assertThrows(StateException.class, stream::hasNext);
            assertTrue(thrown.getMessage().contains(file.toString()), thrown.getMessage());
            assertEquals(0, proxy.connections());
        }
    }

    @Test
    void aCountdownContinuesAcrossARestart() {
        try (PerennialClient client = Server.connect(server.address());
                ItemStream<Tick, ?> ticks = client.countdown(4)) {
            List<Integer> got = new ArrayList<>();
            for (Tick tick : ticks) {
                got.add(tick.getRemaining());
                if (tick.getRemaining() == 3) {
                    server.stop();
                    server.start();
                }
            }
            assertEquals(0, got.get(got.size() - 1));
            assertEquals(5, got.size() + ticks.skippedTicks(), got.toString());
        }
    }

    @Test
    void eventsAreValuesInTheirOrder() throws IOException {
        String path = server.numbers("a.log", 2);
        try (PerennialClient client = Server.connect(server.address());
                PerennialStream<Element<Line, LineStreamEvent>> stream =
                        client.readLines(path, request -> request.setFollow(true)).withEvents()) {
            assertInstanceOf(Element.Item.class, stream.next());
            // After the first item there is a cursor, and the stream goes on from it.
            assertTrue(stream.next() instanceof Element.Event<Line, LineStreamEvent> event && event.value().hasResumed());
            assertInstanceOf(Element.Item.class, stream.next());
            assertInstanceOf(Element.CaughtUp.class, stream.next());
            Files.move(server.logs.resolve("a.log"), server.logs.resolve("a.log.1"));
            Files.writeString(server.logs.resolve("a.log"), "new\n");
            List<LineStreamEvent.EventCase> events = new ArrayList<>();
            Element<Line, LineStreamEvent> next = stream.next();
            while (next instanceof Element.Event<Line, LineStreamEvent> event) {
                events.add(event.value().getEventCase());
                next = stream.next();
            }
            assertTrue(
                    events.contains(LineStreamEvent.EventCase.ROTATED) || events.contains(LineStreamEvent.EventCase.OPENED),
                    events.toString());
            assertTrue(next instanceof Element.Item<Line, LineStreamEvent> item && item.value().getText().equals("new"));
        }
    }

    @Test
    void aGapIsAnErrorWithoutEventsAndAValueWithThem() {
        try (PerennialClient client = Server.connect(server.address())) {
            MessagesRequest.Builder request = MessagesRequest.newBuilder().addTopics("t").setFromSequence(1);
            for (int n = 0; n < 3; n++) {
                client.publish(PublishRequest.newBuilder().setTopic("t").setText("x").build());
            }
            client.call(
                    MessageServiceGrpc.getPurgeTopicMethod(),
                    PurgeTopicRequest.newBuilder().setTopic("t").setUntilSequence(2).build());
            try (ItemStream<StoredMessage, MessageStreamEvent> stream =
                    client.messages(request.build(), StreamOptions.defaults())) {
                PerennialException thrown = assertThrows(PerennialException.class, stream::hasNext);
                assertEquals("CURSOR_EXPIRED", thrown.reason());
                assertEquals("3", thrown.metadata().get("oldest"));
                assertEquals(thrown, assertThrows(PerennialException.class, stream::hasNext));
            }
            request.setOnGap(OnGap.ON_GAP_SKIP);
            try (ItemStream<StoredMessage, MessageStreamEvent> stream =
                    client.messages(request.build(), StreamOptions.defaults())) {
                assertThrows(GapException.class, stream::hasNext);
            }
            try (PerennialStream<Element<StoredMessage, MessageStreamEvent>> stream =
                    client.messages(request.build(), StreamOptions.defaults()).withEvents()) {
                assertTrue(stream.next() instanceof Element.Event<StoredMessage, MessageStreamEvent> event && event.value().hasGap());
                assertTrue(stream.next() instanceof Element.Item<StoredMessage, MessageStreamEvent> item
                        && item.value().getSequence() == 3);
            }
        }
    }

    @Test
    void aStreamThatIsClosedByAnotherThreadEndsAtOnceAndTheServerNotices() throws Exception {
        String path = server.numbers("a.log", 1);
        CountDownLatch waits = new CountDownLatch(1);
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                ItemStream<Line, LineStreamEvent> stream = client.readLines(path, request -> request.setFollow(true))) {
            CompletableFuture<Boolean> reader = CompletableFuture.supplyAsync(() -> {
                stream.next();
                waits.countDown();
                return stream.hasNext();
            });
            assertTrue(waits.await(30, TimeUnit.SECONDS));
            Thread.sleep(200);
            long start = System.nanoTime();
            stream.close();
            ExecutionException thrown = assertThrows(ExecutionException.class, () -> reader.get(5, TimeUnit.SECONDS));
            assertInstanceOf(CancellationException.class, thrown.getCause());
            assertTrue(System.nanoTime() - start < TimeUnit.MILLISECONDS.toNanos(500));
        }
    }

    @Test
    void anInterruptedReaderAndAClosedClientEndTheStream() throws Exception {
        String path = server.numbers("a.log", 0);
        PerennialClient client = Server.connect(server.address());
        ItemStream<Line, LineStreamEvent> stream = client.readLines(path, request -> request.setFollow(true));
        Thread reader = new Thread(() -> {
            assertThrows(CancellationException.class, stream::hasNext);
            assertTrue(Thread.currentThread().isInterrupted());
        });
        AtomicInteger failures = new AtomicInteger();
        reader.setUncaughtExceptionHandler((thread, failure) -> failures.incrementAndGet());
        reader.start();
        Thread.sleep(300);
        reader.interrupt();
        reader.join(5_000);
        assertFalse(reader.isAlive());
        assertEquals(0, failures.get());

        ItemStream<Line, LineStreamEvent> other = client.readLines(path, request -> request.setFollow(true));
        CompletableFuture<Boolean> waiting = CompletableFuture.supplyAsync(other::hasNext);
        Thread.sleep(300);
        client.close();
        Throwable cause = assertThrows(ExecutionException.class, () -> waiting.get(5, TimeUnit.SECONDS)).getCause();
        assertTrue(cause instanceof PerennialException error && error.getMessage().contains("closed"), cause.toString());
        assertThrows(PerennialException.class, () -> client.countdown(1).hasNext());
    }

    @Test
    void theDeadlineHoldsOverAllAttempts() {
        String path = server.numbers("a.log", 1);
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                ItemStream<Line, LineStreamEvent> stream = client.readLines(
                        lines(path).setFollow(true).build(), StreamOptions.defaults().withTimeout(Duration.ofSeconds(6)))) {
            long start = System.nanoTime();
            stream.next();
            server.kill();
            PerennialException thrown = assertThrows(PerennialException.class, stream::hasNext);
            double seconds = (System.nanoTime() - start) / 1e9;
            assertEquals(Status.Code.DEADLINE_EXCEEDED, thrown.code());
            assertTrue(seconds > 5.9 && seconds < 9, seconds + " s");
        }
    }

    @Test
    void aServerThatIsNotThereIsTriedForTheConnectTimeoutAndALostOneForTheOutage() {
        String path = server.numbers("a.log", 1);
        try (PerennialClient client = Server.connect(server.address())) {
            ItemStream<Line, LineStreamEvent> open = client.readLines(
                    lines(path).setFollow(true).build(), StreamOptions.defaults().withMaxOutage(Duration.ofSeconds(1)));
            open.next();
            server.kill();
            for (Duration limit : List.of(Duration.ZERO, Duration.ofSeconds(1))) {
                long start = System.nanoTime();
                ItemStream<Line, LineStreamEvent> stream = client.readLines(
                        lines(path).build(), StreamOptions.defaults().withConnectTimeout(limit));
                PerennialException thrown = assertThrows(PerennialException.class, stream::hasNext);
                assertEquals(Status.Code.UNAVAILABLE, thrown.code());
                assertTrue(System.nanoTime() - start < limit.plusSeconds(2).toNanos());
            }
            assertEquals(Status.Code.UNAVAILABLE, assertThrows(PerennialException.class, open::hasNext).code());
        }
    }

    @Test
    void aConnectionThatDiedInSilenceIsReplaced() throws IOException {
        String path = server.numbers("a.log", 2);
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                ItemStream<Line, LineStreamEvent> stream = client.readLines(path, request -> request
                        .setFollow(true)
                        .setHeartbeat(com.google.protobuf.Duration.newBuilder().setNanos(200_000_000)))) {
            stream.next();
            stream.next();
            proxy.stall();
            Files.writeString(server.logs.resolve("a.log"), "new\n", StandardOpenOption.APPEND);
            long start = System.nanoTime();
            assertEquals("new", stream.next().getText());
            double seconds = (System.nanoTime() - start) / 1e9;
            assertTrue(seconds > 4 && seconds < 9, seconds + " s");
            assertEquals(2, proxy.connections());
        }
    }

    @Test
    void aConsumerContinuesAfterItsCommit() {
        MessagesRequest request =
                MessagesRequest.newBuilder().addTopics("t").setEarliest(true).setConsumer("billing").setMaxBatch(1).build();
        try (PerennialClient client = Server.connect(server.address())) {
            for (int n = 0; n < 5; n++) {
                client.publish(PublishRequest.newBuilder().setTopic("t").setText("" + n).build());
            }
            List<String> got = new ArrayList<>();
            for (int run = 0; run < 3; run++) {
                try (ItemStream<StoredMessage, MessageStreamEvent> stream =
                        client.messages(request, StreamOptions.defaults())) {
                    got.add(stream.next().getText());
                    got.add(stream.next().getText());
                    stream.commit();
                    // It is read, and not committed.
                    if (run < 2) {
                        stream.next();
                    } else {
                        break;
                    }
                } catch (PerennialException error) {
                    throw new AssertionError("run " + run + " after " + got, error);
                }
                if (got.size() == 4) {
                    break;
                }
            }
            assertEquals(List.of("0", "1", "2", "3"), got);
            StreamOptions stored = StreamOptions.defaults().withStore(Store.memory());
            assertThrows(IllegalArgumentException.class, () -> client.messages(request, stored));

            StreamOptions commits = StreamOptions.defaults().withCommitEvery(Duration.ZERO);
            try (ItemStream<StoredMessage, MessageStreamEvent> stream = client.messages(request, commits)) {
                assertEquals("4", stream.next().getText());
            }
            // The item in hand was not done.
            assertEquals(4, client.listConsumers().get(0).getSequence());
            try (ItemStream<StoredMessage, MessageStreamEvent> first = client.messages(request, commits);
                    ItemStream<StoredMessage, MessageStreamEvent> second = client.messages(request, commits)) {
                first.next();
                second.next();
                PerennialException thrown = assertThrows(PerennialException.class, first::hasNext);
                assertEquals("CONSUMER_TAKEN_OVER", thrown.reason());
            }
        }
    }

    @Test
    void unaryCallsListAllPagesAndGiveTypedErrors() {
        try (PerennialClient client = Server.connect(server.address())) {
            server.numbers("b.log", 1);
            assertEquals(List.of("logs/b.log"), client.listFiles("").stream().map(file -> file.getPath()).toList());
            PerennialException missing = assertThrows(PerennialException.class, () -> client.getCountdown("launch"));
            assertEquals("COUNTDOWN_NOT_FOUND", missing.reason());
            PerennialException wrong = assertThrows(
                    PerennialException.class, () -> client.publish(PublishRequest.newBuilder().setTopic("a b").build()));
            assertEquals("topic", wrong.field());
            assertEquals(Status.Code.INVALID_ARGUMENT, wrong.code());
        }
    }
}
