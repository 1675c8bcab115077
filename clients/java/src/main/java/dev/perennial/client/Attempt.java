package dev.perennial.client;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * One call of a stream. Responses wait in the queue of the stream, up to {@link #AHEAD}; more stay in the transport, whose
 * window stops the server.
 */
final class Attempt<Q, R> extends ClientCall.Listener<R> {
    /** The responses that are taken from the transport ahead of the reader. */
    private static final int AHEAD = 4;

    /** What arrived: a response, or the end with its status. */
    record Signal<R>(Attempt<?, R> attempt, R response, Status status, Metadata trailers) {}

    /** The connection of the call. */
    final Channels.Connection connection;

    private final ClientCall<Q, R> call;
    private final BlockingQueue<Signal<R>> signals;
    private boolean isCancelled;

    Attempt(
            Channels.Connection connection,
            MethodDescriptor<Q, R> method,
            Long timeoutNanos,
            BlockingQueue<Signal<R>> signals) {
        this.connection = connection;
        this.signals = signals;
        CallOptions options = CallOptions.DEFAULT;
        if (timeoutNanos != null) {
            options = options.withDeadlineAfter(timeoutNanos, TimeUnit.NANOSECONDS);
        }
        call = connection.channel().newCall(method, options);
    }

    /** Sends the request, unless the call was cancelled before. */
    synchronized void start(Q request, Metadata headers) {
        if (isCancelled) {
            return;
        }
        call.start(this, headers);
        call.sendMessage(request);
        call.halfClose();
        call.request(AHEAD);
    }

    /** Asks for one more response, after one was handed out. */
    void taken() {
        call.request(1);
    }

    synchronized void cancel(String why) {
        isCancelled = true;
        call.cancel(why, null);
    }

    @Override
    public void onMessage(R response) {
        signals.add(new Signal<>(this, response, null, null));
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
        signals.add(new Signal<>(this, null, status, trailers));
    }
}
