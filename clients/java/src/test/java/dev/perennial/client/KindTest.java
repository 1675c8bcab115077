package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.Timestamp;
import dev.perennial.v1.CountdownRequest;
import dev.perennial.v1.CountdownResponse;
import dev.perennial.v1.FileResumed;
import dev.perennial.v1.FileResumedFound;
import dev.perennial.v1.FileRotated;
import dev.perennial.v1.Line;
import dev.perennial.v1.LineStreamEvent;
import dev.perennial.v1.MessageGap;
import dev.perennial.v1.MessageGapReason;
import dev.perennial.v1.MessageStreamEvent;
import dev.perennial.v1.ReadLinesResponse;
import dev.perennial.v1.StoredMessage;
import dev.perennial.v1.Tick;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What was handed out by an earlier process is recognized when it comes again. */
class KindTest {
    private static final LineStreamEvent ROTATED =
            LineStreamEvent.newBuilder().setRotated(FileRotated.getDefaultInstance()).build();

    private static Line line(long offset, String text) {
        return Line.newBuilder().setOffset(offset).setText(text).build();
    }

    private static ReadLinesResponse response(int rotations, Line... lines) {
        ReadLinesResponse.Builder response = ReadLinesResponse.newBuilder().addAllLines(List.of(lines));
        for (int n = 0; n < rotations; n++) {
            response.addEvents(ROTATED);
        }
        return response.build();
    }

    private static List<Long> offsets(LinesKind kind, ReadLinesResponse response) {
        kind.onResponse(response);
        List<Long> offsets = new ArrayList<>();
        for (Line line : response.getLinesList()) {
            Line left = kind.unlessDone(line);
            if (left != null) {
                offsets.add(left.getOffset());
            }
        }
        return offsets;
    }

    @Test
    void linesUpToTheKeyAreDroppedAlsoAfterRotations() {
        LinesKind kind = new LinesKind();
        kind.setPending(new Key.OfLine(1, 4, null));
        // Lines before the rotation that come now were written late.
        assertEquals(List.of(90L), offsets(kind, response(0, line(90, "late"))));
        assertEquals(List.of(6L, 8L), offsets(kind, response(1, line(0, "a"), line(4, "b"), line(6, "c"), line(8, "d"))));
        assertNull(kind.pending());

        LinesKind other = new LinesKind();
        other.setPending(new Key.OfLine(0, 4, null));
        assertEquals(List.of(), offsets(other, response(0, line(0, "a"), line(4, "b"))));
        assertEquals(List.of(0L), offsets(other, response(1, line(0, "new"))));
        assertNull(other.pending());
    }

    @Test
    void aPendingKeyCountsFromTheCursorOfTheLastResponse() {
        LinesKind kind = new LinesKind();
        kind.onResponse(response(1));
        assertEquals(new Key.OfLine(1, 4, 3L), kind.fromItsCursor(new Key.OfLine(2, 4, 3L)));
        assertEquals(new Key.OfLine(0, 4, null), kind.fromItsCursor(new Key.OfLine(1, 4, null)));
        assertNull(kind.fromItsCursor(new Key.OfLine(0, 4, null)));
        assertNull(kind.fromItsCursor(null));
        Key message = new Key.OfMessage(7, 9);
        assertEquals(message, new MessagesKind().fromItsCursor(message));
    }

    @Test
    void aLineThatHasGrownYieldsItsRest() {
        LinesKind kind = new LinesKind();
        kind.setPending(new Key.OfLine(0, 10, 3L));
        kind.onResponse(response(0));
        assertNull(kind.unlessDone(line(10, "abc")));
        Line rest = kind.unlessDone(line(10, "abcdé"));
        assertEquals("dé", rest.getText());
        assertEquals(13, rest.getOffset());
        assertTrue(rest.getContinued());
        assertNull(kind.pending());

        // The key may itself be of such a rest.
        kind.setPending(new Key.OfLine(0, 13, 1L));
        assertEquals("é", kind.unlessDone(line(10, "abcdé")).getText());
        Line data = Line.newBuilder().setOffset(10).setData(ByteString.copyFrom(new byte[] {1, 2, 3, 4})).build();
        kind.setPending(new Key.OfLine(0, 10, 3L));
        assertEquals(ByteString.copyFrom(new byte[] {4}), kind.unlessDone(data).getData());
    }

    @Test
    void afterALostFileEverythingIsNew() {
        LinesKind kind = new LinesKind();
        kind.setPending(new Key.OfLine(0, 100, null));
        LineStreamEvent lost = LineStreamEvent.newBuilder()
                .setResumed(FileResumed.newBuilder().setFound(FileResumedFound.FILE_RESUMED_FOUND_LOST))
                .build();
        assertFalse(kind.dropsEvent(lost));
        assertEquals(List.of(0L), offsets(kind, response(0, line(0, "a"))));
    }

