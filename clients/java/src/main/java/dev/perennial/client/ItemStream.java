package dev.perennial.client;

/**
 * A stream of items: ticks, lines or messages. Missing items end it with a {@link GapException}; other events are left
 * out.
 *
 * @param <T> the items
 * @param <E> the events
 */
public final class ItemStream<T, E> extends PerennialStream<T> {
    ItemStream(Reader<?, ?, T, E> reader) {
        super(reader, false);
    }

    /**
     * Returns the same stream, with its events as values in their order. Read either the one or the other.
     *
     * @return the stream of items and events
     */
    public PerennialStream<Element<T, E>> withEvents() {
        return new PerennialStream<>(reader(), true);
    }
}
