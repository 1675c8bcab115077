package dev.perennial.client;

import java.time.Duration;
import java.util.function.Consumer;

/** Decides after which failures to try again and how long to wait before, and notifies the observer. */
final class Retries {
    /** The first response of a call may take longer by this, for the connection. */
    private static final Duration CONNECTING = Duration.ofSeconds(10);

    private final ConnectionObserver observer;
    private final Duration connectTimeout;
    /** Null: for ever. */
    private final Duration maxOutage;

    private final Backoff backoff = new Backoff();
    private boolean hasAnswered;
    private boolean isInterrupted;
    private boolean isFirstResponse = true;
    /** When the wait for a response began, with an attempt or with the failure of one; null if there is none. */
    private Long since;

    Retries(ConnectionObserver observer, Duration connectTimeout, Duration maxOutage) {
        this.observer = observer;
        this.connectTimeout = connectTimeout;
        this.maxOutage = maxOutage;
    }

    /** An attempt begins. */
    void opened() {
        isFirstResponse = true;
        if (since == null) {
            since = System.nanoTime();
        }
    }

    /**
     * How long the next response is awaited. The first one of an attempt may take longer, for the connection, but not longer
     * than the caller's limit.
     */
    Duration patience(Duration silence) {
        return isFirstResponse ? Times.least(silence.plus(CONNECTING), rest()) : silence;
    }

    /** How long the caller still allows to wait for the first response of this attempt. */
    Duration rest() {
        Duration limit = limit();
        if (limit == null) {
            return Times.LONGEST;
        }
        // A limit of zero allows one attempt, which has the time to connect.
        long rest = Times.nanos(limit.isZero() ? CONNECTING : limit) - (System.nanoTime() - since);
        return Duration.ofNanos(Math.max(0, rest));
    }

    /** Whether the attempt in hand had no response yet. */
    boolean isFirstResponse() {
        return isFirstResponse;
    }

    private Duration limit() {
        return hasAnswered ? maxOutage : connectTimeout;
    }

    /** A response arrived: the next failure starts with a short wait again. */
    void delivered() {
        hasAnswered = true;
        isFirstResponse = false;
        since = null;
        backoff.reset();
        if (isInterrupted) {
            isInterrupted = false;
            observer.resumed();
        }
    }

    /** The server has accepted a call: from now on it is known to be there. */
    void accepted() {
        hasAnswered = true;
    }

    /** Waits before the next attempt, or throws the error if there should be no other attempt. */
    void waitOut(PerennialException error, Consumer<Duration> pause) {
        if (!error.isRetryable()) {
            throw error;
        }
        long now = System.nanoTime();
        if (since == null) {
            since = now;
        }
        Duration limit = limit();
        Duration wait = backoff.next(error);
        if (limit != null && now - since + Times.nanos(wait) >= Times.nanos(limit)) {
            throw error;
        }
        isInterrupted = true;
        observer.interrupted(error, wait);
        pause.accept(wait);
    }
}
