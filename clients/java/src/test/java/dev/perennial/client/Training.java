package dev.perennial.client;

import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.CountdownResponse;
import dev.perennial.v1.CountdownServiceGrpc;
import dev.perennial.v1.Tick;
import io.grpc.Server;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;

/** A server for one stream, so that the classes of a stream can be archived before there is a perenniald. */
final class Training extends CountdownServiceGrpc.CountdownServiceImplBase implements AutoCloseable {
    static final int START = 3;

    private final Server server;

    Training() throws IOException {
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        server = NettyServerBuilder.forAddress(address).addService(this).build().start();
    }

    String address() {
        return "127.0.0.1:" + server.getPort();
    }

    @Override
    public void countdown(CountdownRequest request, StreamObserver<CountdownResponse> responses) {
        int first = request.hasCursor() ? Integer.parseInt(request.getCursor()) : START;
        for (int n = first; n >= 0; n--) {
            Tick tick = Tick.newBuilder().setRemaining(n).build();
            responses.onNext(CountdownResponse.newBuilder().addTicks(tick).setCursor(Integer.toString(n - 1)).build());
        }
        responses.onCompleted();
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
