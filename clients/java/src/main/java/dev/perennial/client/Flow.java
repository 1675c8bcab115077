package dev.perennial.client;

import dev.perennial.v1.PublishRequest;
import dev.perennial.v1.PublishResponse;
import dev.perennial.v1.PublishResult;
import dev.perennial.v1.PublishStreamRequest;
import dev.perennial.v1.PublishStreamResponse;
import io.grpc.Metadata;
import io.grpc.Status;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Queue;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The thread of a {@link Publisher}. It alone sends requests and takes answers; callers add messages to the queue of those
 * that were not sent, and wait for room.
 */
final class Flow implements Runnable {
    private static final int WINDOW_MESSAGES = 8_192;
    private static final long WINDOW_BYTES = 16L * 1024 * 1024;
    private static final int REQUEST_MESSAGES = 1_024;
    private static final int REQUEST_BYTES = 256 * 1024;
    /** A flow whose answers stop for this long is lost. */
    private static final Duration SILENCE = Duration.ofSeconds(30);
    /** How long the end of an answered call is awaited. */
    private static final Duration END = Duration.ofSeconds(2);
    /**
     * A call ends this long before the server may forget the id of a message that the call has sent again: what was given to
     * the transport may arrive until then.
     */
    private static final Duration LAST = Duration.ofSeconds(10);
    /** A message is sent again only if there is the time for an answer before. */
    private static final Duration MARGIN = SILENCE.plus(LAST);

    private final PerennialClient client;
    private final Publisher publisher;
    private final long safeNanos;
    private final long knownNanos;
    private final Retries retries;
    private final String prefix;
    private final Thread thread;

    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final LinkedBlockingQueue<FlowCall.Signal> signals = new LinkedBlockingQueue<>();

    // Under the lock.
    private final Queue<Entry> unsent = new ArrayDeque<>();
    private long lastId;
    private int messages;
    private long bytes;
    private boolean isClosing;
    private RuntimeException failure;
    /** Whether the caller has got the failure. */
    private boolean hasThrown;

    // Of the thread.
    /** What was sent on the open call, in the order of the answers. */
    private ArrayDeque<Entry> sent = new ArrayDeque<>();
    /** What was sent on a lost call, and is sent again before all others. */
    private ArrayDeque<Entry> again = new ArrayDeque<>();

    private FlowCall call;
    /** Whether something from the server is due: the connection, or an answer. */
    private boolean isDue;
    /** When that began, or when the last answer arrived. */
    private long heardAt;

    Flow(PerennialClient client, Duration dedupeWindow, Publisher publisher) {
        this.client = client;
        this.publisher = publisher;
        safeNanos = Math.max(0, Times.nanos(dedupeWindow) - Times.nanos(MARGIN));
        knownNanos = Math.max(0, Times.nanos(dedupeWindow) - Times.nanos(LAST));
        retries = new Retries(client.observer(), client.connectTimeout(), null);
        UUID uuid = UUID.randomUUID();
        ByteBuffer id = ByteBuffer.allocate(16);
        id.putLong(uuid.getMostSignificantBits()).putLong(uuid.getLeastSignificantBits());
        prefix = Base64.getUrlEncoder().withoutPadding().encodeToString(id.array());
        thread = new Thread(this, "perennial-publisher");
        thread.setDaemon(true);
    }

    void start() {
        thread.start();
    }

    CompletableFuture<Receipt> publish(PublishRequest message) {
        lock.lock();
        try {
            while (failure == null && !isClosing && (messages >= WINDOW_MESSAGES || bytes >= WINDOW_BYTES)) {
                refuseToWaitForItself("the window is full");
                awaitChange();
            }
            throwFailure();
            if (isClosing) {
                throw new IllegalStateException("the publisher is closed");
            }
            lastId++;
            PublishRequest named =
                    message.hasMessageId() ? message : message.toBuilder().setMessageId(prefix + "-" + lastId).build();
            Entry entry = new Entry(named);
            messages++;
            bytes += entry.bytes;
            unsent.add(entry);
            if (unsent.size() == 1) {
                signals.add(FlowCall.WAKE);
            }
            return entry.receipt;
        } finally {
            lock.unlock();
        }
    }

    private void throwFailure() {
        if (failure != null) {
            hasThrown = true;
            throw failure;
        }
    }

    void flush() {
        lock.lock();
        try {
            while (failure == null && messages > 0) {
                refuseToWaitForItself("messages have no answer yet");
                awaitChange();
            }
            throwFailure();
        } finally {
            lock.unlock();
        }
    }

    void close() {
        refuseToWaitForItself("the publisher waits for all answers when it is closed");
        lock.lock();
        try {
            if (!isClosing && failure == null) {
                isClosing = true;
                signals.add(FlowCall.WAKE);
            }
            changed.signalAll();
        } finally {
            lock.unlock();
        }
        try {
            thread.join();
        } catch (InterruptedException interrupted) {
            cancel();
            Thread.currentThread().interrupt();
            throw new CancellationException("the thread was interrupted");
        }
        // In a try-with-resources the same exception cannot be thrown by the body and by the close.
        if (failure != null && !hasThrown && !(failure instanceof CancellationException)) {
            throw failure;
        }
    }

