package dev.perennial.client;

import java.time.Duration;
import java.util.function.Consumer;

/** Decides after which failures to try again and how long to wait before, and notifies the observer. */
final class Retries {
    private final ConnectionObserver observer;
    private final Duration connectTimeout;
    /** Null: for ever. */
    private final Duration maxOutage;

    private final Backoff backoff = new Backoff();
    private boolean hasAnswered;
    private boolean isInterrupted;
    private boolean isFirstResponse = true;
    /** When the first attempt since the last response began, or failed; null if none did. */
    private Long since;

    Retries(ConnectionObserver observer, Duration connectTimeout, Duration maxOutage) {
        this.observer = observer;
        this.connectTimeout = connectTimeout;
        this.maxOutage = maxOutage;
    }

    /** An attempt begins. */
    void opened() {
        isFirstResponse = true;
        if (!hasAnswered && since == null) {
            since = System.nanoTime();
        }
    }

    /** Whether the attempt in hand had no response yet. */
    boolean isFirstResponse() {
        return isFirstResponse;
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

    /** Waits before the next attempt, or throws the error if there should be no other attempt. */
    void waitOut(PerennialException error, Consumer<Duration> pause) {
        if (!error.isRetryable()) {
            throw error;
        }
        long now = System.nanoTime();
        if (since == null) {
            since = now;
        }
        Duration limit = hasAnswered ? maxOutage : connectTimeout;
        Duration wait = backoff.next(error);
        if (limit != null && now - since + wait.toNanos() >= limit.toNanos()) {
            throw error;
        }
        isInterrupted = true;
        observer.interrupted(error, wait);
        pause.accept(wait);
    }
}
