package dev.perennial.client;

import dev.perennial.v1.PublishRequest;
import java.util.concurrent.CompletableFuture;

/** A message of a {@link Flow} and its answer. */
final class Entry {
    final PublishRequest message;
    final int bytes;
    final CompletableFuture<Receipt> receipt = new CompletableFuture<>();
    /** When it was sent first; 0: never. */
    long sentAt;
    /** Whether an earlier call has sent it first. */
    boolean isAgain;

    Entry(PublishRequest message) {
        this.message = message;
        bytes = message.getSerializedSize();
    }
}