    void cancel() {
        end(new CancellationException("the publisher was cancelled"));
        signals.add(FlowCall.WAKE);
    }

    /** An action of a receipt may run on the thread of the flow, which brings what the action would wait for. */
    private void refuseToWaitForItself(String why) {
        if (Thread.currentThread() == thread) {
            throw new IllegalStateException(
                    why + ", and this thread would wait for itself: attach the action to the receipt with an executor");
        }
    }

    private void awaitChange() {
        try {
            changed.await();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new CancellationException("the thread was interrupted");
        }
    }

    @Override
    public void run() {
        try {
            while (step()) {
                continue;
            }
        } catch (RuntimeException | Error thrown) {
            end(thrown instanceof RuntimeException known ? known : new IllegalStateException(thrown));
        } finally {
            client.closed(publisher);
            RuntimeException reason = failure();
            drop();
            if (reason != null) {
                entries().forEach(entry -> entry.receipt.completeExceptionally(reason));
            }
        }
    }

    /** Everything that is unanswered, in its order. */
    private List<Entry> entries() {
        lock.lock();
        try {
            List<Entry> all = new ArrayList<>(sent);
            all.addAll(again);
            all.addAll(unsent);
            return all;
        } finally {
            lock.unlock();
        }
    }

    /** Sends what can be sent, and reacts to one signal. Returns false at the end. */
    private boolean step() {
        if (failure() != null) {
            return false;
        }
        try {
            send();
            if (isDone()) {
                finish();
                return false;
            }
            FlowCall.Signal signal = next();
            if (call != null && call.isAccepted) {
                retries.accepted();
            }
            if (signal == null) {
                client.channels().replace(call.connection);
                throw Errors.silent(Duration.ofNanos(System.nanoTime() - heardAt));
            }
            if (signal.call() == null || signal.call() != call) {
                return true;
            }
            if (signal.answer() != null) {
                retries.delivered();
                heardAt = System.nanoTime();
                call.grpc.request(1);
                answered(signal.answer());
            } else {
                ended(signal);
            }
        } catch (PerennialException error) {
            lost();
            if (error instanceof ProtocolException) {
                throw error;
            }
            retries.waitOut(error, this::pause);
        }
        return true;
    }

    /** The call has ended. Without unanswered messages that is no fault: the next message opens another. */
    private void ended(FlowCall.Signal signal) {
        boolean isIdle = sent.isEmpty() && !hasMore();
        call = null;
        if (signal.status().isOk() && (!sent.isEmpty() || (!isIdle && retries.isFirstResponse()))) {
            throw new PerennialException(
                    Status.Code.UNAVAILABLE,
                    "",
                    "",
                    java.util.Map.of(),
                    "the server ended the flow before it had answered all messages",
                    null,
                    true,
                    null);
        }
        if (!signal.status().isOk()) {
            PerennialException error = Errors.of(signal.status(), signal.trailers());
            if (!isIdle || !error.isRetryable()) {
                throw error;
            }
        }
    }

    private FlowCall.Signal next() {
        try {
            boolean wasDue = isDue;
            isDue = call != null && (!sent.isEmpty() || hasMore());
            if (!isDue) {
                return signals.take();
            }
            heardAt = wasDue ? heardAt : System.nanoTime();
            long rest = heardAt + SILENCE.toNanos() - System.nanoTime();
            if (retries.isFirstResponse() && !call.isAccepted) {
                rest = Math.min(rest, retries.rest().toNanos());
            }
            // Answers to the messages before may still come, so silence does not end the call.
            rest = Math.min(rest, idsKnownFor(sent.peek(), knownNanos, System.nanoTime()));
            return signals.poll(Math.max(0, rest), TimeUnit.NANOSECONDS);
        } catch (InterruptedException interrupted) {
            throw new CancellationException("the thread of the publisher was interrupted");
        }
    }

    /**
     * How long a call may go on until the server may forget the id of the oldest message that it has sent, in nanoseconds;
     * without a limit, if it has not sent the message again.
     */
    static long idsKnownFor(Entry oldest, long knownNanos, long now) {
        return oldest != null && oldest.isAgain ? oldest.sentAt + knownNanos - now : Long.MAX_VALUE;
    }

    private boolean hasMore() {
        lock.lock();
        try {
            return !again.isEmpty() || !unsent.isEmpty();
        } finally {
            lock.unlock();
        }
    }

