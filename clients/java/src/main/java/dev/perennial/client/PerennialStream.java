package dev.perennial.client;

import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * A stream that resumes by itself, as an iterator that is closed.
 *
 * <p>It opens when the first value is asked for. After an error that may pass it waits, opens again, and continues: within
 * a process each value comes once. {@link #hasNext()} waits for a value, for hours if need be, and returns false where the
 * request asked for an end. An error that does not pass is thrown as a {@link PerennialException}.
 *
 * <p>One thread at a time reads a stream. Another thread may close it; then the reader gets a {@link
 * java.util.concurrent.CancellationException}, and so does a reader whose thread is interrupted.
 *
 * @param <V> the values
 */
public class PerennialStream<V> implements Iterator<V>, Iterable<V>, AutoCloseable {
    private final Reader<?, ?, ?, ?> reader;
    private final boolean withEvents;
    private V next;

    PerennialStream(Reader<?, ?, ?, ?> reader, boolean withEvents) {
        this.reader = reader;
        this.withEvents = withEvents;
    }

    final Reader<?, ?, ?, ?> reader() {
        return reader;
    }

    /**
     * Waits for the next value. The value that was handed out last is done: its state is saved.
     *
     * @return false at the end of the stream
     */
    @Override
    @SuppressWarnings("unchecked")
    public final boolean hasNext() {
        if (next == null) {
            next = (V) reader.pull(withEvents);
        }
        return next != null;
    }

    @Override
    public final V next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the stream has ended");
        }
        V value = next;
        next = null;
        reader.handedOut();
        return value;
    }

    /**
     * Returns this stream itself, for a {@code for} loop: a second loop continues where the first one stopped.
     *
     * @return this stream
     */
    @Override
    public final Iterator<V> iterator() {
        return this;
    }

    /**
     * Returns the values as a {@link Stream}. Closing it closes this stream.
     *
     * @return the sequential stream of the values that were not handed out yet
     */
    public final Stream<V> stream() {
        int facts = Spliterator.ORDERED | Spliterator.NONNULL;
        return StreamSupport.stream(Spliterators.spliteratorUnknownSize(this, facts), false).onClose(this::close);
    }

    /**
     * Returns the state after the item that was handed out last. Save it in one transaction with the result of the item,
     * and each item takes effect exactly once.
     *
     * @return one line of text for {@link StreamOptions#withState}; empty before the first response
     */
    public final Optional<String> state() {
        return reader.state();
    }

    /**
     * Returns how many ticks of a countdown were skipped so far, because they could not be delivered in time.
     *
     * @return the number; 0 for other streams
     */
    public final long skippedTicks() {
        return reader.skippedTicks();
    }

    /**
     * Commits the cursor of the last response all of whose messages were handed out, for the consumer of the request. The
     * commit is on disk when this returns. If there is nothing new to commit, no call is made. After a crash the messages
     * since the last commit come again.
     *
     * @throws IllegalStateException if the request has no consumer
     */
    public final void commit() {
        reader.commit();
    }

    /**
     * Ends the stream: the server notices at once. The last state is saved, without the item that is in hand. With {@link
     * StreamOptions#withCommitEvery} the last commit is made, which may take up to 2 s.
     */
    @Override
    public final void close() {
        reader.close();
    }
}
