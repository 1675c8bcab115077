package dev.perennial.client;

import com.google.protobuf.Message;
import dev.perennial.v1.FileStreamEvent;
import dev.perennial.v1.LineServiceGrpc;
import dev.perennial.v1.WatchFilesRequest;
import dev.perennial.v1.WatchFilesResponse;
import io.grpc.MethodDescriptor;
import java.util.List;

/** {@code WatchFiles}. An item is a response, with its events, so a cursor is after each item. */
final class FilesKind extends Kind<WatchFilesRequest, WatchFilesResponse, WatchFilesResponse, FileStreamEvent> {
    @Override
    String name() {
        return "files";
    }

    @Override
    MethodDescriptor<WatchFilesRequest, WatchFilesResponse> method() {
        return LineServiceGrpc.getWatchFilesMethod();
    }

    @Override
    WatchFilesRequest request(WatchFilesRequest request, String cursor, Long limit) {
        // The reader counts responses, and the server changes.
        return cursor == null ? request : request.toBuilder().setCursor(cursor).build();
    }

    @Override
    String cursorOf(WatchFilesRequest request) {
        return request.hasCursor() ? request.getCursor() : null;
    }

    @Override
    Long limitOf(WatchFilesRequest request) {
        return null;
    }

    @Override
    com.google.protobuf.Duration heartbeatOf(WatchFilesRequest request) {
        return request.hasHeartbeat() ? request.getHeartbeat() : null;
    }

    @Override
    String cursor(WatchFilesResponse response) {
        return response.getCursor();
    }

    @Override
    List<WatchFilesResponse> items(WatchFilesResponse response) {
        return List.of(response);
    }

    @Override
    List<FileStreamEvent> events(WatchFilesResponse response) {
        return List.of();
    }

    @Override
    Message gap(FileStreamEvent event) {
        return null;
    }

    @Override
    boolean dropsEvent(FileStreamEvent event) {
        return false;
    }

    @Override
    WatchFilesResponse unlessDone(WatchFilesResponse response) {
        return response;
    }

    @Override
    Key key(WatchFilesResponse response) {
        throw new IllegalStateException("a response is the only item in it");
    }
}
