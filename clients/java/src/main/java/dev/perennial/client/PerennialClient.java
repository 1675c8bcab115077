package dev.perennial.client;

import com.google.protobuf.Message;
import dev.perennial.v1.ConsumerInfo;
import dev.perennial.v1.Countdown;
import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.CountdownServiceGrpc;
import dev.perennial.v1.CountdownStreamEvent;
import dev.perennial.v1.CreateCountdownRequest;
import dev.perennial.v1.CreateCountdownResponse;
import dev.perennial.v1.FileInfo;
import dev.perennial.v1.GetCountdownRequest;
import dev.perennial.v1.Line;
import dev.perennial.v1.LineServiceGrpc;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.ListConsumersRequest;
import dev.perennial.v1.ListConsumersResponse;
import dev.perennial.v1.ListCountdownsRequest;
import dev.perennial.v1.ListCountdownsResponse;
import dev.perennial.v1.ListFilesRequest;
import dev.perennial.v1.ListFilesResponse;
import dev.perennial.v1.ListTopicsRequest;
import dev.perennial.v1.ListTopicsResponse;
import dev.perennial.v1.MessageServiceGrpc;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.MessagesRequest;
import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.PublishResponse;
import dev.perennial.v1.ReadLinesRequest;
import dev.perennial.v1.StoredMessage;
import dev.perennial.v1.Tick;
import dev.perennial.v1.WatchFilesRequest;
import dev.perennial.v1.WatchFilesResponse;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * A client of one server. All streams and calls share a connection, which is made at the first call.
 *
 * <p>A client may be used by many threads; each stream of it by one at a time.
 */
public final class PerennialClient implements AutoCloseable {
    static final String CLOSED = "the client is closed";

    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Channels channels;
    private final Supplier<String> token;
    private final Duration connectTimeout;
    private final Duration maxOutage;
    private final Duration callTimeout;
    private final ConnectionObserver observer;
    private final Set<Reader<?, ?, ?, ?>> readers = ConcurrentHashMap.newKeySet();
    private final Set<Publisher> publishers = ConcurrentHashMap.newKeySet();

    PerennialClient(
            Channels channels,
            Supplier<String> token,
            Duration connectTimeout,
            Duration maxOutage,
            Duration callTimeout,
            ConnectionObserver observer) {
        this.channels = channels;
        this.token = token;
        this.connectTimeout = connectTimeout;
        this.maxOutage = maxOutage;
        this.callTimeout = callTimeout;
        this.observer = observer;
    }

    /**
     * A client of the server that the environment variable {@code PERENNIAL_SERVER} names, or else of the one at
     * {@code http://127.0.0.1:50051}.
     *
     * @return the client
     */
    public static PerennialClient connect() {
        return builder(null).build();
    }

    /**
     * A client of a server.
     *
     * @param server {@code HOST:PORT} or {@code http://HOST[:PORT]} for plain text, {@code https://HOST[:PORT]} for TLS, or
     *     {@code unix:PATH}; the port is 50051 where none is given
     * @return the client
     * @throws IllegalArgumentException if the address has none of these forms
     */
    public static PerennialClient connect(String server) {
        return builder(server).build();
    }

    /**
     * Begins a client with credentials or other settings.
     *
     * @param server the address, as for {@link #connect(String)}; null: that of the environment, or the default
     * @return the builder
     */
    public static ClientBuilder builder(String server) {
        return new ClientBuilder(server);
    }

    /**
     * Counts down from a number to 0, one number a second.
     *
     * @param start the first number
     * @return the ticks
     */
    public ItemStream<Tick, CountdownStreamEvent> countdown(int start) {
        return countdown(CountdownRequest.newBuilder().setStart(start).build(), StreamOptions.defaults());
    }

    /**
     * Watches a countdown: one of this call, or a shared one.
     *
     * @param request what to count down
     * @param options how to read it
     * @return the ticks
     */
    public ItemStream<Tick, CountdownStreamEvent> countdown(CountdownRequest request, StreamOptions options) {
        return new ItemStream<>(new Reader<>(this, new CountdownKind(request), request, options, null));
    }

    /**
     * Reads a file, from its start to its end.
     *
     * @param path the file: {@code ROOT/relative/path}
     * @return the lines
     */
    public ItemStream<Line, LineStreamEvent> readLines(String path) {
        return readLines(path, request -> {});
    }

    /**
     * Reads a file.
     *
     * @param path the file: {@code ROOT/relative/path}
     * @param change sets other fields of the request, such as {@code follow}
     * @return the lines
     */
    public ItemStream<Line, LineStreamEvent> readLines(String path, Consumer<ReadLinesRequest.Builder> change) {
        ReadLinesRequest.Builder request = ReadLinesRequest.newBuilder().setPath(path);
        change.accept(request);
        return readLines(request.build(), StreamOptions.defaults());
    }

