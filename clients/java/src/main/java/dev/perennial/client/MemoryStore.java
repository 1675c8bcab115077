package dev.perennial.client;

import java.util.Optional;

/** A state in memory. */
final class MemoryStore implements Store {
    private volatile String state;

    @Override
    public Optional<String> load() {
        return Optional.ofNullable(state);
    }

    @Override
    public void save(String state) {
        this.state = state;
    }

    @Override
    public String toString() {
        return "the store in memory";
    }
}
