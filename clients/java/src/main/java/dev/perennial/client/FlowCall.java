package dev.perennial.client;

import dev.perennial.v1.MessageServiceGrpc;
import dev.perennial.v1.PublishStreamRequest;
import dev.perennial.v1.PublishStreamResponse;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Queue;

/** One call of a {@link Flow}. */
final class FlowCall extends ClientCall.Listener<PublishStreamResponse> {
    /** What the flow reacts to: an answer, the end of a call, or null for both when there is something to do. */
    record Signal(FlowCall call, PublishStreamResponse answer, Status status, Metadata trailers) {}

    static final Signal WAKE = new Signal(null, null, null, null);

    final Channels.Connection connection;
    final ClientCall<PublishStreamRequest, PublishStreamResponse> grpc;
    private final Queue<Signal> signals;
    /** Whether the server has accepted the call. */
    volatile boolean isAccepted;

    FlowCall(Channels.Connection connection, Queue<Signal> signals) {
        this.connection = connection;
        this.signals = signals;
        grpc = connection.channel().newCall(MessageServiceGrpc.getPublishStreamMethod(), CallOptions.DEFAULT);
    }

    @Override
    public void onHeaders(Metadata headers) {
        isAccepted = true;
        signals.add(WAKE);
    }

    @Override
    public void onMessage(PublishStreamResponse answer) {
        signals.add(new Signal(this, answer, null, null));
    }

    @Override
    public void onReady() {
        signals.add(WAKE);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
        signals.add(new Signal(this, null, status, trailers));
    }
}
