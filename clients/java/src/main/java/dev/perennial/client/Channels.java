package dev.perennial.client;

import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollIoHandler;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * The connections of a client: one in use, and those that were replaced and still have calls.
 *
 * <p>The channels of grpc-java wait longer and longer between attempts to connect, and nothing can bound that. So a channel
 * that could not connect is not used again: the next attempt makes a new one, which connects at once.
 */
final class Channels {
    /** A connection, as an identity for {@link Channels#replace}. */
    record Connection(ManagedChannel channel) {}

    /** 64 of the largest usual batches. */
    private static final int WINDOW_BYTES = 4 * 1024 * 1024;
    /** Above any batch, even if the operator raised the limit of a line or a message. */
    private static final int MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
    /** Shorter than the time after which middleboxes drop an idle connection; the server uses the same. */
    private static final long PING_SECONDS = 30;

    private static final long PING_TIMEOUT_SECONDS = 20;
    /** A host that is back is tried again soon. */
    private static final int CONNECT_MILLIS = 5_000;

    private final Address address;
    private final Path ca;
    private final Path certificate;
    private final Path key;
    private final String serverName;
    private EventLoopGroup loops;
    private Connection current;
    private final List<ManagedChannel> replaced = new ArrayList<>();
    private boolean isClosed;

    Channels(Address address, Path ca, Path certificate, Path key, String serverName) {
        this.address = address;
        this.ca = ca;
        this.certificate = certificate;
        this.key = key;
        this.serverName = serverName;
    }

    /** A connection that is open, or that connects when it is used. */
    synchronized Connection connection() {
        if (isClosed) {
            throw Errors.clientClosed();
        }
        if (current != null && current.channel().getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
            retire();
        }
        if (current == null) {
            current = new Connection(build());
        }
        return current;
    }

    /** Makes a new connection for the calls that follow, if this one is still in use. */
    synchronized void replace(Connection connection) {
        if (current == connection) {
            retire();
        }
    }

    private void retire() {
        replaced.removeIf(ManagedChannel::isTerminated);
        replaced.add(current.channel().shutdown());
        current = null;
    }

    /** Ends all calls and connections. */
    synchronized void close() {
        isClosed = true;
        if (current != null) {
            retire();
        }
        replaced.forEach(ManagedChannel::shutdownNow);
        if (loops != null) {
            loops.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        }
    }

    private ManagedChannel build() {
        NettyChannelBuilder builder;
        if (address.path() != null) {
            if (loops == null) {
                loops = new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory());
            }
            builder = NettyChannelBuilder.forAddress(new DomainSocketAddress(address.path()), InsecureChannelCredentials.create())
                    .channelType(EpollDomainSocketChannel.class)
                    .eventLoopGroup(loops)
                    .overrideAuthority("localhost");
        } else {
            ChannelCredentials credentials = address.isTls() ? tls() : InsecureChannelCredentials.create();
            builder = NettyChannelBuilder.forAddress(address.host(), address.port(), credentials)
                    .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_MILLIS);
        }
        if (serverName != null) {
            builder.overrideAuthority(serverName);
        }
        return builder.flowControlWindow(WINDOW_BYTES)
                .maxInboundMessageSize(MAX_RESPONSE_BYTES)
                .keepAliveTime(PING_SECONDS, TimeUnit.SECONDS)
                .keepAliveTimeout(PING_TIMEOUT_SECONDS, TimeUnit.SECONDS)
                .disableRetry()
                .build();
    }

    /** The files are read for each connection, so that what was renewed is used. */
    private ChannelCredentials tls() {
        TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder();
        try {
            if (ca != null) {
                builder.trustManager(ca.toFile());
            }
            if (certificate != null) {
                builder.keyManager(certificate.toFile(), key.toFile());
            }
        } catch (IOException | IllegalArgumentException fault) {
            throw new PerennialException(
                    Status.Code.INVALID_ARGUMENT, "a file of the credentials cannot be used: " + fault.getMessage(), fault);
        }
        return builder.build();
    }
}
