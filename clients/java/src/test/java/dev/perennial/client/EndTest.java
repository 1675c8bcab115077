package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.perennial.v1.Line;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.MessagesRequest;
import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.ReadLinesRequest;
import dev.perennial.v1.StoredMessage;
import io.grpc.Status;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** How streams end early, and what their states are then. */
@Timeout(60)
class EndTest {
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

    private static ReadLinesRequest follow(String path) {
        return ReadLinesRequest.newBuilder().setPath(path).setFollow(true).build();
    }

    private static double secondsOf(Runnable work) {
        long start = System.nanoTime();
        work.run();
        return (System.nanoTime() - start) / 1e9;
    }

    /** A state within a file that was rotated, and a line that was written to the older file after that. */
    private String stateBeforeALateLine(PerennialClient client, ReadLinesRequest request) throws IOException {
        Path log = server.logs.resolve("a.log");
        Path old = server.logs.resolve("a.log.1");
        Files.writeString(log, "an old line, so that offsets in the old file are above those of the new one\n");
        String state;
        try (ItemStream<Line, LineStreamEvent> stream = client.readLines(request, StreamOptions.defaults())) {
            stream.next();
            state = stream.state().orElseThrow();
        }
        Files.move(log, old);
        Files.writeString(log, "new 0\nnew 1\nnew 2\n");
        try (ItemStream<Line, LineStreamEvent> stream =
                client.readLines(request, StreamOptions.defaults().withState(state))) {
            assertEquals("new 0", stream.next().getText());
            state = stream.state().orElseThrow();
        }
        Files.writeString(old, "late\n", StandardOpenOption.APPEND);
        return state;
    }

    @Test
    void aLateLineDoesNotMoveTheStateBackOrBeyondTheLinesAfterIt() throws IOException {
        ReadLinesRequest request = follow("logs/a.log");
        try (PerennialClient client = Server.connect(server.address())) {
            String begin = stateBeforeALateLine(client, request);
            String atLate;
            try (ItemStream<Line, LineStreamEvent> stream =
                    client.readLines(request, StreamOptions.defaults().withState(begin))) {
                assertEquals("late", stream.next().getText());
                atLate = stream.state().orElseThrow();
            }
            try (ItemStream<Line, LineStreamEvent> stream =
                    client.readLines(request, StreamOptions.defaults().withState(atLate))) {
                assertEquals("new 1", stream.next().getText(), atLate);
            }

            MemoryStore store = new MemoryStore();
            store.save(begin);
            try (ItemStream<Line, LineStreamEvent> stream =
                    client.readLines(request, StreamOptions.defaults().withStore(store))) {
                assertEquals("late", stream.next().getText());
                // It is in hand, and not done.
                assertEquals("new 1", stream.next().getText());
            }
            List<String> rest = new ArrayList<>();
            try (ItemStream<Line, LineStreamEvent> stream =
                    client.readLines(request, StreamOptions.defaults().withStore(store))) {
                rest.add(stream.next().getText());
                rest.add(stream.next().getText());
            }
            assertEquals(List.of("new 1", "new 2"), rest);
        }
    }

    @Test
    void aServerThatAcceptsAndSaysNothingIsTriedAsLongAsTheCallerAllows() {
        String path = server.numbers("a.log", 1);
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                ItemStream<Line, LineStreamEvent> open = client.readLines(
                        follow(path), StreamOptions.defaults().withMaxOutage(Duration.ofSeconds(1)))) {
            open.next();
            proxy.mute(true);
            proxy.cut();
            ItemStream<Line, LineStreamEvent> other = client.readLines(
                    follow(path), StreamOptions.defaults().withConnectTimeout(Duration.ofSeconds(1)));
            for (ItemStream<Line, LineStreamEvent> stream : List.of(open, other)) {
                double seconds = secondsOf(() -> {
                    PerennialException thrown = assertThrows(PerennialException.class, stream::hasNext);
                    assertEquals(Status.Code.UNAVAILABLE, thrown.code());
                });
                assertTrue(seconds < 5, seconds + " s");
            }
        }
    }

    @Test
    void timesWithoutAnEndAreAllowed() {
        String path = server.numbers("a.log", 2);
        Duration forEver = Duration.ofSeconds(Long.MAX_VALUE);
        StreamOptions options = StreamOptions.defaults()
                .withTimeout(forEver)
                .withConnectTimeout(forEver)
                .withMaxOutage(forEver)
                .withStore(Store.memory())
                .withSaveEvery(forEver);
        ReadLinesRequest request = ReadLinesRequest.newBuilder().setPath(path).build();
        try (PerennialClient client = PerennialClient.builder(server.address())
                        .callTimeout(forEver)
                        .connectTimeout(forEver)
                        .build();
                Stream<Line> lines = client.readLines(request, options).stream();
                Publisher publisher = client.publisher(forEver)) {
            assertEquals(List.of("0", "1"), lines.map(Line::getText).toList());
            publisher.publish("t", "x").join();
            assertEquals(1, client.listTopics("t").size());
            // The server says what is wrong, and not the library.
            com.google.protobuf.Duration longest =
                    com.google.protobuf.Duration.newBuilder().setSeconds(Long.MAX_VALUE).build();
            ReadLinesRequest wrong = request.toBuilder().setHeartbeat(longest).build();
            PerennialException thrown = assertThrows(
                    PerennialException.class, () -> client.readLines(wrong, StreamOptions.defaults()).hasNext());
            assertEquals("heartbeat", thrown.field());
        }
    }

    private static MessagesRequest consumer() {
        return MessagesRequest.newBuilder().addTopics("t").setEarliest(true).setConsumer("billing").setMaxBatch(1).build();
    }

    @Test
    void aCloseByAnotherThreadCommitsWhatIsDone() throws Exception {
        StreamOptions options = StreamOptions.defaults().withCommitEvery(Duration.ofHours(1));
        try (PerennialClient client = Server.connect(server.address())) {
            for (int n = 0; n < 3; n++) {
                client.publish(PublishRequest.newBuilder().setTopic("t").setText("" + n).build());
            }
            ItemStream<StoredMessage, MessageStreamEvent> stream = client.messages(consumer(), options);
            CompletableFuture<Boolean> reader = CompletableFuture.supplyAsync(() -> {
                for (int n = 0; n < 3; n++) {
                    stream.next();
                }
                return stream.hasNext();
            });
            Thread.sleep(1_000);
            assertTrue(!reader.isDone());
            stream.close();
            Throwable cause = assertThrows(ExecutionException.class, () -> reader.get(5, TimeUnit.SECONDS)).getCause();
            assertInstanceOf(CancellationException.class, cause);
            assertEquals(3, client.listConsumers().get(0).getSequence());
        }
    }

    @Test
    void theLastCommitHoldsUpACloseForTwoSecondsAndHidesNoError() {
        StreamOptions options = StreamOptions.defaults()
                .withCommitEvery(Duration.ofHours(1))
                .withMaxOutage(Duration.ofMillis(300));
        try (PerennialClient client = Server.connect(server.address())) {
            client.publish(PublishRequest.newBuilder().setTopic("t").setText("0").build());
            ItemStream<StoredMessage, MessageStreamEvent> failed = client.messages(consumer(), options);
            failed.next();
            server.kill();
            assertThrows(PerennialException.class, failed::hasNext);
            assertTrue(secondsOf(failed::close) < 4);
        }
    }
}
