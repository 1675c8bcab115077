package dev.perennial.client;

import dev.perennial.v1.CommitCursorRequest;
import dev.perennial.v1.MessageServiceGrpc;
import java.time.Duration;

/** The position of a consumer on the server. */
final class Commits {
    /** How long a stream that is closed tries its last commit. */
    private static final Duration LAST = Duration.ofSeconds(2);

    private final PerennialClient client;
    private final String consumer;
    /** Null: only when the caller asks for it. */
    private final Duration every;

    private String committed;
    private long committedAt = System.nanoTime();

    /** Of a stream without a consumer if the name is null. */
    Commits(PerennialClient client, String consumer, Duration every) {
        this.client = client;
        this.consumer = consumer;
        this.every = consumer == null ? null : every;
    }

    boolean hasConsumer() {
        return consumer != null;
    }

    void ifDue(String cursor) {
        if (every != null && System.nanoTime() - committedAt >= Times.nanos(every)) {
            commit(cursor);
        }
    }

    /** The last commit, at the end of the stream. */
    void atEnd(String cursor) {
        if (every != null) {
            commit(cursor);
        }
    }

    /** The last commit, when the stream is closed; that does not wait long for a server that is away. */
    void atClose(String cursor) {
        if (every != null) {
            commit(cursor, LAST);
        }
    }

    void commit(String cursor) {
        commit(cursor, client.callTimeout());
    }

    private void commit(String cursor, Duration timeout) {
        committedAt = System.nanoTime();
        if (cursor == null || cursor.equals(committed)) {
            return;
        }
        CommitCursorRequest request =
                CommitCursorRequest.newBuilder().setConsumer(consumer).setCursor(cursor).build();
        UnaryCall.make(client, MessageServiceGrpc.getCommitCursorMethod(), request, timeout);
        committed = cursor;
    }
}
