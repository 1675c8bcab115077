package dev.perennial.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

class AddressTest {
    @Test
    void anAddressHasOneOfFourForms() {
        assertEquals(new Address("host", 7, null, false), Address.parse("host:7", false));
        assertEquals(new Address("host", 50051, null, false), Address.parse("http://host", false));
        assertEquals(new Address("host", 50051, null, true), Address.parse("https://host", false));
        assertEquals(new Address("host", 50051, null, true), Address.parse("host", true));
        assertEquals(new Address("::1", 7, null, false), Address.parse("http://[::1]:7", false));
        assertEquals(new Address(null, 0, "/run/p.sock", false), Address.parse("unix:/run/p.sock", false));
        for (String bad : List.of("ftp://host", "http://host/path", "::1", "host:x", "host:65536", "http://", "unix:", ":7")) {
            assertThrows(IllegalArgumentException.class, () -> Address.parse(bad, false), bad);
        }
        assertThrows(IllegalArgumentException.class, () -> Address.parse("http://host", true));
        String text = assertThrows(IllegalArgumentException.class, () -> Address.parse("http://me:secret@host", false))
                .getMessage();
        assertFalse(text.contains("secret"), text);
    }

    @Test
    void aTokenIsNotSentInPlainTextToAnotherMachine() {
        for (String local : List.of("127.0.0.1:7", "localhost:7", "http://[::1]:7", "unix:/run/p.sock", "https://host:7")) {
            PerennialClient.builder(local).token("secret").build().close();
        }
        for (String remote : List.of("host:7", "http://127.0.0.1.example:7", "http://10.0.0.1:7")) {
            ClientBuilder builder = PerennialClient.builder(remote).token("secret");
            String text = assertThrows(IllegalArgumentException.class, builder::build).getMessage();
            assertFalse(text.contains("secret"), text);
        }
    }

    @Test
    void aFileOfTheCredentialsThatCannotBeReadIsAnErrorOfTheCall() {
        try (PerennialClient client =
                PerennialClient.builder("https://127.0.0.1:1").ca(Path.of("/missing.pem")).build()) {
            String text = assertThrows(PerennialException.class, () -> client.listFiles("")).getMessage();
            assertTrue(text.contains("/missing.pem"), text);
        }
    }
}
