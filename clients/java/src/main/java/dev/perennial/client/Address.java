package dev.perennial.client;

import java.util.Locale;

/**
 * The address of a server: {@code HOST:PORT}, {@code http://HOST[:PORT]}, {@code https://HOST[:PORT]} or
 * {@code unix:PATH}.
 *
 * @param host the host, without brackets; null for a socket in the file system
 * @param port the port
 * @param path the path of the socket, or null
 * @param isTls whether the connection is by TLS
 */
record Address(String host, int port, String path, boolean isTls) {
    private static final int DEFAULT_PORT = 50051;
    private static final String DEFAULT = "http://127.0.0.1:" + DEFAULT_PORT;
    private static final String UNIX = "unix:";

    /** Reads an address; null or empty is that of the environment, or the default of the server. */
    static Address parse(String text, boolean wantsTls) {
        String address = text;
        if (address == null || address.isEmpty()) {
            String ofEnvironment = System.getenv("PERENNIAL_SERVER");
            address = ofEnvironment == null || ofEnvironment.isEmpty() ? DEFAULT : ofEnvironment;
        }
        if (address.startsWith(UNIX)) {
            String path = address.substring(UNIX.length());
            path = path.startsWith("//") ? path.substring(2) : path;
            if (path.isEmpty()) {
                throw refused(address, "the path of the socket is missing", "unix:/run/perennial.sock");
            }
            if (wantsTls) {
                throw refused(address, "a socket in the file system has no TLS", "it without ca, certificate and key");
            }
            return new Address(null, 0, path, false);
        }
        int colons = address.indexOf("://");
        String scheme = colons < 0 ? "" : address.substring(0, colons).toLowerCase(Locale.ROOT);
        String authority = colons < 0 ? address : address.substring(colons + 3);
        if (authority.endsWith("/")) {
            authority = authority.substring(0, authority.length() - 1);
        }
        boolean isTls = switch (scheme) {
            case "" -> wantsTls;
            case "http" -> false;
            case "https" -> true;
            default -> throw refused(address, "the scheme " + scheme + " is not supported", DEFAULT);
        };
        if (!isTls && wantsTls) {
            throw refused(address, "the credentials are for TLS, and http is plain text", "https://" + authority);
        }
        if (authority.isEmpty() || authority.matches(".*[/?#@\\\\\\s].*")) {
            throw refused(address, "it has more than a host and a port", DEFAULT);
        }
        return withPort(address, authority, isTls);
    }

    private static Address withPort(String address, String authority, boolean isTls) {
        String host = authority;
        String rest = "";
        if (authority.startsWith("[")) {
            int end = authority.indexOf(']');
            if (end < 0) {
                throw refused(address, "the bracket of its IPv6 address is not closed", "http://[::1]:" + DEFAULT_PORT);
            }
            host = authority.substring(1, end);
            rest = authority.substring(end + 1);
        } else if (authority.indexOf(':') >= 0) {
            host = authority.substring(0, authority.indexOf(':'));
            rest = authority.substring(host.length());
        }
        String port = rest.isEmpty() ? ":" + DEFAULT_PORT : rest;
        if (port.indexOf(':', 1) > 0) {
            throw refused(address, "an IPv6 address is in brackets", "http://[::1]:" + DEFAULT_PORT);
        }
        if (host.isEmpty() || !port.matches(":[0-9]{1,5}") || Integer.parseInt(port.substring(1)) > 65_535) {
            throw refused(address, "it needs a host and a port up to 65535", DEFAULT);
        }
        return new Address(host, Integer.parseInt(port.substring(1)), null, isTls);
    }

    /** Whether no other machine can read what is sent there. */
    boolean isLocal() {
        return path != null
                || host.equalsIgnoreCase("localhost")
                || host.equals("::1")
                || host.matches("127\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}");
    }

    private static IllegalArgumentException refused(String address, String fault, String hint) {
        return new IllegalArgumentException(
                "the server \"" + address.replaceAll("[^/@]*@", "") + "\" cannot be used: " + fault + "; try " + hint);
    }
}
