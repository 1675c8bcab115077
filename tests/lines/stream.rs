//! Stream: slow readers, cancelling and silence.
