//! Shared countdowns over a real log, in virtual time.
