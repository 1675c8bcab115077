package dev.perennial.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.CountdownServiceGrpc;
import dev.perennial.v1.CountdownStreamEvent;
import dev.perennial.v1.CreateCountdownRequest;
import dev.perennial.v1.GetCountdownRequest;
import dev.perennial.v1.Line;
import dev.perennial.v1.LineServiceGrpc;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.ListFilesRequest;
import dev.perennial.v1.ListTopicsRequest;
import dev.perennial.v1.MessageServiceGrpc;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.MessagesRequest;
import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.ReadLinesRequest;
import dev.perennial.v1.ReadLinesResponse;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.Queue;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Semaphore;

/** The client of the conformance kit: it reads a command from stdin and prints lines of JSON, as `clients/conformance` says. */
public final class Adapter {
    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    private final Semaphore credit = new Semaphore(0);
    private volatile PerennialStream<?> stream;
    private volatile Publisher publisher;
    private volatile boolean isStopped;

    private Adapter() {}

    /** Serves one command. */
    public static void main(String[] arguments) throws Exception {
        Adapter adapter = new Adapter();
        adapter.serve();
        // Threads of the transport must not keep the process.
        System.exit(0);
    }

    private void serve() throws IOException {
        String line = in.readLine();
        if (line == null) {
            return;
        }
        JsonObject command = JsonParser.parseString(line).getAsJsonObject();
        String what = command.get("do").getAsString();
        if (what.equals("info")) {
            print("{\"info\":{\"package\":\"dev.perennial:perennial-client\",\"version\":\"0.1.0\",\"language\":\"java\","
                    + "\"can\":[\"stream\",\"store\",\"events\",\"publish\",\"consumer\",\"call\",\"bench\",\"bench_generated\",\"token\",\"tls\"]}}");
            return;
        }
        if (what.equals("train")) {
            train();
            return;
        }
        Thread commands = new Thread(this::commands, "commands");
        commands.setDaemon(true);
        commands.start();
        String end = "ok";
        try {
            if (what.equals("bench_generated")) {
                generated(command);
                return;
            }
            try (PerennialClient client = client(command)) {
                switch (what) {
                    case "stream" -> stream(client, command);
                    case "publish" -> publish(client, command);
                    case "call" -> call(client, command);
                    case "bench" -> bench(client, command);
                    default -> throw new IllegalArgumentException("unknown command " + what);
                }
            }
        } catch (CancellationException stopped) {
            end = "stopped";
        } catch (PerennialException error) {
            print(error(error));
            end = "error";
        } catch (RuntimeException error) {
            error.printStackTrace();
            JsonObject body = new JsonObject();
            body.addProperty("code", "INVALID_ARGUMENT");
            body.addProperty("reason", "");
            body.addProperty("message", String.valueOf(error.getMessage()));
            body.addProperty("retryable", false);
            print(wrap("error", body));
            end = "error";
        }
        print("{\"end\":\"" + (isStopped ? "stopped" : end) + "\"}");
    }

