package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class StateTest {
    @TempDir
    Path directory;

    @Test
    void theTextIsThatOfAllLanguagesAndIsReadAgain() {
        State lines = new State("abc", new Key.OfLine(2, 1L << 40, 3L));
        assertEquals(
                "{\"version\":1,\"kind\":\"lines\",\"cursor\":\"abc\","
                        + "\"after\":{\"switches\":2,\"offset\":\"1099511627776\",\"bytes\":\"3\"}}",
                lines.text("lines"));
        State messages = new State("abc", new Key.OfMessage(42, 1_764_622_800_123_456_789L));
        assertEquals(
                "{\"version\":1,\"kind\":\"messages\",\"cursor\":\"abc\","
                        + "\"after\":{\"sequence\":\"42\",\"publish_time\":\"1764622800123456789\"}}",
                messages.text("messages"));
        State ticks = new State("abc", new Key.OfTick(7, null));
        State shared = new State("abc", new Key.OfTick(-7, 3L));
        assertEquals(lines, State.parse(lines.text("lines"), "lines", "it"));
        assertEquals(messages, State.parse(messages.text("messages"), "messages", "it"));
        assertEquals(ticks, State.parse(ticks.text("countdown"), "countdown", "it"));
        assertEquals(shared, State.parse(shared.text("countdown") + "\n", "countdown", "it"));
        assertEquals(new State("abc", null), State.parse("abc\n", "lines", "it"));
        assertEquals(new State("abc", null), State.parse(new State("abc", null).text("lines"), "lines", "it"));
    }

    @Test
    void aDamagedStateIsNeverAFreshStart() {
        String good = new State("abc", new Key.OfLine(0, 7, null)).text("lines");
        for (String bad : List.of(
                "",
                "  \n",
                "{",
                "{}",
                "not a cursor",
                good.substring(0, good.length() - 2),
                good.replace("\"version\":1", "\"version\":2"),
                good.replace("lines", "messages"),
                good.replace("abc", ""),
                good.replace("\"7\"", "\"seven\""),
                good.replace("\"offset\":\"7\"", "\"other\":1"))) {
            StateException thrown =
                    assertThrows(StateException.class, () -> State.parse(bad, "lines", "the state file x"), bad);
            assertTrue(thrown.getMessage().startsWith("the state file x "), thrown.getMessage());
        }
    }

    @Test
    void aFileIsReplacedAsAWholeAndOnlyItsOwnerReadsIt() throws IOException {
        Path file = directory.resolve("state");
        Store store = Store.file(file);
        assertEquals(Optional.empty(), store.load());
        store.save("one");
        store.save("two");
        assertEquals(Optional.of("two\n"), store.load());
        assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file)));
        try (var files = Files.list(directory)) {
            assertEquals(List.of(file), files.toList());
        }
        // What a crash left beside it does not matter.
        Files.writeString(directory.resolve("state.new"), "half");
        Store.file(file).save("three");
        assertEquals(Optional.of("three\n"), Store.file(file).load());
    }
}
