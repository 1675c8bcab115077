package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.perennial.v1.ErrorReason;
import dev.perennial.v1.PublishError;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.security.cert.CertificateException;
import java.util.Optional;
import java.util.Set;
import javax.net.ssl.SSLHandshakeException;
import org.junit.jupiter.api.Test;

class ErrorsTest {
    private static PerennialException error(Status.Code code, Message... details) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("text");
        for (Message detail : details) {
            status.addDetails(Any.pack(detail));
        }
        StatusRuntimeException thrown = StatusProto.toStatusRuntimeException(status.build());
        return Errors.of(thrown.getStatus(), thrown.getTrailers());
    }

    private static ErrorInfo info(String reason, String domain) {
        return ErrorInfo.newBuilder().setReason(reason).setDomain(domain).putMetadata("limit", "7").build();
    }

    @Test
    void aReasonOfTheServerIsRetriedIfItHasADelayWhateverItsCode() {
        RetryInfo delay = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setNanos(500_000_000)).build();
        for (Status.Code code : Status.Code.values()) {
            if (code == Status.Code.OK) {
                continue;
            }
            for (String reason : new String[] {"DRAINING", "A_REASON_OF_TOMORROW"}) {
                PerennialException retried = error(code, info(reason, "perennial"), delay);
                assertTrue(retried.isRetryable(), code + reason);
                assertEquals(Optional.of(java.time.Duration.ofMillis(500)), retried.retryDelay());
                PerennialException last = error(code, info(reason, "perennial"));
                assertFalse(last.isRetryable(), code + reason);
                assertEquals(reason, last.reason());
                assertEquals("7", last.metadata().get("limit"));
            }
        }
    }

    @Test
    void withoutAReasonTheCodesOfALostConnectionAreRetriedAndNoOthers() {
        Set<Status.Code> lost = Set.of(
                Status.Code.UNAVAILABLE,
                Status.Code.UNKNOWN,
                Status.Code.INTERNAL,
                Status.Code.ABORTED,
                Status.Code.CANCELLED);
        for (Status.Code code : Status.Code.values()) {
            if (code == Status.Code.OK) {
                continue;
            }
            assertEquals(lost.contains(code), Errors.of(code.toStatus(), new Metadata()).isRetryable(), code.name());
            PerennialException ofProxy = error(code, info("UPSTREAM_DOWN", "proxy.example"));
            assertEquals(lost.contains(code), ofProxy.isRetryable(), code.name());
            assertEquals("", ofProxy.reason());
        }
    }

    @Test
    void aCertificateThatIsNotTrustedIsNotRetried() {
        Exception cause = new SSLHandshakeException("general");
        cause.initCause(new CertificateException("unknown authority"));
        PerennialException error = Errors.of(Status.UNAVAILABLE.withCause(cause), new Metadata());
        assertFalse(error.isRetryable());
        assertTrue(error.getMessage().contains("unknown authority"), error.getMessage());
    }

    @Test
    void theFieldAndTheKnownReasonAreFacts() {
        BadRequest request = BadRequest.newBuilder()
                .addFieldViolations(BadRequest.FieldViolation.newBuilder().setField("topics"))
                .build();
        PerennialException error = error(Status.Code.INVALID_ARGUMENT, info("INVALID_FIELD", "perennial"), request);
        assertEquals("topics", error.field());
        assertEquals(Optional.of(ErrorReason.INVALID_FIELD), error.knownReason());
        assertEquals(Optional.empty(), error(Status.Code.UNKNOWN, info("NEW", "perennial")).knownReason());
    }

    @Test
    void theErrorOfAMessageHasTheSameFacts() {
        PublishError.Builder refused = PublishError.newBuilder()
                .setCode(Status.Code.ABORTED.value())
                .setReason(ErrorReason.SEQUENCE_MISMATCH)
                .putMetadata("current", "12");
        PerennialException error = Errors.of(refused.build());
        assertEquals(Status.Code.ABORTED, error.code());
        assertEquals("SEQUENCE_MISMATCH", error.reason());
        assertEquals("12", error.metadata().get("current"));
        assertFalse(error.isRetryable());
        assertEquals("4711", Errors.of(refused.setReasonValue(4711).build()).reason());
    }
}