    /**
     * Reads a file.
     *
     * @param request which file, from where, and whether to follow it
     * @param options how to read it
     * @return the lines
     */
    public ItemStream<Line, LineStreamEvent> readLines(ReadLinesRequest request, StreamOptions options) {
        return new ItemStream<>(new Reader<>(this, new LinesKind(), request, options, null));
    }

    /**
     * Yields the files that match globs: those that are there, and then those that appear and go. See {@link
     * #watchFiles(WatchFilesRequest, StreamOptions)}.
     *
     * @param globs the files, such as {@code logs/app*.log}
     * @return the responses
     */
    public PerennialStream<WatchFilesResponse> watchFiles(String... globs) {
        WatchFilesRequest request = WatchFilesRequest.newBuilder().addAllGlobs(List.of(globs)).build();
        return watchFiles(request, StreamOptions.defaults());
    }

    /**
     * Yields the files that match globs: those that are there, and then those that appear and go. Where files came or went
     * while the connection was lost, a response has an event {@code relisted}: forget the files, because all come again.
     *
     * @param request which files; without a limit: leave the loop instead
     * @param options how to read it; without a store and a state, because a program lists the files when it starts
     * @return the responses
     */
    public PerennialStream<WatchFilesResponse> watchFiles(WatchFilesRequest request, StreamOptions options) {
        if (request.hasLimit()) {
            throw new IllegalArgumentException("a stream of files takes no limit: leave the loop instead");
        }
        if (options.store() != null || options.state() != null) {
            throw new IllegalArgumentException("a stream of files keeps no state: list the files when the program starts");
        }
        return new PerennialStream<>(new Reader<>(this, new FilesKind(), request, options, null), false);
    }

    /**
     * Reads the messages of topics that are published from now on.
     *
     * @param topics patterns of topics
     * @return the messages
     */
    public ItemStream<StoredMessage, MessageStreamEvent> messages(String... topics) {
        MessagesRequest request = MessagesRequest.newBuilder().addAllTopics(List.of(topics)).build();
        return messages(request, StreamOptions.defaults());
    }

    /**
     * Reads the messages of topics.
     *
     * @param topic a pattern of topics
     * @param change sets other fields of the request, such as {@code earliest}
     * @return the messages
     */
    public ItemStream<StoredMessage, MessageStreamEvent> messages(
            String topic, Consumer<MessagesRequest.Builder> change) {
        MessagesRequest.Builder request = MessagesRequest.newBuilder().addTopics(topic);
        change.accept(request);
        return messages(request.build(), StreamOptions.defaults());
    }

    /**
     * Reads the messages of topics. With a {@code consumer} in the request, the server keeps the position: see {@link
     * PerennialStream#commit()}.
     *
     * @param request which topics, and from where
     * @param options how to read them
     * @return the messages
     * @throws IllegalArgumentException if the request has a consumer, and the options have a store or a state
     */
    public ItemStream<StoredMessage, MessageStreamEvent> messages(MessagesRequest request, StreamOptions options) {
        String consumer = request.hasConsumer() ? request.getConsumer() : null;
        return new ItemStream<>(new Reader<>(this, new MessagesKind(), request, options, consumer));
    }

    /**
     * Opens a publisher, which publishes messages in order and without doubles.
     *
     * @return the publisher
     */
    public Publisher publisher() {
        return publisher(Publisher.DEDUPE_WINDOW);
    }

    /**
     * Opens a publisher for a server with another dedupe window than the default of 2 minutes.
     *
     * @param dedupeWindow how long the server remembers the id of a message; what has no answer 40 s before the end of this
     *     time is not sent again
     * @return the publisher
     */
    public Publisher publisher(Duration dedupeWindow) {
        Publisher publisher = new Publisher(this, dedupeWindow);
        publishers.add(publisher);
        return publisher;
    }

    /**
     * Makes a unary call of the contract. It has a deadline of 30 s unless the builder says otherwise (a purge 15 minutes),
     * and is repeated after a lost connection if that is safe: a call that only reads, a commit, a publish with a
     * {@code message_id}, a creation with a {@code request_id}.
     *
     * @param method the method, such as {@code MessageServiceGrpc.getListTopicsMethod()}
     * @param request the request
     * @param <Q> the request
     * @param <R> the response
     * @return the response
     * @throws PerennialException if the call failed
     */
    public <Q extends Message, R extends Message> R call(MethodDescriptor<Q, R> method, Q request) {
        return UnaryCall.make(this, method, request, callTimeout);
    }

