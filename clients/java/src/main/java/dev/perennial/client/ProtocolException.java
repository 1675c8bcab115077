package dev.perennial.client;

import io.grpc.Status;

/** The server does not keep to the contract, so it is not a server of this version. */
public final class ProtocolException extends PerennialException {
    private static final long serialVersionUID = 1;

    ProtocolException(String fault) {
        super(Status.Code.INTERNAL, "the server does not keep to the protocol: " + fault, null);
    }
}
