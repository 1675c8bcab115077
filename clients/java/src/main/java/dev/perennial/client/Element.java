package dev.perennial.client;

/**
 * One value of a stream {@linkplain ItemStream#withEvents() with events}: an item, an event, or a fact about the stream.
 * Ignore the kinds that you do not need; missing items are always reported as an event with a gap.
 *
 * @param <T> the items
 * @param <E> the events
 */
public sealed interface Element<T, E> {
    /**
     * An item: a tick, a line or a message.
     *
     * @param value the item
     * @param <T> the items
     * @param <E> the events
     */
    record Item<T, E>(T value) implements Element<T, E> {}

    /**
     * Something that happened to the source of the stream, before the items that follow. An event that this version does
     * not know has its content in its unknown fields.
     *
     * @param value the event
     * @param <T> the items
     * @param <E> the events
     */
    record Event<T, E>(E value) implements Element<T, E> {}

    /**
     * Ticks that were due before the next tick and were not delivered.
     *
     * @param count their number
     * @param <T> the items
     * @param <E> the events
     */
    record Skipped<T, E>(long count) implements Element<T, E> {}

    /**
     * Nothing older is left: from here on the stream is live.
     *
     * @param <T> the items
     * @param <E> the events
     */
    record CaughtUp<T, E>() implements Element<T, E> {}
}
