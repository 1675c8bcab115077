package dev.perennial.client;

import com.google.protobuf.Message;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.CancellationException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The loop of a stream: opens calls, hands out what they bring, and keeps the state.
 *
 * <p>Within a process nothing is replayed: what was received is handed out, and the next call continues after it. A state
 * from an earlier process may have the key of an item in the middle of a response; that response comes again, and {@link
 * Kind#unlessDone} drops what was handed out.
 */
final class Reader<Q extends Message, R extends Message, T, E> {
    private static final int MISSED_HEARTBEATS = 3;
    private static final Duration LEAST_SILENCE = Duration.ofSeconds(5);
    /** The server refuses longer ones, and says so. */
    private static final Duration LONGEST_HEARTBEAT = Duration.ofDays(1);

    private final PerennialClient client;
    private final Kind<Q, R, T, E> kind;
    private final Q request;
    private final StreamOptions options;
    private final Commits commits;
    private final Saves saves;
    private final Deadline deadline;
    private final Duration silence;
    private final Retries retries;

    private final ReentrantLock lock = new ReentrantLock();
    private final LinkedBlockingQueue<Attempt.Signal<R>> signals = new LinkedBlockingQueue<>();
    private volatile Attempt<Q, R> attempt;
    private volatile String closed;
    private boolean opened;
    private RuntimeException failure;
    private boolean ended;
    /** Whether the caller knows by an exception that the stream has ended, and not by `close`. */
    private boolean hasThrown;
    private boolean isClosed;

    /** The rest of the caller's limit; null: none. */
    private Long left;
    /** Whether the call in hand was sent with that limit, and ends by itself. */
    private boolean hasLimit;
    /** Whether the call in hand only fetches the first item, so that there is a cursor before the second. */
    private boolean isFirst;
    private boolean caughtUp;
    private volatile long skippedTicks;

    /** What is handed out before the items of the last response, its items, and after them. */
    private final Queue<Object> before = new ArrayDeque<>();
    private List<T> items = List.of();
    private int index;
    private boolean tellsCaughtUp;
    /** Whether a response is in hand that is not complete. */
    private boolean isOpen;

    /** The cursor of the last response, and of the one before it. */
    private String received;
    private String previous;

    /** The item that was pulled, whether the caller has it, and the item that is done last. */
    private T pulled;
    private boolean isInHand;
    private T lastDone;
    /** Where the items begin that follow `lastDone`. */
    private int afterLastDone;
    /** The key of the state that this stream began with, if `lastDone` was handed out before it. */
    private Key pendingAtLastDone;
    /** The state of what is done, or its cursor with `lastDone` as the key. */
    private State done;

    Reader(PerennialClient client, Kind<Q, R, T, E> kind, Q request, StreamOptions options, String consumer) {
        this.client = client;
        this.kind = kind;
        this.request = request;
        this.options = options;
        commits = new Commits(client, consumer, options.commitEvery());
        saves = new Saves(options, kind.name(), this::stateOfDone);
        deadline = new Deadline(options.timeout());
        if (consumer != null && (options.store() != null || options.state() != null)) {
            throw new IllegalArgumentException("a consumer has its position on the server: give no store and no state");
        }
        Duration beats = Times.least(kind.heartbeat(request), LONGEST_HEARTBEAT).multipliedBy(MISSED_HEARTBEATS);
        silence = beats.compareTo(LEAST_SILENCE) < 0 ? LEAST_SILENCE : beats;
        retries = new Retries(
                client.observer(),
                options.connectTimeout() == null ? client.connectTimeout() : options.connectTimeout(),
                options.maxOutage() == null ? client.maxOutage() : options.maxOutage());
        left = kind.limitOf(request);
    }

    /** The next value, or null at the end. What was handed out before is done. */
    Object pull(boolean withEvents) {
        lock.lock();
        try {
            if (failure != null) {
                throw failure;
            }
            if (ended) {
                return null;
            }
            try {
                Object value = advance(withEvents);
                if (value == null) {
                    finish();
                }
                return value;
            } catch (RuntimeException | Error thrown) {
                fail(thrown);
                throw thrown;
            }
        } finally {
            lock.unlock();
        }
    }

    void handedOut() {
        lock.lock();
        try {
            isInHand = pulled != null;
        } finally {
            lock.unlock();
        }
    }

    private Object advance(boolean withEvents) {
        if (!opened) {
            begin();
        }
        itemIsDone();
        while (true) {
            if (closed != null) {
                throw cancelled();
            }
            Object next = nextOfResponse(withEvents);
            if (next != null) {
                return next;
            }
            if (left == null || left > 0 || index >= items.size()) {
                responseIsDone();
            }
            saves.save(Saves.After.RESPONSE);
            commits.ifDue(received);
            if (left != null && left == 0) {
                awaitEnd();
                return null;
            }
            R response = receive();
            if (response == null) {
                return null;
            }
            accept(response);
        }
    }

    private void begin() {
        opened = true;
        deadline.begin();
        done = saves.load();
        if (done != null) {
            kind.setPending(done.after());
        } else if (kind.cursorOf(request) != null) {
            done = new State(kind.cursorOf(request), null);
        }
        received = done == null ? null : done.cursor();
        client.opened(this);
    }

    /** The item in hand is done, because the caller asks for the next one. */
    private void itemIsDone() {
        if (!isInHand) {
            return;
        }
        lastDone = pulled;
        afterLastDone = index;
        pendingAtLastDone = kind.pending();
        pulled = null;
        isInHand = false;
        done = null;
        if (index < items.size() || !before.isEmpty()) {
            saves.save(Saves.After.ITEM);
        }
    }

    private void responseIsDone() {
        if (!isOpen) {
            return;
        }
        isOpen = false;
        items = List.of();
        index = 0;
        lastDone = null;
        kind.setPending(kind.fromItsCursor(kind.pending()));
        done = new State(received, kind.pending());
    }

    private Object nextOfResponse(boolean withEvents) {
        while (!before.isEmpty()) {
            Object next = before.remove();
            @SuppressWarnings("unchecked")
            Message gap = next instanceof Element.Event<?, ?> event ? kind.gap((E) event.value()) : null;
            if (withEvents) {
                return next;
            }
            if (gap != null) {
                throw new GapException(gap);
            }
        }
        while (index < items.size() && (left == null || left > 0)) {
            T item = kind.unlessDone(items.get(index++));
            if (item == null) {
                continue;
            }
            if (left != null) {
                left--;
            }
            pulled = item;
            return withEvents ? new Element.Item<T, E>(item) : item;
        }
        if (tellsCaughtUp) {
            tellsCaughtUp = false;
            return withEvents ? new Element.CaughtUp<T, E>() : null;
        }
        return null;
    }

    private void accept(R response) {
        String cursor = kind.cursor(response);
        if (cursor.isEmpty()) {
            throw new ProtocolException("a response has no cursor");
        }
        previous = received;
        received = cursor;
        isOpen = true;
        kind.onResponse(response);
        long skipped = kind.skipped(response);
        if (skipped > 0) {
            skippedTicks += skipped;
            before.add(new Element.Skipped<T, E>(skipped));
        }
        for (E event : kind.events(response)) {
            if (!kind.dropsEvent(event)) {
                before.add(new Element.Event<T, E>(event));
            }
        }
        items = kind.items(response);
        index = 0;
        if (!items.isEmpty()) {
            saves.itemsArrived();
        }
        tellsCaughtUp = kind.caughtUp(response) && !caughtUp;
        caughtUp |= tellsCaughtUp;
        if (isFirst) {
            // From now on there is a cursor, so the rest can be fetched without such a limit.
            isFirst = false;
            drop("the first item has arrived");
        }
    }

    /** The next response, over as many calls as it takes; null at the end that the request asked for. */
    private R receive() {
        while (true) {
            try {
                if (attempt == null) {
                    open();
                }
                Attempt.Signal<R> signal = await(retries.patience(silence));
                if (signal.response() != null) {
                    retries.delivered();
                    attempt.taken();
                    return signal.response();
                }
                attempt = null;
                if (signal.status().isOk()) {
                    return null;
                }
                throw Errors.of(signal.status(), signal.trailers());
            } catch (PerennialException error) {
                drop("another attempt follows");
                retries.waitOut(error, this::pause);
            }
        }
    }

    private void open() {
        Long timeout = deadline.rest();
        Channels.Connection connection = client.channels().connection();
        Metadata headers = client.headers();
        isFirst = received == null && !commits.hasConsumer() && (left == null || left > 1);
        hasLimit = kind.pending() == null && left != null && !isFirst;
        Long limit = isFirst ? (Long) 1L : hasLimit ? left : null;
        Attempt<Q, R> next = new Attempt<>(connection, kind.method(), timeout, signals);
        attempt = next;
        retries.opened();
        next.start(kind.request(request, received, limit), headers);
        if (closed != null) {
            throw cancelled();
        }
    }

    /** The next signal of the call in hand. */
    private Attempt.Signal<R> await(Duration limit) {
        long end = System.nanoTime() + Times.nanos(limit);
        while (true) {
            Attempt.Signal<R> signal = poll(end - System.nanoTime());
            if (signal == null) {
                // The connection may be dead in one direction; calls of others on it are left alone.
                client.channels().replace(attempt.connection);
                throw Errors.silent(limit);
            }
            if (signal.attempt() == attempt) {
                return signal;
            }
        }
    }

    /** The next signal of any call, or null when the time is over. */
    private Attempt.Signal<R> poll(long nanos) {
        try {
            Attempt.Signal<R> signal = signals.poll(Math.max(0, nanos), TimeUnit.NANOSECONDS);
            if (closed != null) {
                throw cancelled();
            }
            return signal;
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new CancellationException("the thread was interrupted");
        }
    }

    /** Waits between two attempts, and not beyond the deadline of the caller. */
    private void pause(Duration wait) {
        long nanos = Times.nanos(wait);
        Long allowed = deadline.rest();
        boolean isLast = allowed != null && allowed <= nanos;
        long end = System.nanoTime() + (isLast ? allowed : nanos);
        for (long rest = end - System.nanoTime(); rest > 0; rest = end - System.nanoTime()) {
            poll(rest);
        }
        if (isLast) {
            throw deadline.passed();
        }
    }

    /** Every item was handed out; only the end of the call is missing, and nothing depends on it. */
    private void awaitEnd() {
        if (attempt == null || !hasLimit) {
            return;
        }
        try {
            Attempt.Signal<R> signal = await(silence);
            if (signal.response() == null) {
                attempt = null;
            }
        } catch (PerennialException lost) {
            drop("the limit is reached");
        }
    }

    private void drop(String why) {
        Attempt<Q, R> current = attempt;
        attempt = null;
        if (current != null) {
            current.cancel(why);
        }
    }

    private RuntimeException cancelled() {
        return closed.equals(PerennialClient.CLOSED) ? Errors.clientClosed() : new CancellationException(closed);
    }

    private void fail(Throwable thrown) {
        drop("the stream has failed");
        failure = thrown instanceof RuntimeException exception ? exception : new IllegalStateException(thrown);
        hasThrown = closed == null;
        client.closed(this);
        try {
            saves.save(Saves.After.END);
        } catch (RuntimeException secondary) {
            if (secondary != thrown) {
                thrown.addSuppressed(secondary);
            }
        }
    }

    private void finish() {
        ended = true;
        drop("the stream has ended");
        client.closed(this);
        saves.save(Saves.After.END);
        commits.atEnd(cursorOfDone());
    }

    void close() {
        close("the stream is closed");
    }

    /** Ends the stream from any thread. */
    void close(String why) {
        if (closed == null) {
            closed = why;
        }
        Attempt<Q, R> current = attempt;
        if (current != null) {
            current.cancel(why);
        }
        // Wakes a reader that waits.
        signals.add(new Attempt.Signal<>(null, null, Status.CANCELLED, new Metadata()));
        lock.lock();
        try {
            if (ended || isClosed) {
                return;
            }
            isClosed = true;
            if (failure == null) {
                failure = new CancellationException(why);
                drop(why);
                client.closed(this);
                if (opened) {
                    saves.save(Saves.After.END);
                }
            }
            commitAtClose();
        } finally {
            lock.unlock();
        }
    }

    /** Commits what is done, also when the reader was woken by the close, or failed before it. */
    private void commitAtClose() {
        try {
            commits.atClose(cursorOfDone());
        } catch (RuntimeException secondary) {
            // An exception that the caller has must not be hidden by this one.
            if (!hasThrown) {
                throw secondary;
            }
            failure.addSuppressed(secondary);
        }
    }

    private String cursorOfDone() {
        return isOpen ? previous : received;
    }

    Optional<String> state() {
        lock.lock();
        try {
            State state = isInHand ? stateAfter(pulled, index, kind.pending()) : stateOfDone();
            return Optional.ofNullable(state).map(it -> it.text(kind.name()));
        } finally {
            lock.unlock();
        }
    }

    private State stateOfDone() {
        return done != null || lastDone == null ? done : stateAfter(lastDone, afterLastDone, pendingAtLastDone);
    }

    /**
     * The state after an item of the response in hand, if there is one: its items from `next` on follow.
     *
     * <p>A line that was written late may be handed out before the item with the pending key. That key stays then, or all
     * items up to it would come again; the late line comes again instead.
     */
    private State stateAfter(T item, int next, Key pending) {
        if (next >= items.size()) {
            return new State(received, kind.fromItsCursor(pending));
        }
        return previous == null ? null : new State(previous, pending == null ? kind.key(item) : pending);
    }

    long skippedTicks() {
        return skippedTicks;
    }

    void commit() {
        if (!commits.hasConsumer()) {
            throw new IllegalStateException("the request has no consumer: set one to commit");
        }
        lock.lock();
        try {
            boolean isComplete = isInHand && isOpen && index >= items.size();
            commits.commit(isComplete ? received : cursorOfDone());
        } finally {
            lock.unlock();
        }
    }
}
