package dev.perennial.client;

import com.google.protobuf.Message;
import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.CountdownResponse;
import dev.perennial.v1.CountdownServiceGrpc;
import dev.perennial.v1.CountdownStreamEvent;
import dev.perennial.v1.Tick;
import io.grpc.MethodDescriptor;
import java.util.List;

/** {@code Countdown}. */
final class CountdownKind extends Kind<CountdownRequest, CountdownResponse, Tick, CountdownStreamEvent> {
    static final String NAME = "countdown";

    /** The difference between two numbers. */
    private long step;

    CountdownKind(CountdownRequest request) {
        step = request.hasStep() ? request.getStep() : 1;
    }

    @Override
    String name() {
        return NAME;
    }

    @Override
    MethodDescriptor<CountdownRequest, CountdownResponse> method() {
        return CountdownServiceGrpc.getCountdownMethod();
    }

    @Override
    CountdownRequest request(CountdownRequest request, String cursor, Long limit) {
        CountdownRequest.Builder builder = request.toBuilder().clearLimit();
        if (cursor != null) {
            builder.setCursor(cursor);
        }
        if (limit != null) {
            builder.setLimit(limit);
        }
        return builder.build();
    }

    @Override
    String cursorOf(CountdownRequest request) {
        return request.hasCursor() ? request.getCursor() : null;
    }

    @Override
    Long limitOf(CountdownRequest request) {
        return request.hasLimit() ? (Long) request.getLimit() : null;
    }

    @Override
    com.google.protobuf.Duration heartbeatOf(CountdownRequest request) {
        return request.hasHeartbeat() ? request.getHeartbeat() : null;
    }

    @Override
    String cursor(CountdownResponse response) {
        return response.getCursor();
    }

    @Override
    List<Tick> items(CountdownResponse response) {
        return response.getTicksList();
    }

    @Override
    List<CountdownStreamEvent> events(CountdownResponse response) {
        return response.getEventsList();
    }

    @Override
    void onResponse(CountdownResponse response) {
        if (response.getCountdown().hasStep()) {
            step = response.getCountdown().getStep();
        }
    }

    @Override
    long skipped(CountdownResponse response) {
        long skipped = response.getSkippedTicks();
        if (skipped == 0 || response.getTicksCount() == 0 || !(pending() instanceof Key.OfTick key)) {
            return skipped;
        }
        Tick first = response.getTicks(0);
        if (!sameVersion(first, key)) {
            return skipped;
        }
        // The skipped numbers are one to `skipped` steps above the first; those from the key on were handed out.
        long above = Math.max(0, key.remaining() - (long) first.getRemaining());
        long left = (above + step - 1) / step - 1;
        return Math.max(0, Math.min(skipped, left));
    }

    @Override
    Message gap(CountdownStreamEvent event) {
        return null;
    }

    @Override
    boolean dropsEvent(CountdownStreamEvent event) {
        return false;
    }

    @Override
    Tick unlessDone(Tick tick) {
        Key.OfTick key = (Key.OfTick) pending();
        if (key == null) {
            return tick;
        }
        boolean isOlder = key.version() != null && tick.hasVersion() && tick.getVersion() < key.version();
        if (isOlder || (sameVersion(tick, key) && tick.getRemaining() >= key.remaining())) {
            return null;
        }
        setPending(null);
        return tick;
    }

    private static boolean sameVersion(Tick tick, Key.OfTick key) {
        return key.version() == null ? !tick.hasVersion() : tick.hasVersion() && tick.getVersion() == key.version();
    }

    @Override
    Key key(Tick tick) {
        return new Key.OfTick(tick.getRemaining(), tick.hasVersion() ? (Long) tick.getVersion() : null);
    }
}
