package dev.perennial.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import java.io.StringReader;

/**
 * Where a stream continues: after the response of a cursor, and in the next one after the item with a key.
 *
 * @param cursor the cursor of the last response all of whose items are done
 * @param after the key of the last item that is done since; null if there is none
 */
record State(String cursor, Key after) {
    private static final int VERSION = 1;

    /** The text of this state, in the form that all client libraries share. */
    String text(String kind) {
        JsonObject object = new JsonObject();
        object.addProperty("version", VERSION);
        object.addProperty("kind", kind);
        object.addProperty("cursor", cursor);
        if (after != null) {
            object.add("after", after.json());
        }
        return object.toString();
    }

    /** Reads a state of this kind of stream, or a bare cursor. */
    static State parse(String text, String kind, String source) {
        String trimmed = text.strip();
        if (trimmed.isEmpty()) {
            throw damaged(source, "it is empty", null);
        }
        if (!trimmed.startsWith("{")) {
            if (trimmed.length() > 1024 || !trimmed.matches("[A-Za-z0-9_.~-]+")) {
                throw damaged(source, "it is no state and no cursor", null);
            }
            return new State(trimmed, null);
        }
        JsonObject object;
        try {
            JsonReader reader = new JsonReader(new StringReader(trimmed));
            reader.setStrictness(Strictness.STRICT);
            JsonElement element = JsonParser.parseReader(reader);
            object = element.getAsJsonObject();
        } catch (JsonParseException | IllegalStateException fault) {
            throw damaged(source, "it is not JSON", fault);
        }
        try {
            int version = object.get("version").getAsInt();
            if (version != VERSION) {
                throw new StateException(source + " has version " + version + ", and this client knows " + VERSION
                        + ": use a newer client, or delete the state to start from the beginning");
            }
            String found = object.get("kind").getAsString();
            if (!found.equals(kind)) {
                throw new StateException(source + " belongs to a stream of " + found + ", and this is one of " + kind
                        + ": give each stream a state of its own");
            }
            String cursor = object.get("cursor").getAsString();
            if (cursor.isEmpty()) {
                throw damaged(source, "its cursor is empty", null);
            }
            JsonObject after = object.getAsJsonObject("after");
            return new State(cursor, after == null ? null : Key.parse(kind, after));
        } catch (NullPointerException | ClassCastException | IllegalStateException | NumberFormatException fault) {
            throw damaged(source, "a part of it is missing or malformed", fault);
        }
    }

    private static StateException damaged(String source, String fault, Throwable cause) {
        return new StateException(
                source + " cannot be used: " + fault + "; restore it, or delete it to start from the beginning", cause);
    }
}