    @Test
    void theLengthIsKeptOfALineThatMayGrow() {
        LinesKind kind = new LinesKind();
        kind.onResponse(response(2));
        assertEquals(new Key.OfLine(2, 7, null), kind.key(line(7, "abc")));
        assertEquals(new Key.OfLine(2, 7, 4L), kind.key(line(7, "abé").toBuilder().setPartial(true).build()));
        assertEquals(new Key.OfLine(2, 7, 3L), kind.key(line(7, "abc").toBuilder().setNoNewline(true).build()));
    }

    private static StoredMessage message(long sequence, long seconds) {
        return StoredMessage.newBuilder()
                .setSequence(sequence)
                .setPublishTime(Timestamp.newBuilder().setSeconds(seconds))
                .build();
    }

    private static MessageStreamEvent gap(long first, long last, MessageGapReason reason) {
        MessageGap gap = MessageGap.newBuilder()
                .setFirstSequence(first)
                .setLastSequence(last)
                .setReason(reason)
                .build();
        return MessageStreamEvent.newBuilder().setGap(gap).build();
    }

    @Test
    void messagesAndGapsUpToTheKeyAreDropped() {
        MessagesKind kind = new MessagesKind();
        kind.setPending(new Key.OfMessage(7, 9_000_000_000L));
        assertTrue(kind.dropsEvent(gap(1, 3, MessageGapReason.MESSAGE_GAP_REASON_REMOVED)));
        assertFalse(kind.dropsEvent(gap(6, 8, MessageGapReason.MESSAGE_GAP_REASON_REMOVED)));
        assertNull(kind.unlessDone(message(6, 1)));
        assertNull(kind.unlessDone(message(7, 9)));
        assertEquals(9, kind.unlessDone(message(9, 9)).getSequence());
        assertNull(kind.pending());
    }

    @Test
    void anotherMessageOfTheSameSequenceIsADivergedLog() {
        MessagesKind kind = new MessagesKind();
        kind.setPending(new Key.OfMessage(7, 9_000_000_000L));
        PerennialException thrown = assertThrows(PerennialException.class, () -> kind.unlessDone(message(7, 10)));
        assertEquals("LOG_DIVERGED", thrown.reason());
        assertFalse(thrown.isRetryable());
    }

    @Test
    void afterADivergedLogSequencesMayGoBack() {
        MessagesKind kind = new MessagesKind();
        kind.setPending(new Key.OfMessage(7, 9_000_000_000L));
        assertFalse(kind.dropsEvent(gap(5, 7, MessageGapReason.MESSAGE_GAP_REASON_DIVERGED)));
        assertEquals(5, kind.unlessDone(message(5, 20)).getSequence());
    }

    private static Tick tick(int remaining, Long version) {
        Tick.Builder tick = Tick.newBuilder().setRemaining(remaining);
        return version == null ? tick.build() : tick.setVersion(version).build();
    }

    @Test
    void ticksAreRecognizedByTheirNumberAndVersion() {
        CountdownKind kind = new CountdownKind(CountdownRequest.getDefaultInstance());
        kind.setPending(new Key.OfTick(5, null));
        assertNull(kind.unlessDone(tick(6, null)));
        assertNull(kind.unlessDone(tick(5, null)));
        assertEquals(4, kind.unlessDone(tick(4, null)).getRemaining());

        kind.setPending(new Key.OfTick(5, 30L));
        assertNull(kind.unlessDone(tick(1, 29L)));
        assertNull(kind.unlessDone(tick(5, 30L)));
        // Extended: the numbers go up.
        assertEquals(80, kind.unlessDone(tick(80, 31L)).getRemaining());
    }

    @Test
    void skippedTicksThatWereHandedOutAreNotSkipped() {
        CountdownKind kind = new CountdownKind(CountdownRequest.newBuilder().setStep(2).build());
        // 20, 18 and 16 were handed out; 14 and 12 were skipped before 10.
        CountdownResponse response =
                CountdownResponse.newBuilder().setSkippedTicks(5).addTicks(tick(10, null)).build();
        assertEquals(5, kind.skipped(response));
        kind.setPending(new Key.OfTick(16, null));
        assertEquals(2, kind.skipped(response));
        kind.setPending(new Key.OfTick(12, null));
        assertEquals(0, kind.skipped(response));
        kind.setPending(new Key.OfTick(22, null));
        assertEquals(5, kind.skipped(response));
        kind.setPending(new Key.OfTick(10, null));
        assertEquals(0, kind.skipped(response));
    }
}
