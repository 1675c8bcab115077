package dev.perennial.client;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A perenniald that keeps its address when it is killed and started again. */
final class Server implements AutoCloseable {
    private static final Pattern LISTENING = Pattern.compile("perenniald: listening on (?:http|unix)s?:(?://)?(.*)");

    final Path directory;
    final Path logs;
    private final List<String> options;
    private String address = "127.0.0.1:0";
    private Process process;

    Server(Path directory, String... options) {
        this.directory = directory;
        this.options = List.of(options);
        logs = directory.resolve("logs");
        try {
            Files.createDirectories(logs);
        } catch (IOException fault) {
            throw new UncheckedIOException(fault);
        }
        start();
    }

    String address() {
        return address;
    }

    /** A client that also connects on a machine that is very busy. */
    static PerennialClient connect(String address) {
        return PerennialClient.builder(address).connectTimeout(Duration.ofSeconds(60)).build();
    }

    /** Starts it, and waits until it listens. */
    void start() {
        String program = System.getProperty("perenniald");
        List<String> command = new ArrayList<>(List.of(
                program, "--listen", address, "--data", directory.resolve("data").toString(), "--root", "logs=" + logs,
                "--log", "error"));
        command.addAll(options);
        try {
            process = new ProcessBuilder(command).redirectErrorStream(true).start();
            BufferedReader lines = process.inputReader();
            StringBuilder printed = new StringBuilder();
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                printed.append(line).append('\n');
                Matcher found = LISTENING.matcher(line);
                if (found.matches()) {
                    address = found.group(1);
                    // It must not stop because its output is not read.
                    Thread rest = new Thread(() -> {
                        try {
                            while (lines.readLine() != null) {
                                continue;
                            }
                        } catch (IOException ended) {
                            // It was killed.
                        }
                    });
                    rest.setDaemon(true);
                    rest.start();
                    return;
                }
            }
            throw new IllegalStateException("the server did not start: " + printed);
        } catch (IOException fault) {
            throw new UncheckedIOException("build it, or name it with -Dperenniald=FILE", fault);
        }
    }

    /** Kills it, as a crash does. */
    void kill() {
        end(process.destroyForcibly());
    }

    /** Ends it, as an operator does. */
    void stop() {
        process.destroy();
        end(process);
    }

    private static void end(Process process) {
        try {
            if (!process.waitFor(30, TimeUnit.SECONDS)) {
                throw new IllegalStateException("the server does not end");
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            process.destroyForcibly();
        }
    }

    /** Writes a file with one number on each line, and returns its path for ReadLines. */
    String numbers(String name, int count) {
        StringBuilder text = new StringBuilder();
        for (int n = 0; n < count; n++) {
            text.append(n).append('\n');
        }
        try {
            Files.writeString(logs.resolve(name), text);
        } catch (IOException fault) {
            throw new UncheckedIOException(fault);
        }
        return "logs/" + name;
    }

    @Override
    public void close() {
        kill();
    }
}
