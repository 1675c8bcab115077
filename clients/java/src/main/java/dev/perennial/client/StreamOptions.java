package dev.perennial.client;

import java.time.Duration;
import java.util.Objects;

/**
 * How a stream is read. Each method returns new options with one value changed.
 *
 * @param store where the state is kept, or null
 * @param saveEvery the least time between two saves; zero: save after each item
 * @param state the state to start from, or null
 * @param timeout the deadline of the whole stream, or null
 * @param connectTimeout how long the first response is tried for, or null for the value of the client
 * @param maxOutage how long a stream that was open is tried again, or null for the value of the client
 * @param commitEvery the least time between two commits of a consumer, or null for none by itself
 */
public record StreamOptions(
        Store store,
        Duration saveEvery,
        String state,
        Duration timeout,
        Duration connectTimeout,
        Duration maxOutage,
        Duration commitEvery) {
    private static final StreamOptions DEFAULTS = new StreamOptions(null, Duration.ZERO, null, null, null, null, null);

    /**
     * Checks the values.
     *
     * @param store where the state is kept, or null
     * @param saveEvery the least time between two saves; zero: save after each item
     * @param state the state to start from, or null
     * @param timeout the deadline of the whole stream, or null
     * @param connectTimeout how long the first response is tried for, or null for the value of the client
     * @param maxOutage how long a stream that was open is tried again, or null for the value of the client
     * @param commitEvery the least time between two commits of a consumer, or null for none by itself
     */
    public StreamOptions {
        Objects.requireNonNull(saveEvery, "saveEvery");
        if (store != null && state != null) {
            throw new IllegalArgumentException("a stream has a store or a state to start from, not both");
        }
    }

    /**
     * The defaults: no store, no deadline, and no end of the attempts to connect again.
     *
     * @return the options
     */
    public static StreamOptions defaults() {
        return DEFAULTS;
    }

    /**
     * Keeps the state of the stream in a store, and starts from the state that it has. A store serves one stream.
     *
     * @param store the store
     * @return the options
     */
    public StreamOptions withStore(Store store) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Saves the state at most this often. After a crash the items since the last save come again. The default is zero: the
     * state is saved after each item, before the next one is handed out.
     *
     * @param saveEvery the least time between two saves
     * @return the options
     */
    public StreamOptions withSaveEvery(Duration saveEvery) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Starts from a state, as {@link PerennialStream#state()} returned it, or from a bare cursor.
     *
     * @param state the state
     * @return the options
     */
    public StreamOptions withState(String state) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Ends the stream with {@code DEADLINE_EXCEEDED} after this time, over all attempts.
     *
     * @param timeout the deadline, counted from the first item that is asked for
     * @return the options
     */
    public StreamOptions withTimeout(Duration timeout) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Tries to open the stream for this long. The default is that of the client: 10 s.
     *
     * @param connectTimeout the time; zero: one attempt
     * @return the options
     */
    public StreamOptions withConnectTimeout(Duration connectTimeout) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Ends a stream that was open with the last error, when the server did not answer for this long. The default is that of
     * the client: never.
     *
     * @param maxOutage the time
     * @return the options
     */
    public StreamOptions withMaxOutage(Duration maxOutage) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }

    /**
     * Commits the cursor of a consumer at most this often, when an item is asked for, and when the stream is closed.
     *
     * @param commitEvery the least time between two commits; zero: after each response
     * @return the options
     */
    public StreamOptions withCommitEvery(Duration commitEvery) {
        return new StreamOptions(store, saveEvery, state, timeout, connectTimeout, maxOutage, commitEvery);
    }
}
