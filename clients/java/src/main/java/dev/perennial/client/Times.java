package dev.perennial.client;

import java.time.Duration;

/** Times of the caller, of which some mean "for ever". */
final class Times {
    /** 146 years: it can be added to {@link System#nanoTime()} and compared with other such sums. */
    static final Duration LONGEST = Duration.ofNanos(Long.MAX_VALUE / 2);

    private Times() {}

    static long nanos(Duration duration) {
        return duration.isNegative() ? 0 : least(duration, LONGEST).toNanos();
    }

    static Duration least(Duration one, Duration other) {
        return one.compareTo(other) < 0 ? one : other;
    }
}
