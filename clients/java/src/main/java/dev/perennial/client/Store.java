package dev.perennial.client;

import java.nio.file.Path;
import java.util.Optional;

/**
 * A place for the state of one stream: after a crash, a stream with the same store continues after the last item that was
 * done. An item is done when the caller asks for the next one.
 *
 * <p>Implement it to keep the state elsewhere. The calls of one stream never overlap. An exception of a method ends the
 * stream.
 */
public interface Store {
    /**
     * Returns the state that was saved last.
     *
     * @return the text that was saved; empty if none was saved yet
     */
    Optional<String> load();

    /**
     * Keeps a state instead of the last one.
     *
     * @param state the state: one line of text
     */
    void save(String state);

    /**
     * A store in a file. The file is replaced as a whole, so that it has the last state or the new one after a crash; only
     * its owner can read it.
     *
     * @param file the file; its directory must exist
     * @return the store
     */
    static Store file(Path file) {
        return new FileStore(file);
    }

    /**
     * A store in memory, for a stream that is opened again in the same process.
     *
     * @return the store, which is empty
     */
    static Store memory() {
        return new MemoryStore();
    }
}
