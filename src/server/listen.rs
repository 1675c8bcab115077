//! Where the server listens: a TCP address, or a socket in the file system.
//!
//! A socket in the file system outlives a process that was killed. It is replaced if no process listens on it, and removed
//! when the server stops accepting. Servers that start at once take turns by a lock on the directory.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Error;
use crate::grpc::call::Peer;

/// The connections that the kernel accepts ahead of the server, as for TCP.
const BACKLOG: i32 = 1024;

/// How long a start waits for the lock of the directory of its socket, and the pause between two tries. Other servers hold
/// it for less than a millisecond.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The default permissions of a socket: those of the account of the server.
pub const SOCKET_MODE: u32 = 0o600;

/// Where to listen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    /// A TCP address.
    Address(SocketAddr),
    /// The path of a socket.
    Path(PathBuf),
}

impl Listen {
    /// Whether only processes of this machine reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().to_canonical().is_loopback(),
            Self::Path(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            let address = text.parse().map(Self::Address);
            return address
                .map_err(|_| format!("`{text}` is neither IP:PORT, as 127.0.0.1:50051, nor unix:PATH"));
        };
        // `unix:///path` is a URL without a host.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.ends_with('/') {
            return Err(format!("`{text}` has no name of a socket: write unix:PATH"));
        }
        Ok(Self::Path(path.into()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of a socket in the file system, which is removed when this is dropped: before the socket closes, because another
    /// server can replace it from then on.
    Unix(Removal, UnixListener),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local(&self) -> io::Result<Listen> {
        Ok(match self {
            Self::Tcp(listener) => Listen::Address(listener.local_addr()?),
            Self::Unix(removal, _) => Listen::Path(removal.path.clone()),
        })
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Without this, a tick would wait for the next one.
                let _ = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), Peer::Address(peer)))
            }
            Self::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                let peer =
                    Peer::User { uid: credentials.uid(), gid: credentials.gid(), process: credentials.pid() };
                Ok((Accepted::Unix(stream), peer))
            }
        }
    }
}

/// Binds a listener. A socket in the file system gets these permissions.
///
/// # Errors
/// [`Error::Listen`].
pub async fn bind(listen: &Listen, mode: u32) -> Result<Listener, Error> {
    let bound = match listen {
        Listen::Address(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        Listen::Path(path) => bind_path(path, mode),
    };
    let remedy = |error: &io::Error| remedy(listen, error);
    bound.map_err(|source| Error::Listen {
        flag: "--listen",
        address: listen.to_string(),
        remedy: remedy(&source),
        source,
    })
}

/// What the operator can do after an error of [`bind`].
pub fn remedy(listen: &Listen, error: &io::Error) -> &'static str {
    match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, _) => {
            ": another process listens there; stop it, or choose another address"
        }
        (io::ErrorKind::PermissionDenied, Listen::Address(_)) => ": choose a port of 1024 or higher",
        (io::ErrorKind::PermissionDenied, Listen::Path(_)) => {
            ": choose a directory that this account can read and create files in"
        }
        (io::ErrorKind::NotFound, Listen::Path(_)) => ": create the directory",
        (io::ErrorKind::WouldBlock, Listen::Path(_)) => {
            ": another process has locked the directory; choose one that only this account can read"
        }
        (io::ErrorKind::InvalidFilename, Listen::Path(_)) => ": choose a path of up to 107 bytes",
        (io::ErrorKind::AlreadyExists, Listen::Path(_)) => ": remove it, or choose another path",
        (io::ErrorKind::AddrNotAvailable, _) => ": this machine has no such address; choose another",
        _ => "",
    }
}

fn bind_path(path: &Path, mode: u32) -> io::Result<Listener> {
    let address = SocketAddrUnix::new(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent)?;
    // Until the end of this function. Otherwise another server could remove the new socket as one that is not in use.
    lock(&directory)?;
    remove_unused(path, &address)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    let removal = Removal::of(path)?;
    // No client can connect before `listen`.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listener::Unix(removal, UnixListener::from_std(socket.into())?))
}

/// Locks a directory. Any account that can read it can lock it, too, so the wait has a limit.
fn lock(directory: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            locked => return Ok(locked?),
        }
    }
}

/// Removes a socket on which no process listens.
fn remove_unused(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        let text = "a file that is not a socket is there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // The queue of a process that listens may be full.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Err(Errno::ADDRINUSE.into()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a socket when it is dropped, unless another one has taken its path.
#[derive(Debug)]
pub struct Removal {
    path: PathBuf,
    /// `None` for a socket that another program has made, and removes.
    identity: Option<(u64, u64)>,
}

impl Removal {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: std::path::absolute(path)?, identity: Some((metadata.dev(), metadata.ino())) })
    }

    /// Removes nothing.
    pub(super) fn none(path: PathBuf) -> Self {
        Self { path, identity: None }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| Some((metadata.dev(), metadata.ino())) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn error(bound: Result<Listener, Error>) -> String {
        bound.unwrap_err().to_string()
    }

    #[test]
    fn an_address_is_of_tcp_or_a_path() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:2", "[::1]:2"),
            ("unix:/run/p.sock", "unix:/run/p.sock"),
            ("unix:///run/p.sock", "unix:/run/p.sock"),
            ("unix:p.sock", "unix:p.sock"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "127.0.0.1", "localhost:1", "unix:", "unix:/run/", "/run/p.sock"] {
            assert!(text.parse::<Listen>().unwrap_err().contains("unix:PATH"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        for mode in [0o600, 0o660, 0o666] {
            let listener = bind(&Listen::Path(path.clone()), mode).await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            let process = i32::try_from(std::process::id()).ok();
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            assert_eq!(peer, Peer::User { uid, gid, process });
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_in_use_is_replaced_and_no_other_file_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        let listen = Listen::Path(path.clone());
        // The standard library leaves the socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(&listen, SOCKET_MODE).await.unwrap();
        let text = error(bind(&listen, SOCKET_MODE).await);
        assert!(text.contains("unix:") && text.contains("another process listens there"), "{text}");
        let datagram = Listen::Path(directory.path().join("datagram"));
        let Listen::Path(other) = &datagram else { unreachable!() };
        let _datagram = std::os::unix::net::UnixDatagram::bind(other).unwrap();
        assert!(error(bind(&datagram, SOCKET_MODE).await).contains("another process"));
        // Another server took the path: its socket stays.
        fs::remove_file(&path).unwrap();
        let second = bind(&listen, SOCKET_MODE).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        fs::write(&path, "data").unwrap();
        let text = error(bind(&listen, SOCKET_MODE).await);
        assert!(text.contains("not a socket") && text.contains("remove it"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert!(error(bind(&listen, SOCKET_MODE).await).contains("not a socket"));
    }

    #[tokio::test]
    async fn one_of_many_servers_that_start_at_once_gets_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let starts = (0..16).map(|_| {
            let (path, handle) = (path.clone(), tokio::runtime::Handle::current());
            std::thread::spawn(move || {
                let _entered = handle.enter();
                bind_path(&path, SOCKET_MODE)
            })
        });
        let starts = starts.collect::<Vec<_>>();
        let bound = starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>();
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1, "{bound:?}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn the_error_of_a_path_says_what_would_work() {
        let directory = tempfile::tempdir().unwrap();
        for (name, remedy) in
            [("no/such/directory/p", "create the directory"), (&"p".repeat(120), "107 bytes")]
        {
            let text = error(bind(&Listen::Path(directory.path().join(name)), SOCKET_MODE).await);
            assert!(text.starts_with("--listen is unix:/") && text.contains(remedy), "{text}");
        }
    }
}