    /**
     * Sends requests while there are messages and the transport takes them. A call takes none before it is connected: it
     * would keep a message until then, which may be longer than the server knows its id.
     */
    private void send() {
        if (call == null && hasMore()) {
            open();
        }
        while (call != null && call.grpc.isReady()) {
            List<Entry> entries = nextEntries();
            if (entries.isEmpty()) {
                return;
            }
            long now = System.nanoTime();
            PublishStreamRequest.Builder request = PublishStreamRequest.newBuilder();
            for (Entry entry : entries) {
                entry.isAgain = entry.sentAt != 0;
                entry.sentAt = entry.isAgain ? entry.sentAt : now;
                request.addMessages(entry.message);
                take(entry);
                sent.add(entry);
            }
            call.grpc.sendMessage(request.build());
        }
    }

    /** The messages of the next request, which stay in their queues. */
    private List<Entry> nextEntries() {
        long now = System.nanoTime();
        again.removeIf(entry -> {
            boolean isUnknown = entry.sentAt != 0 && now - entry.sentAt > safeNanos;
            if (isUnknown) {
                complete(entry, null, new OutcomeUnknownException(entry.message.getMessageId()));
            }
            return isUnknown;
        });
        List<Entry> entries = new ArrayList<>();
        long size = 0;
        lock.lock();
        try {
            for (Queue<Entry> queue : List.of(again, unsent)) {
                for (Entry entry : queue) {
                    size += entry.bytes;
                    if (!entries.isEmpty() && (size > REQUEST_BYTES || entries.size() >= REQUEST_MESSAGES)) {
                        return entries;
                    }
                    entries.add(entry);
                }
            }
            return entries;
        } finally {
            lock.unlock();
        }
    }

    private void take(Entry entry) {
        if (again.peek() == entry) {
            again.remove();
            return;
        }
        lock.lock();
        try {
            unsent.remove();
        } finally {
            lock.unlock();
        }
    }

    private void open() {
        retries.opened();
        Channels.Connection connection = client.channels().connection();
        Metadata headers = client.headers();
        call = new FlowCall(connection, signals);
        call.grpc.start(call, headers);
        call.grpc.request(2);
        isDue = false;
    }

    private void answered(PublishStreamResponse answer) {
        for (PublishResult result : answer.getResultsList()) {
            Entry entry = sent.poll();
            if (entry == null) {
                throw new ProtocolException("it answered messages that it did not get");
            }
            if (result.hasPublished()) {
                PublishResponse published = result.getPublished();
                Instant time = Instant.ofEpochSecond(
                        published.getPublishTime().getSeconds(), published.getPublishTime().getNanos());
                Receipt receipt = new Receipt(
                        published.getSequence(), time, published.getDuplicate(), published.getDurability());
                complete(entry, receipt, null);
            } else if (result.hasError()) {
                complete(entry, null, Errors.of(result.getError()));
            } else {
                complete(entry, null, new ProtocolException("an answer to a message has no outcome that is known"));
            }
        }
    }

    private void complete(Entry entry, Receipt receipt, PerennialException error) {
        if (error == null) {
            entry.receipt.complete(receipt);
        } else {
            entry.receipt.completeExceptionally(error);
        }
        lock.lock();
        try {
            messages--;
            bytes -= entry.bytes;
            changed.signalAll();
        } finally {
            lock.unlock();
        }
    }

    /** Everything that was sent and not answered is sent again, before what was not sent. */
    private void lost() {
        drop();
        ArrayDeque<Entry> all = sent;
        all.addAll(again);
        again = all;
        sent = new ArrayDeque<>();
    }

    private void drop() {
        if (call != null) {
            call.grpc.cancel("another attempt follows", null);
            call = null;
        }
    }

    private void pause(Duration wait) {
        long end = System.nanoTime() + Times.nanos(wait);
        for (long rest = Times.nanos(wait); rest > 0; rest = end - System.nanoTime()) {
            try {
                signals.poll(rest, TimeUnit.NANOSECONDS);
            } catch (InterruptedException interrupted) {
                throw new CancellationException("the thread of the publisher was interrupted");
            }
            if (failure() != null) {
                return;
            }
        }
    }

    private boolean isDone() {
        lock.lock();
        try {
            return isClosing && messages == 0;
        } finally {
            lock.unlock();
        }
    }

    /** Ends the call after the last answer. The server counts a call that is dropped as one whose client went away. */
    private void finish() {
        if (call == null) {
            return;
        }
        call.grpc.halfClose();
        long end = System.nanoTime() + END.toNanos();
        try {
            for (long rest = END.toNanos(); rest > 0; rest = end - System.nanoTime()) {
                FlowCall.Signal signal = signals.poll(rest, TimeUnit.NANOSECONDS);
                if (signal != null && signal.call() == call && signal.answer() == null) {
                    call = null;
                    return;
                }
            }
        } catch (InterruptedException interrupted) {
            // Every message has its answer; the call is dropped instead.
            return;
        }
    }

    private RuntimeException failure() {
        lock.lock();
        try {
            return failure;
        } finally {
            lock.unlock();
        }
    }

    private void end(RuntimeException reason) {
        lock.lock();
        try {
            failure = failure == null ? reason : failure;
            changed.signalAll();
        } finally {
            lock.unlock();
        }
    }
}
