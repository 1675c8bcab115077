package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.StoredMessage;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(120)
class PublisherTest {
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

    private static List<String> published(PerennialClient client) {
        try (var messages = client.messages("t", request -> request.setEarliest(true).setUntilCaughtUp(true))) {
            return messages.stream().map(StoredMessage::getText).toList();
        }
    }

    @Test
    void messagesAreInOrderAndOnceWhereverTheConnectionIsCut() {
        int count = 30_000;
        List<CompletableFuture<Receipt>> receipts = new ArrayList<>();
        try (Proxy proxy = new Proxy(server).cutWithin(150_000);
                PerennialClient client = PerennialClient.connect(proxy.address())) {
            try (Publisher publisher = client.publisher()) {
                for (int n = 0; n < count; n++) {
                    receipts.add(publisher.publish("t", Integer.toString(n)));
                    if (n == count / 2) {
                        server.kill();
                        server.start();
                    }
                }
            }
            assertTrue(proxy.connections() > 3, proxy.connections() + " connections");
            proxy.cutWithin(0);
            long last = 0;
            for (CompletableFuture<Receipt> receipt : receipts) {
                assertTrue(receipt.join().sequence() > last);
                last = receipt.join().sequence();
            }
            assertEquals(IntStream.range(0, count).mapToObj(Integer::toString).toList(), published(client));
        }
    }

    @Test
    void aMessageThatIsRefusedFailsAloneAndAnIdOfTheCallerIsKept() {
        try (PerennialClient client = PerennialClient.connect(server.address());
                Publisher publisher = client.publisher()) {
            CompletableFuture<Receipt> first = publisher.publish("t", "1");
            CompletableFuture<Receipt> refused = publisher.publish("a b", "2");
            PublishRequest own = PublishRequest.newBuilder().setTopic("t").setText("3").setMessageId("mine").build();
            CompletableFuture<Receipt> third = publisher.publish(own);
            CompletableFuture<Receipt> again = publisher.publish(own);
            publisher.flush();
            assertFalse(first.join().duplicate());
            Throwable cause = assertThrows(CompletionException.class, refused::join).getCause();
            assertEquals("topic", assertInstanceOf(PerennialException.class, cause).field());
            assertTrue(again.join().duplicate());
            assertEquals(third.join().sequence(), again.join().sequence());
            assertEquals(List.of("1", "3"), published(client));
        }
    }

    @Test
    void theWindowIsBounded() throws Exception {
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = PerennialClient.connect(proxy.address());
                Publisher publisher = client.publisher()) {
            publisher.publish("t", "first").join();
            proxy.stall();
            CompletableFuture<Void> writer = CompletableFuture.runAsync(() -> {
                for (int n = 0; n < 8_192; n++) {
                    publisher.publish("t", "x");
                }
            });
            writer.get(30, TimeUnit.SECONDS);
            CompletableFuture<?> beyond = CompletableFuture.supplyAsync(() -> publisher.publish("t", "beyond"));
            assertThrows(TimeoutException.class, () -> beyond.get(500, TimeUnit.MILLISECONDS));
            proxy.cut();
            beyond.get(30, TimeUnit.SECONDS);
            publisher.flush();
            assertEquals(8_194, published(client).size());
        }
    }

    @Test
    void aMessageThatTheServerMayHaveForgottenIsNotSentAgain() throws InterruptedException {
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = PerennialClient.connect(proxy.address());
                Publisher publisher = client.publisher(Duration.ofSeconds(11))) {
            publisher.publish("t", "1").join();
            proxy.stall();
            CompletableFuture<Receipt> unknown = publisher.publish("t", "2");
            // It is sent, and its answer is held.
            try (PerennialClient direct = PerennialClient.connect(server.address())) {
                while (published(direct).size() < 2) {
                    Thread.sleep(20);
                }
            }
            Thread.sleep(1_200);
            proxy.cut();
            CompletableFuture<Receipt> later = publisher.publish("t", "3");
            assertInstanceOf(
                    OutcomeUnknownException.class, assertThrows(CompletionException.class, unknown::join).getCause());
            later.join();
            assertEquals(List.of("1", "2", "3"), published(client));
        }
    }

    @Test
    void aPublisherWithoutAServerFails() {
        server.kill();
        try (PerennialClient client = PerennialClient.builder(server.address())
                .connectTimeout(Duration.ofMillis(500))
                .build()) {
            Publisher publisher = client.publisher();
            CompletableFuture<Receipt> receipt = publisher.publish("t", "1");
            Throwable cause = assertThrows(CompletionException.class, receipt::join).getCause();
            assertTrue(cause.getMessage().contains("refused"), cause.getMessage());
            assertThrows(PerennialException.class, publisher::flush);
            assertThrows(PerennialException.class, () -> publisher.publish("t", "2"));
            assertThrows(PerennialException.class, publisher::close);
        }
    }

    @Test
    void aClosedPublisherTakesNothingAndACancelledOneEndsItsReceipts() {
        try (PerennialClient client = PerennialClient.connect(server.address())) {
            Publisher closed = client.publisher();
            closed.close();
            assertThrows(IllegalStateException.class, () -> closed.publish("t", "1"));
            server.kill();
            Publisher cancelled = client.publisher();
            CompletableFuture<Receipt> receipt = cancelled.publish("t", "1");
            cancelled.cancel();
            assertThrows(Exception.class, receipt::join);
            cancelled.close();
        }
    }
}
