package dev.perennial.client;

import io.grpc.Status;

/**
 * A message may or may not have been published. The connection was lost after it was sent, and the server no longer
 * remembers its id for certain, so it was not sent again.
 */
public final class OutcomeUnknownException extends PerennialException {
    private static final long serialVersionUID = 1;

    OutcomeUnknownException(String messageId) {
        super(
                Status.Code.UNKNOWN,
                "the message " + messageId + " may have been published: its answer was lost, and it cannot be repeated "
                        + "safely after the dedupe window; read its topic to find out",
                null);
    }
}
