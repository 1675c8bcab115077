package dev.perennial.client;

import java.time.Duration;

/** Gets notice of each interruption of a stream, and of its end. A method must return soon and must not throw. */
public interface ConnectionObserver {
    /**
     * The stream was lost, and is opened again after {@code wait}.
     *
     * @param error the reason
     * @param wait the time until the next attempt
     */
    default void interrupted(PerennialException error, Duration wait) {}

    /** The first response after an interruption arrived. */
    default void resumed() {}
}
