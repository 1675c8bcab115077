package dev.perennial.client;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** The waits between attempts: a random time up to a bound that doubles, so that the readers of a restarted server return spread out. */
final class Backoff {
    private static final long FIRST_MILLIS = 100;
    private static final long LONGEST_MILLIS = 2_000;

    private long boundMillis = FIRST_MILLIS;

    /** The next wait, and at least the one that the error asks for. */
    Duration next(PerennialException error) {
        long millis = ThreadLocalRandom.current().nextLong(boundMillis + 1);
        boundMillis = Math.min(2 * boundMillis, LONGEST_MILLIS);
        Duration wait = Duration.ofMillis(millis);
        Duration asked = error.retryDelay().orElse(Duration.ZERO);
        return wait.compareTo(asked) < 0 ? asked : wait;
    }

    /** A response arrived. */
    void reset() {
        boundMillis = FIRST_MILLIS;
    }
}
