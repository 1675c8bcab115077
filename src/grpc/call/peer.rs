//! The other end of a connection.

use std::{fmt, net::SocketAddr};

/// The other end of a connection, as the kernel reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// The address of a client over TCP.
    Address(SocketAddr),
    /// The account of a client over a socket in the file system.
    User {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its process, if the kernel knows it.
        process: Option<i32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User { uid, gid, process } => {
                write!(f, "uid={uid},gid={gid}")?;
                process.map_or(Ok(()), |process| write!(f, ",pid={process}"))
            }
        }
    }
}
