package dev.perennial.client;

import io.grpc.Status;

/** A saved state cannot be used. The stream does not begin anew: restore the state, or delete it to start from the beginning. */
public final class StateException extends PerennialException {
    private static final long serialVersionUID = 1;

    StateException(String message) {
        this(message, null);
    }

    StateException(String message, Throwable cause) {
        super(Status.Code.FAILED_PRECONDITION, message, cause);
    }
}
