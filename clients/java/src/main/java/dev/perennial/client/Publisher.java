package dev.perennial.client;

import dev.perennial.v1.PublishRequest;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;

/**
 * Publishes messages in their order, each once, over as many connections as it takes.
 *
 * <p>{@link #publish} returns at once with a receipt to come, and blocks only while 8,192 messages or 16 MiB are
 * unanswered. A message without an id gets one. After a lost connection the unanswered messages are sent again with their
 * ids, so that the server publishes none of them twice. A message that the server refuses fails alone, and those after it
 * are published.
 *
 * <p>If no server accepts the publisher for the client's {@link ClientBuilder#connectTimeout} after its first message, or the
 * connection cannot be used any more, every unanswered receipt fails with the reason, and so does each message after that. A
 * server that was reached once is tried again without limit. A receipt fails with an {@link OutcomeUnknownException} if its message was sent, its answer was lost, and the
 * server may have forgotten its id before it could be sent again. A message that was never sent has no such limit.
 *
 * <p>Any number of threads may publish. Actions that are attached to a receipt run on the thread of the publisher, unless
 * they are given an executor: they must not block. Where {@link #publish}, {@link #flush} or {@link #close} would wait on that
 * thread, they throw an {@link IllegalStateException}.
 */
public final class Publisher implements AutoCloseable {
    /** The time for which a server remembers an id, unless its operator changed it. */
    static final Duration DEDUPE_WINDOW = Duration.ofMinutes(2);

    private final Flow flow;

    Publisher(PerennialClient client, Duration dedupeWindow) {
        flow = new Flow(client, dedupeWindow, this);
        flow.start();
    }

    /**
     * Publishes a message after those before it. Blocks while too much is unanswered.
     *
     * @param message the message
     * @return the answer to come; it completes when the message is on disk
     * @throws PerennialException if the publisher has failed
     * @throws IllegalStateException if the publisher is closed
     */
    public CompletableFuture<Receipt> publish(PublishRequest message) {
        return flow.publish(message);
    }

    /**
     * Publishes a text.
     *
     * @param topic the topic
     * @param text the text
     * @return the answer to come
     */
    public CompletableFuture<Receipt> publish(String topic, String text) {
        return publish(PublishRequest.newBuilder().setTopic(topic).setText(text).build());
    }

    /**
     * Waits until every message has its answer. Look at the receipts for those that were refused.
     *
     * @throws PerennialException if the publisher has failed
     */
    public void flush() {
        flow.flush();
    }

    /** Ends the publisher at once. Receipts without an answer are cancelled; their messages may be published or not. */
    public void cancel() {
        flow.cancel();
    }

    /**
     * Waits until every message has its answer, and ends the publisher.
     *
     * @throws PerennialException if the publisher has failed, and neither {@link #publish} nor {@link #flush} has said so
     */
    @Override
    public void close() {
        flow.close();
    }
}
