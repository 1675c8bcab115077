//! The layer between the generators and the wire: it translates and decides nothing.

pub mod codec;
