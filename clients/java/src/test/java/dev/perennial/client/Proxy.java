package dev.perennial.client;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A proxy in front of a server: it cuts each connection after some bytes of the server, or stops to forward them, on the
 * connections that are open or on all.
 */
final class Proxy implements AutoCloseable {
    private final ServerSocket listener;
    private final Server server;
    private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
    private final AtomicInteger connections = new AtomicInteger();
    private final Random random = new Random(7);
    private volatile int cutWithin;
    private volatile boolean isStalled;
    private volatile boolean isMute;
    private volatile boolean isClosed;

    Proxy(Server server) {
        this.server = server;
        try {
            listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        } catch (IOException fault) {
            throw new UncheckedIOException(fault);
        }
        start(this::accept);
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    /** Cuts each new connection after 1 to this many bytes of the server; 0: never. */
    Proxy cutWithin(int bytes) {
        cutWithin = bytes;
        return this;
    }

    /** Stops to forward what the server sends on the connections that are open. New ones are not affected. */
    void stall() {
        isStalled = true;
    }

    /** Forwards nothing that the server sends, also on new connections; they are accepted, and nothing else. */
    void mute(boolean isMute) {
        this.isMute = isMute;
    }

    int connections() {
        return connections.get();
    }

    /** Cuts all connections. */
    void cut() {
        for (Socket socket : sockets) {
            close(socket);
        }
    }

    private void accept() {
        while (!isClosed) {
            try {
                Socket client = listener.accept();
                connections.incrementAndGet();
                isStalled = false;
                String[] target = server.address().split(":");
                Socket upstream;
                try {
                    upstream = new Socket(target[0], Integer.parseInt(target[1]));
                } catch (IOException refused) {
                    close(client);
                    continue;
                }
                sockets.add(client);
                sockets.add(upstream);
                int budget = cutWithin == 0 ? Integer.MAX_VALUE : 1 + random.nextInt(cutWithin);
                int number = connections.get();
                start(() -> forward(client, upstream, Integer.MAX_VALUE, 0));
                start(() -> forward(upstream, client, budget, number));
            } catch (IOException closed) {
                return;
            }
        }
    }

    /** Forwards up to `budget` bytes, then cuts. A stall holds the connections up to the number that was open then. */
    private void forward(Socket from, Socket to, int budget, int number) {
        byte[] buffer = new byte[16 * 1024];
        int left = budget;
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            for (int got = in.read(buffer); got >= 0; got = in.read(buffer)) {
                while (number != 0 && (isMute || (isStalled && number == connections.get())) && !from.isClosed()) {
                    Thread.sleep(5);
                }
                out.write(buffer, 0, Math.min(got, left));
                left -= got;
                if (left <= 0) {
                    // A reset would also take from the client what it has not read yet, and it might never get on.
                    to.shutdownOutput();
                    from.close();
                    Thread.sleep(1_000);
                    break;
                }
            }
        } catch (IOException | InterruptedException cut) {
            // Both sides are closed below.
        } finally {
            close(from);
            close(to);
        }
    }

    private void close(Socket socket) {
        sockets.remove(socket);
        try {
            // A reset, as a connection that is cut.
            socket.setSoLinger(true, 0);
            socket.close();
        } catch (IOException closed) {
            // It was closed before.
        }
    }

    private static void start(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() {
        isClosed = true;
        try {
            listener.close();
        } catch (IOException fault) {
            throw new UncheckedIOException(fault);
        }
        cut();
    }
}
