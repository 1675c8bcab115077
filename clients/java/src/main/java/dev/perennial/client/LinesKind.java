package dev.perennial.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import dev.perennial.v1.FileResumedFound;
import dev.perennial.v1.Line;
import dev.perennial.v1.LineServiceGrpc;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.ReadLinesRequest;
import dev.perennial.v1.ReadLinesResponse;
import io.grpc.MethodDescriptor;
import java.util.List;

/** {@code ReadLines}. */
final class LinesKind extends Kind<ReadLinesRequest, ReadLinesResponse, Line, LineStreamEvent> {
    static final String NAME = "lines";

    /** The switches of the last response. */
    private int switches;

    @Override
    String name() {
        return NAME;
    }

    @Override
    MethodDescriptor<ReadLinesRequest, ReadLinesResponse> method() {
        return LineServiceGrpc.getReadLinesMethod();
    }

    @Override
    ReadLinesRequest request(ReadLinesRequest request, String cursor, Long limit) {
        ReadLinesRequest.Builder builder = request.toBuilder().clearLimit();
        if (cursor != null) {
            builder.setCursor(cursor);
        }
        if (limit != null) {
            builder.setLimit(limit);
        }
        return builder.build();
    }

    @Override
    String cursorOf(ReadLinesRequest request) {
        return request.hasCursor() ? request.getCursor() : null;
    }

    @Override
    Long limitOf(ReadLinesRequest request) {
        return request.hasLimit() ? (Long) request.getLimit() : null;
    }

    @Override
    com.google.protobuf.Duration heartbeatOf(ReadLinesRequest request) {
        return request.hasHeartbeat() ? request.getHeartbeat() : null;
    }

    @Override
    String cursor(ReadLinesResponse response) {
        return response.getCursor();
    }

    @Override
    List<Line> items(ReadLinesResponse response) {
        return response.getLinesList();
    }

    @Override
    List<LineStreamEvent> events(ReadLinesResponse response) {
        return response.getEventsList();
    }

    @Override
    boolean caughtUp(ReadLinesResponse response) {
        return response.getCaughtUp();
    }

    @Override
    void onResponse(ReadLinesResponse response) {
        switches = 0;
        for (LineStreamEvent event : response.getEventsList()) {
            switch (event.getEventCase()) {
                case ROTATED, TRUNCATED, OPENED, LATE -> switches++;
                default -> {}
            }
        }
    }

    @Override
    Message gap(LineStreamEvent event) {
        return event.hasGap() ? event.getGap() : null;
    }

    @Override
    boolean dropsEvent(LineStreamEvent event) {
        if (event.hasResumed() && event.getResumed().getFound() == FileResumedFound.FILE_RESUMED_FOUND_LOST) {
            // What follows is from another file.
            setPending(null);
        }
        return false;
    }

    @Override
    Line unlessDone(Line line) {
        Key.OfLine key = (Key.OfLine) pending();
        if (key == null || switches < key.switches()) {
            // A line before the key that comes now was written late, after the process had passed its place.
            return line;
        }
        if (switches > key.switches() || line.getOffset() > key.offset()) {
            setPending(null);
            return line;
        }
        if (key.bytes() == null) {
            return null;
        }
        long done = key.offset() + key.bytes();
        long length = bytes(line);
        if (line.getOffset() + length <= done) {
            return null;
        }
        setPending(null);
        return rest(line, (int) (done - line.getOffset()));
    }

    @Override
    Key fromItsCursor(Key key) {
        if (!(key instanceof Key.OfLine line)) {
            return null;
        }
        // With more switches than the key, everything up to the key is behind the cursor.
        return switches > line.switches() ? null : new Key.OfLine(line.switches() - switches, line.offset(), line.bytes());
    }

    /** The line from this byte of its content on. */
    private static Line rest(Line line, int from) {
        Line.Builder rest = line.toBuilder().setOffset(line.getOffset() + from).setContinued(true);
        ByteString content = line.hasData() ? line.getData() : line.getTextBytes();
        ByteString left = content.substring(Math.min(from, content.size()));
        if (line.hasData() || !left.isValidUtf8()) {
            return rest.setData(left).build();
        }
        return rest.setTextBytes(left).build();
    }

    private static long bytes(Line line) {
        return line.hasData() ? line.getData().size() : line.getTextBytes().size();
    }

    @Override
    Key key(Line line) {
        Long bytes = line.getPartial() || line.getNoNewline() ? (Long) bytes(line) : null;
        return new Key.OfLine(switches, line.getOffset(), bytes);
    }
}
