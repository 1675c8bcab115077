package dev.perennial.client;

import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** The saved state of a stream, which is saved again as often as the caller wants. */
final class Saves {
    /** The least time between two saves because of responses without items. */
    private static final long IDLE_NANOS = TimeUnit.SECONDS.toNanos(1);

    /** What happened since the last save. */
    enum After {
        ITEM,
        RESPONSE,
        END
    }

    private final StreamOptions options;
    private final String kind;
    private final Supplier<State> done;
    private State saved;
    private long savedAt;
    private boolean hasItems;

    Saves(StreamOptions options, String kind, Supplier<State> done) {
        this.options = options;
        this.kind = kind;
        this.done = done;
    }

    /** The state to begin with, or null if there is none. */
    State load() {
        String text = options.state();
        String source = "the state";
        if (options.store() != null) {
            text = options.store().load().orElse(null);
            source = options.store().toString();
        }
        saved = text == null ? null : State.parse(text, kind, source);
        return saved;
    }

    /** A response with items has arrived. */
    void itemsArrived() {
        hasItems = true;
    }

    void save(After event) {
        if (options.store() == null) {
            return;
        }
        if (event != After.END && saved != null) {
            long since = System.nanoTime() - savedAt;
            boolean isIdle = event == After.RESPONSE && !hasItems;
            long least = Times.nanos(options.saveEvery());
            if (since < (isIdle ? Math.max(least, IDLE_NANOS) : least)) {
                return;
            }
        }
        State state = done.get();
        if (state == null || state.equals(saved)) {
            return;
        }
        options.store().save(state.text(kind));
        saved = state;
        savedAt = System.nanoTime();
        hasItems = false;
    }
}