    private void commands() {
        try {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                JsonObject command = JsonParser.parseString(line).getAsJsonObject();
                switch (command.get("do").getAsString()) {
                    case "more" -> credit.release(command.get("items").getAsInt());
                    case "commit" -> {
                        stream.commit();
                        print("{\"committed\":true}");
                    }
                    default -> {
                        stop();
                        return;
                    }
                }
            }
        } catch (IOException closed) {
            System.err.println("stdin: " + closed);
        }
        stop();
    }

    /** Reads a stream with a store, so that an archive of the classes has those that most runs need. */
    private void train() throws IOException {
        Path store = Files.createTempFile("state", null);
        Files.delete(store);
        JsonObject command = JsonParser.parseString("{\"kind\": \"countdown\", \"states\": true}").getAsJsonObject();
        JsonObject request = new JsonObject();
        request.addProperty("start", Training.START);
        command.add("request", request);
        command.addProperty("store", store.toString());
        try (Training training = new Training();
                PerennialClient client = PerennialClient.connect(training.address())) {
            stream(client, command);
        } finally {
            Files.deleteIfExists(store);
        }
    }

    private void stop() {
        isStopped = true;
        if (stream != null) {
            stream.close();
        }
        if (publisher != null) {
            publisher.cancel();
        }
        credit.release(1 << 20);
    }

    private static PerennialClient client(JsonObject command) {
        ClientBuilder builder = PerennialClient.builder(command.get("server").getAsString());
        if (command.has("token")) {
            builder.token(command.get("token").getAsString());
        }
        if (command.has("token_file")) {
            builder.tokenFile(Path.of(command.get("token_file").getAsString()));
        }
        if (command.has("connect_timeout")) {
            builder.connectTimeout(seconds(command.get("connect_timeout")));
        }
        if (command.has("ca")) {
            builder.ca(Path.of(command.get("ca").getAsString()));
        }
        if (command.has("cert")) {
            builder.certificate(Path.of(command.get("cert").getAsString()), Path.of(command.get("key").getAsString()));
        }
        return builder.build();
    }

    private void stream(PerennialClient client, JsonObject command) throws IOException {
        StreamOptions options = StreamOptions.defaults();
        if (command.has("state")) {
            options = options.withState(command.get("state").getAsString());
        }
        if (command.has("store")) {
            options = options.withStore(Store.file(Path.of(command.get("store").getAsString())));
        }
        if (command.has("save_every")) {
            options = options.withSaveEvery(seconds(command.get("save_every")));
        }
        if (command.has("timeout")) {
            options = options.withTimeout(seconds(command.get("timeout")));
        }
        if (command.has("connect_timeout")) {
            options = options.withConnectTimeout(seconds(command.get("connect_timeout")));
        }
        if (command.has("max_outage")) {
            options = options.withMaxOutage(seconds(command.get("max_outage")));
        }
        if (command.has("commit_every")) {
            options = options.withCommitEvery(seconds(command.get("commit_every")));
        }
        String request = command.get("request").toString();
        switch (command.get("kind").getAsString()) {
            case "countdown" -> read(client.countdown(parse(request, CountdownRequest.newBuilder()).build(), options), command);
            case "lines" -> read(client.readLines(parse(request, ReadLinesRequest.newBuilder()).build(), options), command);
            case "messages" -> read(client.messages(parse(request, MessagesRequest.newBuilder()).build(), options), command);
            default -> throw new IllegalArgumentException("unknown kind");
        }
    }

    private <T extends Message, E extends Message> void read(ItemStream<T, E> items, JsonObject command) throws IOException {
        boolean withEvents = flag(command, "events");
        boolean withStates = flag(command, "states");
        boolean commits = flag(command, "consumer_commit");
        boolean isPaced = command.has("credit");
        if (isPaced) {
            // The last item of the credit waits in the body of the loop.
            credit.release(Math.max(0, command.get("credit").getAsInt() - 1));
        }
        PerennialStream<?> values = withEvents ? items.withEvents() : items;
        stream = values;
        if (isStopped) {
            return;
        }
        long skipped = 0;
        try (values) {
            for (Object value : values) {
                if (!withEvents && values.skippedTicks() > skipped) {
                    print("{\"skipped\":" + (values.skippedTicks() - skipped) + "}");
                    skipped = values.skippedTicks();
                }
                Object item = value;
                if (value instanceof Element<?, ?> element) {
                    if (element instanceof Element.Item<?, ?> one) {
                        item = one.value();
                    } else {
                        print(event(element));
                        continue;
                    }
                }
                String state = withStates ? ",\"state\":" + new com.google.gson.JsonPrimitive(values.state().orElse("")) : "";
                print("{\"item\":" + json((Message) item) + state + "}");
                if (commits) {
                    values.commit();
                }
                if (isPaced) {
                    credit.acquireUninterruptibly();
                    if (isStopped) {
                        return;
                    }
                }
            }
        }
    }

    private static String event(Element<?, ?> element) throws IOException {
        if (element instanceof Element.Skipped<?, ?> skipped) {
            return "{\"skipped\":" + skipped.count() + "}";
        }
        if (element instanceof Element.Event<?, ?> event) {
            Object value = event.value();
            boolean isKnown = value instanceof LineStreamEvent line
                    ? line.getEventCase() != LineStreamEvent.EventCase.EVENT_NOT_SET
                    : value instanceof MessageStreamEvent message
                            ? message.getEventCase() != MessageStreamEvent.EventCase.EVENT_NOT_SET
                            : ((CountdownStreamEvent) value).getEventCase()
                                    != CountdownStreamEvent.EventCase.EVENT_NOT_SET;
            return "{\"event\":" + (isKnown ? json((Message) value) : "{\"unknown\":true}") + "}";
        }
        return "{\"caught_up\":true}";
    }

    private void publish(PerennialClient client, JsonObject command) {
        int count = command.get("count").getAsInt();
        int first = command.has("first") ? command.get("first").getAsInt() : 0;
        String prefix = command.has("prefix") ? command.get("prefix").getAsString() : "";
        String topic = command.get("topic").getAsString();
        Duration window = command.has("dedupe_window") ? seconds(command.get("dedupe_window")) : Duration.ofMinutes(2);
        Queue<CompletableFuture<Receipt>> receipts = new ArrayDeque<>();
        try (Publisher publisher = client.publisher(window)) {
            this.publisher = publisher;
            int printed = first;
            for (int n = first; n < first + count; n++) {
                receipts.add(publisher.publish(topic, prefix + n));
                while (!receipts.isEmpty() && receipts.peek().isDone()) {
                    print(receipt(printed++, receipts.remove()));
                }
            }
            while (!receipts.isEmpty()) {
                print(receipt(printed++, receipts.remove()));
            }
        }
    }

    private static String receipt(int n, CompletableFuture<Receipt> answer) {
        JsonObject body = new JsonObject();
        body.addProperty("n", n);
        try {
            Receipt receipt = answer.join();
            body.addProperty("sequence", Long.toString(receipt.sequence()));
            body.addProperty("duplicate", receipt.duplicate());
        } catch (CompletionException failed) {
            if (!(failed.getCause() instanceof PerennialException error)) {
                throw failed;
            }
            body.add("error", JsonParser.parseString(error(error)).getAsJsonObject().get("error"));
        }
        return wrap("receipt", body);
    }

    private void call(PerennialClient client, JsonObject command) throws IOException {
        String request = command.get("request").toString();
        Message response = switch (command.get("method").getAsString()) {
            case "GetCountdown" -> client.call(
                    CountdownServiceGrpc.getGetCountdownMethod(), parse(request, GetCountdownRequest.newBuilder()).build());
            case "CreateCountdown" -> client.createCountdown(parse(request, CreateCountdownRequest.newBuilder()).build());
            case "ListTopics" -> client.call(
                    MessageServiceGrpc.getListTopicsMethod(), parse(request, ListTopicsRequest.newBuilder()).build());
            case "ListFiles" -> client.call(
                    LineServiceGrpc.getListFilesMethod(), parse(request, ListFilesRequest.newBuilder()).build());
            case "Publish" -> client.publish(parse(request, PublishRequest.newBuilder()).build());
            default -> throw new IllegalArgumentException("unknown method");
        };
        print("{\"response\":" + json(response) + "}");
    }

    private void bench(PerennialClient client, JsonObject command) throws IOException {
        ReadLinesRequest request = parse(command.get("request").toString(), ReadLinesRequest.newBuilder()).build();
        long start = System.nanoTime();
        long items = 0;
        long bytes = 0;
        try (ItemStream<Line, LineStreamEvent> lines = client.readLines(request, StreamOptions.defaults())) {
            stream = lines;
            for (Line line : lines) {
                items++;
                bytes += line.getText().length();
            }
        }
        print(bench(items, bytes, start));
    }

    /** The same with the generated code alone. */
    private void generated(JsonObject command) throws IOException {
        ReadLinesRequest request = parse(command.get("request").toString(), ReadLinesRequest.newBuilder()).build();
        String target = command.get("server").getAsString().replaceFirst("^http://", "");
        ManagedChannel channel = NettyChannelBuilder.forTarget(target).usePlaintext().build();
        long start = System.nanoTime();
        long items = 0;
        long bytes = 0;
        Iterator<ReadLinesResponse> responses = LineServiceGrpc.newBlockingStub(channel).readLines(request);
        while (responses.hasNext()) {
            for (Line line : responses.next().getLinesList()) {
                items++;
                bytes += line.getText().length();
            }
        }
        print(bench(items, bytes, start));
        print("{\"end\":\"ok\"}");
    }

    private static String bench(long items, long bytes, long start) {
        double seconds = (System.nanoTime() - start) / 1e9;
        return "{\"bench\":{\"items\":" + items + ",\"bytes\":" + bytes + ",\"seconds\":" + seconds + "}}";
    }

    private static String error(PerennialException error) {
        JsonObject body = new JsonObject();
        body.addProperty("code", error.code().name());
        body.addProperty("reason", error.reason());
        body.addProperty("field", error.field());
        JsonObject metadata = new JsonObject();
        error.metadata().forEach(metadata::addProperty);
        body.add("metadata", metadata);
        body.addProperty("message", error.getMessage());
        body.addProperty("retryable", error.isRetryable());
        String kind = error instanceof StateException
                ? "state"
                : error instanceof GapException
                        ? "gap"
                        : error instanceof OutcomeUnknownException
                                ? "outcome_unknown"
                                : error instanceof ProtocolException ? "protocol" : null;
        if (kind != null) {
            body.addProperty("kind", kind);
        }
        return wrap("error", body);
    }

    private static String wrap(String name, JsonObject body) {
        JsonObject line = new JsonObject();
        line.add(name, body);
        return line.toString();
    }

    private static <B extends Message.Builder> B parse(String json, B builder) throws IOException {
        JsonFormat.parser().merge(json, builder);
        return builder;
    }

    private static String json(MessageOrBuilder message) throws InvalidProtocolBufferException {
        return JsonFormat.printer().omittingInsignificantWhitespace().print(message);
    }

    private static Duration seconds(JsonElement number) {
        return Duration.ofNanos(Math.round(number.getAsDouble() * 1e9));
    }

    private static boolean flag(JsonObject command, String name) {
        return command.has(name) && command.get(name).getAsBoolean();
    }

    private void print(String line) {
        synchronized (out) {
            out.println(line);
            out.flush();
        }
    }
}
