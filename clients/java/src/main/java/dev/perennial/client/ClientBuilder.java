package dev.perennial.client;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Supplier;

/** Builds a {@link PerennialClient}. */
public final class ClientBuilder {
    private final String server;
    private Path ca;
    private Path certificate;
    private Path key;
    private String serverName;
    private Supplier<String> token;
    private Duration connectTimeout = Duration.ofSeconds(10);
    private Duration maxOutage;
    private Duration callTimeout = Duration.ofSeconds(30);
    private ConnectionObserver observer = new ConnectionObserver() {};

    ClientBuilder(String server) {
        this.server = server;
    }

    /**
     * Trusts only the authorities in this file, instead of those of the system. The connection is by TLS.
     *
     * @param ca the file, in the form PEM
     * @return this builder
     */
    public ClientBuilder ca(Path ca) {
        this.ca = ca;
        return this;
    }

    /**
     * Shows this certificate to the server. The connection is by TLS.
     *
     * @param certificate the file of the certificate and its chain, in the form PEM
     * @param key the file of its key, in the form PEM (PKCS #8)
     * @return this builder
     */
    public ClientBuilder certificate(Path certificate, Path key) {
        this.certificate = Objects.requireNonNull(certificate, "certificate");
        this.key = Objects.requireNonNull(key, "key");
        return this;
    }

    /**
     * Expects this name in the certificate of the server, instead of the host in the address.
     *
     * @param serverName the name
     * @return this builder
     */
    public ClientBuilder serverName(String serverName) {
        this.serverName = serverName;
        return this;
    }

    /**
     * Shows this token with each call. Without one, the token is that of the environment variable {@code PERENNIAL_TOKEN},
     * if it is set. A token is sent only by TLS, or to this machine.
     *
     * @param token the token
     * @return this builder
     */
    public ClientBuilder token(String token) {
        return token(() -> token);
    }

    /**
     * Asks for the token before each attempt, so that one that expires can be renewed.
     *
     * @param token returns the token
     * @return this builder
     */
    public ClientBuilder token(Supplier<String> token) {
        this.token = Objects.requireNonNull(token, "token");
        return this;
    }

    /**
     * Reads the token from a file before each attempt. White space around it is ignored.
     *
     * @param file the file
     * @return this builder
     */
    public ClientBuilder tokenFile(Path file) {
        return token(() -> {
            try {
                return Files.readString(file).strip();
            } catch (IOException fault) {
                throw new StateException("the token file " + file + " cannot be read: " + fault, fault);
            }
        });
    }

    /**
     * Tries to open a stream or a publisher for this long, if the server does not answer. The default is 10 s.
     *
     * @param connectTimeout the time; zero: one attempt
     * @return this builder
     */
    public ClientBuilder connectTimeout(Duration connectTimeout) {
        this.connectTimeout = Objects.requireNonNull(connectTimeout, "connectTimeout");
        return this;
    }

    /**
     * Ends a stream that was open with the last error, when the server did not answer for this long. The default is never.
     *
     * @param maxOutage the time; null: never
     * @return this builder
     */
    public ClientBuilder maxOutage(Duration maxOutage) {
        this.maxOutage = maxOutage;
        return this;
    }

    /**
     * Sets the deadline of a unary call. The default is 30 s.
     *
     * @param callTimeout the time
     * @return this builder
     */
    public ClientBuilder callTimeout(Duration callTimeout) {
        this.callTimeout = Objects.requireNonNull(callTimeout, "callTimeout");
        return this;
    }

    /**
     * Notifies of each interruption of a stream, and of its end.
     *
     * @param observer the observer
     * @return this builder
     */
    public ClientBuilder observer(ConnectionObserver observer) {
        this.observer = Objects.requireNonNull(observer, "observer");
        return this;
    }

    /**
     * Returns the client. It connects at the first call.
     *
     * @return the client
     * @throws IllegalArgumentException if the address and the credentials do not fit together
     */
    public PerennialClient build() {
        boolean wantsTls = ca != null || certificate != null || serverName != null;
        Address address = Address.parse(server, wantsTls);
        Supplier<String> shown = token;
        String ofEnvironment = System.getenv("PERENNIAL_TOKEN");
        if (shown == null && ofEnvironment != null && !ofEnvironment.isEmpty()) {
            shown = () -> ofEnvironment;
        }
        if (shown != null && !address.isTls() && !address.isLocal()) {
            throw new IllegalArgumentException("a token would be sent to " + address.host()
                    + " in plain text, where others can read it: use https://");
        }
        Channels channels = new Channels(address, ca, certificate, key, serverName);
        return new PerennialClient(channels, shown, connectTimeout, maxOutage, callTimeout, observer);
    }
}
