package dev.perennial.client;

import com.google.protobuf.Message;
import dev.perennial.v1.CreateCountdownRequest;
import dev.perennial.v1.PublishBatchRequest;
import dev.perennial.v1.PublishRequest;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;

/** A call with one request and one response. */
final class UnaryCall {
    /** A purge waits for work on the disk that may take minutes. */
    private static final Duration PURGE = Duration.ofMinutes(15);

    private UnaryCall() {}

    static <Q extends Message, R extends Message> R make(
            PerennialClient client, MethodDescriptor<Q, R> method, Q request, Duration timeout) {
        if (method.getType() != MethodDescriptor.MethodType.UNARY) {
            throw new IllegalArgumentException(method.getFullMethodName() + " is not a unary method: open it as a stream");
        }
        String name = method.getBareMethodName();
        Duration limit = name.equals("PurgeTopic") && timeout.compareTo(PURGE) < 0 ? PURGE : timeout;
        long end = System.nanoTime() + Times.nanos(limit);
        Retries retries = new Retries(client.observer(), client.connectTimeout(), null);
        while (true) {
            retries.opened();
            try {
                R response = once(client, method, request, end);
                retries.delivered();
                return response;
            } catch (StatusRuntimeException failed) {
                if (Thread.currentThread().isInterrupted()) {
                    throw new CancellationException("the thread was interrupted");
                }
                Metadata trailers = failed.getTrailers() == null ? new Metadata() : failed.getTrailers();
                PerennialException error = Errors.of(failed.getStatus(), trailers);
                if (!isSafeToRepeat(name, request)) {
                    throw error;
                }
                retries.waitOut(error, wait -> pause(wait, end, error));
            }
        }
    }

    private static <Q extends Message, R extends Message> R once(
            PerennialClient client, MethodDescriptor<Q, R> method, Q request, long end) {
        Channel channel = client.channels().connection().channel();
        Channel withHeaders =
                ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(client.headers()));
        CallOptions options =
                CallOptions.DEFAULT.withDeadlineAfter(end - System.nanoTime(), TimeUnit.NANOSECONDS);
        return ClientCalls.blockingUnaryCall(withHeaders, method, options, request);
    }

    private static void pause(Duration wait, long end, PerennialException error) {
        if (end - System.nanoTime() <= Times.nanos(wait)) {
            throw error;
        }
        try {
            TimeUnit.NANOSECONDS.sleep(Times.nanos(wait));
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new CancellationException("the thread was interrupted");
        }
    }

    private static boolean isSafeToRepeat(String name, Message request) {
        if (name.startsWith("Get") || name.startsWith("List") || name.equals("CommitCursor")) {
            return true;
        }
        if (request instanceof PublishRequest message) {
            return message.hasMessageId();
        }
        if (request instanceof PublishBatchRequest batch) {
            return batch.getMessagesList().stream().allMatch(PublishRequest::hasMessageId);
        }
        return request instanceof CreateCountdownRequest creation && creation.hasRequestId();
    }
}
