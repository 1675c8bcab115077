package dev.perennial.client;

import com.google.protobuf.Message;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.List;

/**
 * What one kind of stream has of its own: its method, the fields of its request and response, and how an item that comes
 * again is recognized. One object serves one stream, because some kinds count what they have seen.
 *
 * @param <Q> the request
 * @param <R> the response
 * @param <T> the item
 * @param <E> the event
 */
abstract class Kind<Q extends Message, R extends Message, T, E> {
    /** The heartbeat of a request that does not ask for one. */
    static final Duration HEARTBEAT = Duration.ofSeconds(15);

    /**
     * The item with this key was handed out by an earlier process, and all before it; null if none may come again. It counts
     * from the cursor before the response in hand.
     */
    private Key pending;

    abstract String name();

    abstract MethodDescriptor<Q, R> method();

    /** The request, to be continued after this cursor, or from its start if the cursor is null; limit null: none. */
    abstract Q request(Q request, String cursor, Long limit);

    /** The cursor of the caller's request, or null. */
    abstract String cursorOf(Q request);

    /** The limit of the caller's request, or null. */
    abstract Long limitOf(Q request);

    abstract com.google.protobuf.Duration heartbeatOf(Q request);

    abstract String cursor(R response);

    abstract List<T> items(R response);

    abstract List<E> events(R response);

    boolean caughtUp(R response) {
        return false;
    }

    /** The skipped items of a response, without those that were handed out. */
    long skipped(R response) {
        return 0;
    }

    /** Notes a response before its events and items are handed out. */
    void onResponse(R response) {}

    /** The gap of an event, or null if it is another event. */
    abstract Message gap(E event);

    /** Whether this event is left out, because it was handed out. May end that items are pending. */
    abstract boolean dropsEvent(E event);

    /** The item to hand out: the given one, a part of it, or null if it was handed out. */
    abstract T unlessDone(T item);

    /** The key of an item of the last response. */
    abstract Key key(T item);

    /** A key that counts from the cursor before the last response, as one that counts from its own; null if it is passed. */
    Key fromItsCursor(Key key) {
        return key;
    }

    final Key pending() {
        return pending;
    }

    final void setPending(Key key) {
        pending = key;
    }

    final Duration heartbeat(Q request) {
        com.google.protobuf.Duration asked = heartbeatOf(request);
        return asked == null ? HEARTBEAT : Errors.duration(asked);
    }
}
