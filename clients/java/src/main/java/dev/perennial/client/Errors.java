package dev.perennial.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.perennial.v1.PublishError;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.security.cert.CertPathBuilderException;
import java.security.cert.CertificateException;
import java.time.Duration;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLException;

/** Statuses as exceptions, and the one rule of what is retried. */
final class Errors {
    /** The domain of the reasons of the server. */
    static final String DOMAIN = "perennial";

    /** The codes by which proxies, transports and libraries report a lost connection. */
    private static final Set<Status.Code> LOST = Set.of(
            Status.Code.UNAVAILABLE,
            Status.Code.UNKNOWN,
            Status.Code.INTERNAL,
            Status.Code.ABORTED,
            Status.Code.CANCELLED);

    private Errors() {}

    /**
     * The error of a call that ended with this status.
     *
     * <p>An error with an ErrorInfo of the domain of the server is retried if it also has a RetryInfo, whatever its reason.
     * Any other error is retried after the codes of a lost connection.
     */
    static PerennialException of(Status status, Metadata trailers) {
        ErrorInfo info = null;
        Duration retryDelay = null;
        String field = "";
        com.google.rpc.Status details = StatusProto.fromStatusAndTrailers(status, trailers);
        for (com.google.protobuf.Any detail : details.getDetailsList()) {
            try {
                if (detail.is(ErrorInfo.class)) {
                    ErrorInfo found = detail.unpack(ErrorInfo.class);
                    // A proxy may answer with an ErrorInfo of its own domain.
                    info = found.getDomain().equals(DOMAIN) ? found : info;
                } else if (detail.is(RetryInfo.class)) {
                    retryDelay = duration(detail.unpack(RetryInfo.class).getRetryDelay());
                } else if (detail.is(BadRequest.class)) {
                    BadRequest request = detail.unpack(BadRequest.class);
                    field = request.getFieldViolationsCount() > 0 ? request.getFieldViolations(0).getField() : field;
                }
            } catch (InvalidProtocolBufferException malformed) {
                // A detail that cannot be read gives no fact; the code and the text remain.
                continue;
            }
        }
        String message = status.getDescription();
        if (message == null) {
            message = "the call ended with " + status.getCode();
        }
        boolean retryable;
        if (info != null) {
            retryable = retryDelay != null;
        } else {
            retryable = LOST.contains(status.getCode()) && !isDistrust(status.getCause());
            Throwable cause = innermost(status.getCause());
            message = cause == null || cause.getMessage() == null ? message : message + ": " + cause.getMessage();
        }
        return new PerennialException(
                status.getCode(),
                info == null ? "" : info.getReason(),
                field,
                info == null ? Map.of() : info.getMetadataMap(),
                message,
                retryDelay,
                retryable,
                status.getCause());
    }

    /** The error of one message of a flow. */
    static PerennialException of(PublishError error) {
        Duration retryDelay = error.hasRetryDelay() ? duration(error.getRetryDelay()) : null;
        String reason = error.getReasonValue() == 0 ? "" : error.getReason().name();
        if (error.getReason() == dev.perennial.v1.ErrorReason.UNRECOGNIZED) {
            reason = Integer.toString(error.getReasonValue());
        }
        return new PerennialException(
                Status.fromCodeValue(error.getCode()).getCode(),
                reason,
                error.getField(),
                error.getMetadataMap(),
                error.getMessage(),
                retryDelay,
                retryDelay != null,
                null);
    }

    /** A stream, or a flow, from which nothing arrived for this long. */
    static PerennialException silent(Duration waited) {
        String message = "nothing arrived for " + waited.toMillis() / 1e3 + " s, not even a heartbeat";
        return new PerennialException(Status.Code.UNAVAILABLE, "", "", Map.of(), message, null, true, null);
    }

    static PerennialException deadline(Duration timeout) {
        String message = "the deadline of " + timeout.toMillis() / 1e3 + " s passed; the last state still resumes";
        return new PerennialException(Status.Code.DEADLINE_EXCEEDED, message, null);
    }

    static PerennialException clientClosed() {
        return new PerennialException(Status.Code.CANCELLED, "the client is closed", null);
    }

    /** The message that has the sequence of the last one that was handed out is another message. */
    static PerennialException diverged(long sequence) {
        String message = "the log holds another message of sequence " + sequence + " than the one that was handed out: "
                + "a copy of the server's data was restored; start without the saved state";
        return new PerennialException(
                Status.Code.OUT_OF_RANGE, "LOG_DIVERGED", "", Map.of(), message, null, false, null);
    }

    /** Whether client and server do not trust each other, so that the next connection fails as well. */
    private static boolean isDistrust(Throwable cause) {
        for (Throwable at = cause; at != null; at = at.getCause()) {
            if (at instanceof CertificateException || at instanceof CertPathBuilderException) {
                return true;
            }
            String message = at.getMessage();
            if (at instanceof SSLException && message != null && message.toUpperCase(Locale.ROOT).contains("ALERT")) {
                return true;
            }
        }
        return false;
    }

    private static Throwable innermost(Throwable cause) {
        Throwable at = cause;
        while (at != null && at.getCause() != null) {
            at = at.getCause();
        }
        return at;
    }

    static Duration duration(com.google.protobuf.Duration duration) {
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }
}
