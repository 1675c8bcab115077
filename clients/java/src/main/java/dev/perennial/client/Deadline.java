package dev.perennial.client;

import java.time.Duration;

/** The deadline of a whole stream, over all attempts. */
final class Deadline {
    /** Null: none. */
    private final Duration timeout;

    private long end;

    Deadline(Duration timeout) {
        this.timeout = timeout;
    }

    void begin() {
        end = timeout == null ? 0 : System.nanoTime() + Times.nanos(timeout);
    }

    /** The nanoseconds that are left, or null without a deadline. */
    Long rest() {
        if (timeout == null) {
            return null;
        }
        long rest = end - System.nanoTime();
        if (rest <= 0) {
            throw passed();
        }
        return rest;
    }

    PerennialException passed() {
        return Errors.deadline(timeout);
    }
}
