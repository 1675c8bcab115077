package dev.perennial.client;

import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import dev.perennial.v1.MessageGap;
import dev.perennial.v1.MessageGapReason;
import dev.perennial.v1.MessageServiceGrpc;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.MessagesRequest;
import dev.perennial.v1.MessagesResponse;
import dev.perennial.v1.StoredMessage;
import io.grpc.MethodDescriptor;
import java.util.List;

/** {@code Messages}. */
final class MessagesKind extends Kind<MessagesRequest, MessagesResponse, StoredMessage, MessageStreamEvent> {
    static final String NAME = "messages";

    @Override
    String name() {
        return NAME;
    }

    @Override
    MethodDescriptor<MessagesRequest, MessagesResponse> method() {
        return MessageServiceGrpc.getMessagesMethod();
    }

    @Override
    MessagesRequest request(MessagesRequest request, String cursor, Long limit) {
        MessagesRequest.Builder builder = request.toBuilder().clearLimit();
        if (cursor != null) {
            builder.setCursor(cursor);
        }
        if (limit != null) {
            builder.setLimit(limit);
        }
        return builder.build();
    }

    @Override
    String cursorOf(MessagesRequest request) {
        return request.hasCursor() ? request.getCursor() : null;
    }

    @Override
    Long limitOf(MessagesRequest request) {
        return request.hasLimit() ? (Long) request.getLimit() : null;
    }

    @Override
    com.google.protobuf.Duration heartbeatOf(MessagesRequest request) {
        return request.hasHeartbeat() ? request.getHeartbeat() : null;
    }

    @Override
    String cursor(MessagesResponse response) {
        return response.getCursor();
    }

    @Override
    List<StoredMessage> items(MessagesResponse response) {
        return response.getMessagesList();
    }

    @Override
    List<MessageStreamEvent> events(MessagesResponse response) {
        return response.getEventsList();
    }

    @Override
    boolean caughtUp(MessagesResponse response) {
        return response.getCaughtUp();
    }

    @Override
    Message gap(MessageStreamEvent event) {
        return event.hasGap() ? event.getGap() : null;
    }

    @Override
    boolean dropsEvent(MessageStreamEvent event) {
        if (!event.hasGap() || !(pending() instanceof Key.OfMessage key)) {
            return false;
        }
        MessageGap gap = event.getGap();
        if (gap.getReason() == MessageGapReason.MESSAGE_GAP_REASON_DIVERGED) {
            // Sequences may go back from here on, so none of those that follow was handed out.
            setPending(null);
            return false;
        }
        return gap.hasLastSequence() && gap.getLastSequence() <= key.sequence();
    }

    @Override
    StoredMessage unlessDone(StoredMessage message) {
        Key.OfMessage key = (Key.OfMessage) pending();
        if (key == null) {
            return message;
        }
        if (message.getSequence() > key.sequence()) {
            setPending(null);
            return message;
        }
        if (message.getSequence() == key.sequence() && nanos(message.getPublishTime()) != key.publishTime()) {
            throw Errors.diverged(key.sequence());
        }
        return null;
    }

    @Override
    Key key(StoredMessage message) {
        return new Key.OfMessage(message.getSequence(), nanos(message.getPublishTime()));
    }

    private static long nanos(Timestamp time) {
        return time.getSeconds() * 1_000_000_000 + time.getNanos();
    }
}
