package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.StoredMessage;
import io.grpc.Status;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
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
                PerennialClient client = Server.connect(proxy.address())) {
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
        try (PerennialClient client = Server.connect(server.address());
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
                PerennialClient client = Server.connect(proxy.address());
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
                PerennialClient client = Server.connect(proxy.address());
                Publisher publisher = client.publisher(Duration.ofSeconds(41))) {
            publisher.publish("t", "1").join();
            proxy.stall();
            CompletableFuture<Receipt> unknown = publisher.publish("t", "2");
            // It is sent, and its answer is held.
            try (PerennialClient direct = Server.connect(server.address())) {
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
    void aMessageThatWasNeverSentIsSentWheneverTheServerIsThere() throws InterruptedException {
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                Publisher publisher = client.publisher(Duration.ofSeconds(1))) {
            // The connection is accepted, and is none of HTTP/2 yet.
            proxy.mute(true);
            CompletableFuture<Receipt> receipt = publisher.publish("t", "1");
            Thread.sleep(1_500);
            proxy.cut();
            proxy.mute(false);
            assertFalse(receipt.join().duplicate());
        }
    }

    @Test
    void aMessageThatIsForgottenWhileTheConnectionIsMadeIsNotSentAgain() throws InterruptedException {
        server.close();
        server = new Server(directory, "--dedupe-window", "1s");
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                Publisher publisher = client.publisher(Duration.ofSeconds(41))) {
            publisher.publish("t", "1").join();
            proxy.mute(true);
            CompletableFuture<Receipt> unknown = publisher.publish("t", "2");
            try (PerennialClient direct = Server.connect(server.address())) {
                while (published(direct).size() < 2) {
                    Thread.sleep(20);
                }
            }
            // The next call begins early enough. Its connection stands too late.
            proxy.cut();
            Thread.sleep(2_500);
            proxy.mute(false);
            Throwable thrown = assertThrows(CompletionException.class, unknown::join).getCause();
            assertInstanceOf(OutcomeUnknownException.class, thrown);
            publisher.publish("t", "3").join();
            assertEquals(List.of("1", "2", "3"), published(client));
        }
    }

    @Test
    void aServerThatAcceptsAndSaysNothingIsTriedForTheConnectTimeout() {
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = PerennialClient.builder(proxy.address())
                        .connectTimeout(Duration.ofSeconds(1))
                        .build()) {
            proxy.mute(true);
            Publisher publisher = client.publisher();
            long start = System.nanoTime();
            CompletableFuture<Receipt> receipt = publisher.publish("t", "1");
            Throwable cause = assertThrows(CompletionException.class, receipt::join).getCause();
            assertEquals(Status.Code.UNAVAILABLE, assertInstanceOf(PerennialException.class, cause).code());
            double seconds = (System.nanoTime() - start) / 1e9;
            assertTrue(seconds > 0.9 && seconds < 5, seconds + " s");
        }
    }

    @Test
    void anActionOfAReceiptCannotWaitForItself() {
        try (Proxy proxy = new Proxy(server);
                PerennialClient client = Server.connect(proxy.address());
                Publisher publisher = client.publisher()) {
            for (Runnable waits : List.<Runnable>of(publisher::flush, publisher::close)) {
                // Until the action is attached there is no answer, so that it runs on the thread of the publisher.
                proxy.mute(true);
                CompletableFuture<Void> action = publisher.publish("t", "1").thenRun(waits);
                proxy.mute(false);
                Throwable cause = assertThrows(ExecutionException.class, () -> action.get(20, TimeUnit.SECONDS)).getCause();
                assertInstanceOf(IllegalStateException.class, cause);
            }
            publisher.publish("t", "2").join();
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
            assertEquals(Status.Code.UNAVAILABLE, assertInstanceOf(PerennialException.class, cause).code());
            PerennialException thrown = assertThrows(PerennialException.class, () -> {
                try (publisher) {
                    publisher.flush();
                }
            });
            assertEquals(cause, thrown);
            assertThrows(PerennialException.class, () -> publisher.publish("t", "2"));
            Publisher other = client.publisher();
            assertThrows(CompletionException.class, other.publish("t", "1")::join);
            assertThrows(PerennialException.class, other::close);
        }
    }

    @Test
    void aClosedPublisherTakesNothingAndACancelledOneEndsItsReceipts() {
        try (PerennialClient client = Server.connect(server.address())) {
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
