/**
 * Streams of time, files and messages that resume by themselves.
 *
 * <p>{@link dev.perennial.client.PerennialClient} opens the streams. Each is an {@link java.util.Iterator} and can be
 * closed. After a lost connection or a restart of the server it continues after the last item that it handed out: it
 * repeats nothing and misses nothing. {@link dev.perennial.client.Publisher} publishes messages in order, without doubles.
 *
 * <pre>{@code
 * try (PerennialClient client = PerennialClient.connect("127.0.0.1:50051");
 *         ItemStream<Line, LineStreamEvent> lines = client.readLines("demo/app.log", request -> request.setFollow(true))) {
 *     for (Line line : lines) {
 *         System.out.println(line.getText());
 *     }
 * }
 * }</pre>
 *
 * <p>The messages and services of the contract are in the package {@code dev.perennial.v1}, generated from {@code proto/}.
 */
package dev.perennial.client;
