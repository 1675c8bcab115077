package dev.perennial.client;

import dev.perennial.v1.ErrorReason;
import io.grpc.Status;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * Why a call or a stream failed.
 *
 * <p>An error that the server made has a {@linkplain #reason() reason} and facts in its {@linkplain #metadata() metadata}.
 * An error of the transport, of a proxy or of this library has none.
 */
public class PerennialException extends RuntimeException {
    private static final long serialVersionUID = 1;

    /** The gRPC code. */
    private final Status.Code code;

    /** The name of the reason, or an empty text. */
    private final String reason;

    /** The field that is wrong, or an empty text. */
    private final String field;

    private final transient Map<String, String> metadata;

    /** The delay that the server asks for, or null. */
    private final Duration retryDelay;

    /** Whether the same call may succeed later. */
    private final boolean retryable;

    PerennialException(
            Status.Code code,
            String reason,
            String field,
            Map<String, String> metadata,
            String message,
            Duration retryDelay,
            boolean retryable,
            Throwable cause) {
        super(message, cause);
        this.code = code;
        this.reason = reason;
        this.field = field;
        this.metadata = Map.copyOf(metadata);
        this.retryDelay = retryDelay;
        this.retryable = retryable;
    }

    /** An error that this library makes, and that is not retried. */
    PerennialException(Status.Code code, String message, Throwable cause) {
        this(code, "", "", Map.of(), message, null, false, cause);
    }

    /**
     * Returns the gRPC code.
     *
     * @return the code
     */
    public Status.Code code() {
        return code;
    }

    /**
     * Returns the reason that the server gave, such as {@code CURSOR_EXPIRED}.
     *
     * @return the name of the reason; empty if the error has none
     */
    public String reason() {
        return reason;
    }

    /**
     * Returns the reason as a constant of the contract.
     *
     * @return the constant; empty if the error has no reason, or one that this version does not know
     */
    public Optional<ErrorReason> knownReason() {
        for (ErrorReason known : ErrorReason.values()) {
            if (known.name().equals(reason) && known != ErrorReason.UNRECOGNIZED) {
                return Optional.of(known);
            }
        }
        return Optional.empty();
    }

    /**
     * Returns the field of the request that is wrong.
     *
     * @return the name of the field in the contract; empty if no field is wrong
     */
    public String field() {
        return field;
    }

    /**
     * Returns facts for programs, such as {@code limit} or {@code oldest}.
     *
     * @return the facts by their names; empty if there are none
     */
    public Map<String, String> metadata() {
        return metadata == null ? Map.of() : metadata;
    }

    /**
     * Returns the delay that the server asks for.
     *
     * @return the delay; empty if the server gave none
     */
    public Optional<Duration> retryDelay() {
        return Optional.ofNullable(retryDelay);
    }

    /**
     * Returns whether the same call, with the last cursor, may succeed later.
     *
     * @return true if it may
     */
    public boolean isRetryable() {
        return retryable;
    }

    @Override
    public String toString() {
        String about = reason.isEmpty() ? code.toString() : code + " (" + reason + ")";
        return getClass().getName() + ": " + about + ": " + getMessage();
    }
}
