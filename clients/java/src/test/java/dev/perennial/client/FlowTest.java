package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.perennial.v1.PublishRequest;
import org.junit.jupiter.api.Test;

/** A call of a publisher ends before the server forgets the id of a message that the call has sent again. */
class FlowTest {
    private static final long KNOWN = 50;

    private static Entry entry(long sentAt, boolean isAgain) {
        Entry entry = new Entry(PublishRequest.getDefaultInstance());
        entry.sentAt = sentAt;
        entry.isAgain = isAgain;
        return entry;
    }

    @Test
    void aMessageThatIsSentAgainLimitsItsCall() {
        assertEquals(7, Flow.idsKnownFor(entry(957, true), KNOWN, 1_000));
        assertEquals(-1, Flow.idsKnownFor(entry(949, true), KNOWN, 1_000));
    }

    @Test
    void aMessageThatIsSentForTheFirstTimeDoesNot() {
        assertEquals(Long.MAX_VALUE, Flow.idsKnownFor(entry(957, false), KNOWN, 1_000));
        assertEquals(Long.MAX_VALUE, Flow.idsKnownFor(null, KNOWN, 1_000));
    }
}
