package dev.perennial.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;

/** Which item of a stream: enough to recognize it when its response comes again. */
sealed interface Key {
    JsonObject json();

    /**
     * @param switches the events since the cursor after which lines are from another file or place
     * @param offset the offset of the line
     * @param bytes the length of its content if it may still grow; null otherwise
     */
    record OfLine(int switches, long offset, Long bytes) implements Key {
        @Override
        public JsonObject json() {
            JsonObject json = new JsonObject();
            json.addProperty("switches", switches);
            json.addProperty("offset", Long.toString(offset));
            if (bytes != null) {
                json.addProperty("bytes", Long.toString(bytes));
            }
            return json;
        }
    }

    /**
     * @param sequence the sequence of the message
     * @param publishTime its publish time in nanoseconds since 1970
     */
    record OfMessage(long sequence, long publishTime) implements Key {
        @Override
        public JsonObject json() {
            JsonObject json = new JsonObject();
            json.addProperty("sequence", Long.toString(sequence));
            json.addProperty("publish_time", Long.toString(publishTime));
            return json;
        }
    }

    /**
     * @param remaining the number of the tick
     * @param version the version of the shared countdown; null if it is not shared
     */
    record OfTick(int remaining, Long version) implements Key {
        @Override
        public JsonObject json() {
            JsonObject json = new JsonObject();
            json.addProperty("remaining", remaining);
            if (version != null) {
                json.addProperty("version", Long.toString(version));
            }
            return json;
        }
    }

    /** Reads the key of an item of this kind of stream. What is malformed throws one of the exceptions of gson. */
    static Key parse(String kind, JsonObject json) {
        return switch (kind) {
            case LinesKind.NAME -> new OfLine(
                    json.get("switches").getAsInt(), json.get("offset").getAsLong(), optional(json.get("bytes")));
            case MessagesKind.NAME -> new OfMessage(
                    json.get("sequence").getAsLong(), json.get("publish_time").getAsLong());
            case CountdownKind.NAME -> new OfTick(json.get("remaining").getAsInt(), optional(json.get("version")));
            default -> throw new IllegalStateException("there is no stream of " + kind);
        };
    }

    private static Long optional(JsonElement number) {
        return number == null ? null : (Long) number.getAsLong();
    }
}
