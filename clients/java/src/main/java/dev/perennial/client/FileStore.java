package dev.perennial.client;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Optional;
import java.util.Set;

/** A state in a file that is replaced as a whole: a new file beside it, on disk, and renamed over it. */
final class FileStore implements Store {
    private final Path file;
    private final Path fresh;
    private boolean isNameOnDisk;

    FileStore(Path file) {
        this.file = file.toAbsolutePath();
        fresh = this.file.resolveSibling(this.file.getFileName() + ".new");
    }

    @Override
    public Optional<String> load() {
        try {
            return Optional.of(Files.readString(file));
        } catch (NoSuchFileException missing) {
            return Optional.empty();
        } catch (CharacterCodingException fault) {
            throw new StateException(this + " cannot be used: it is not text; restore it, or delete it to start from "
                    + "the beginning", fault);
        } catch (IOException fault) {
            throw new StateException(this + " cannot be read: " + fault, fault);
        }
    }

    @Override
    public void save(String state) {
        try {
            // One that a crash left may have other permissions.
            Files.deleteIfExists(fresh);
            Set<StandardOpenOption> options = Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
            try (FileChannel channel = FileChannel.open(fresh, options, permissions())) {
                ByteBuffer bytes = ByteBuffer.wrap((state + "\n").getBytes(StandardCharsets.UTF_8));
                while (bytes.hasRemaining()) {
                    channel.write(bytes);
                }
                channel.force(true);
            }
            Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE);
            if (!isNameOnDisk) {
                try (FileChannel directory = FileChannel.open(file.getParent(), StandardOpenOption.READ)) {
                    directory.force(true);
                }
                isNameOnDisk = true;
            }
        } catch (IOException fault) {
            throw new UncheckedIOException(this + " cannot be written: " + fault, fault);
        }
    }

    private FileAttribute<?>[] permissions() {
        boolean isPosix = file.getFileSystem().supportedFileAttributeViews().contains("posix");
        return isPosix
                ? new FileAttribute<?>[] {PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))}
                : new FileAttribute<?>[0];
    }

    @Override
    public String toString() {
        return "the state file " + file;
    }
}
