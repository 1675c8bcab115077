package dev.perennial.client;

import com.google.protobuf.Message;
import io.grpc.Status;

/**
 * Items of the stream are missing. A stream {@linkplain ItemStream#withEvents() with events} yields the gap as a value
 * instead, and continues.
 */
public final class GapException extends PerennialException {
    private static final long serialVersionUID = 1;

    /** A {@code LineGap} or a {@code MessageGap}. */
    private final transient Message gap;

    GapException(Message gap) {
        super(Status.Code.DATA_LOSS, "items are missing: " + describe(gap), null);
        this.gap = gap;
    }

    private static String describe(Message gap) {
        return gap.toString().strip().replaceAll("\\s*\\n\\s*", ", ");
    }

    /**
     * Returns the facts: a {@link dev.perennial.v1.LineGap} or a {@link dev.perennial.v1.MessageGap}.
     *
     * @return the gap
     */
    public Message gap() {
        return gap;
    }
}