    /**
     * Publishes one message. Without a {@code message_id} the call is not repeated: after a lost connection the message may
     * or may not be published.
     *
     * @param request the message
     * @return the answer, when the message is on disk
     */
    public PublishResponse publish(PublishRequest request) {
        return call(MessageServiceGrpc.getPublishMethod(), request);
    }

    /**
     * Returns the state of a shared countdown.
     *
     * @param name its name
     * @return the countdown
     */
    public Countdown getCountdown(String name) {
        GetCountdownRequest request = GetCountdownRequest.newBuilder().setName(name).build();
        return call(CountdownServiceGrpc.getGetCountdownMethod(), request).getCountdown();
    }

    /**
     * Creates a shared countdown. A request without a {@code request_id} gets one, so that it can be repeated.
     *
     * @param request the countdown
     * @return the answer, when the countdown is on disk
     */
    public CreateCountdownResponse createCountdown(CreateCountdownRequest request) {
        CreateCountdownRequest named = request.hasRequestId()
                ? request
                : request.toBuilder().setRequestId(UUID.randomUUID().toString()).build();
        return call(CountdownServiceGrpc.getCreateCountdownMethod(), named);
    }

    /**
     * Lists the shared countdowns, from all pages.
     *
     * @return the countdowns, by name
     */
    public List<Countdown> listCountdowns() {
        return pages(
                page -> call(
                        CountdownServiceGrpc.getListCountdownsMethod(),
                        ListCountdownsRequest.newBuilder().setPageToken(page).build()),
                ListCountdownsResponse::getCountdownsList,
                ListCountdownsResponse::getNextPageToken);
    }

    /**
     * Lists the files that can be read, from all pages.
     *
     * @param path a root or a directory; empty: all roots
     * @return the files, by path
     */
    public List<FileInfo> listFiles(String path) {
        return pages(
                page -> call(
                        LineServiceGrpc.getListFilesMethod(),
                        ListFilesRequest.newBuilder().setPath(path).setPageToken(page).build()),
                ListFilesResponse::getFilesList,
                ListFilesResponse::getNextPageToken);
    }

    /**
     * Lists the topics that match, from all pages.
     *
     * @param pattern a pattern of topics; empty: all that are not reserved
     * @return the topics, by name
     */
    public List<dev.perennial.v1.TopicInfo> listTopics(String pattern) {
        return pages(
                page -> call(
                        MessageServiceGrpc.getListTopicsMethod(),
                        ListTopicsRequest.newBuilder().setPattern(pattern).setPageToken(page).build()),
                ListTopicsResponse::getTopicsList,
                ListTopicsResponse::getNextPageToken);
    }

    /**
     * Lists the consumers, from all pages.
     *
     * @return the consumers, by name
     */
    public List<ConsumerInfo> listConsumers() {
        return pages(
                page -> call(
                        MessageServiceGrpc.getListConsumersMethod(),
                        ListConsumersRequest.newBuilder().setPageToken(page).build()),
                ListConsumersResponse::getConsumersList,
                ListConsumersResponse::getNextPageToken);
    }

    private static <P, T> List<T> pages(
            Function<String, P> page, Function<P, List<T>> items, Function<P, String> next) {
        List<T> all = new ArrayList<>();
        String token = "";
        do {
            P one = page.apply(token);
            all.addAll(items.apply(one));
            token = next.apply(one);
        } while (!token.isEmpty());
        return all;
    }

    /** Ends all streams and calls of this client. A stream that is read gets an error. */
    @Override
    public void close() {
        RuntimeException failure = null;
        for (Reader<?, ?, ?, ?> reader : readers) {
            try {
                reader.close(CLOSED);
            } catch (RuntimeException fault) {
                // A save or a commit has failed; the others are closed all the same.
                failure = failure == null ? fault : failure;
            }
        }
        publishers.forEach(Publisher::cancel);
        channels.close();
        if (failure != null) {
            throw failure;
        }
    }

    Channels channels() {
        return channels;
    }

    Duration connectTimeout() {
        return connectTimeout;
    }

    Duration callTimeout() {
        return callTimeout;
    }

    Duration maxOutage() {
        return maxOutage;
    }

    ConnectionObserver observer() {
        return observer;
    }

    void opened(Reader<?, ?, ?, ?> reader) {
        readers.add(reader);
    }

    void closed(Reader<?, ?, ?, ?> reader) {
        readers.remove(reader);
    }

    void closed(Publisher publisher) {
        publishers.remove(publisher);
    }

    /** The headers of a call. */
    Metadata headers() {
        Metadata headers = new Metadata();
        if (token != null) {
            headers.put(AUTHORIZATION, "Bearer " + token.get());
        }
        return headers;
    }
}
