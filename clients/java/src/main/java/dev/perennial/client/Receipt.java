package dev.perennial.client;

import dev.perennial.v1.Durability;
import java.time.Instant;

/**
 * The answer to a message: it is published.
 *
 * @param sequence the sequence of the message
 * @param publishTime the clock of the server when it accepted the message
 * @param duplicate true if a message with the same id was published before; the other facts are from that one
 * @param durability what the answer guarantees
 */
public record Receipt(long sequence, Instant publishTime, boolean duplicate, Durability durability) {}
