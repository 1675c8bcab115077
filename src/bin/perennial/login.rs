//! `perennial login`, and the profiles that it keeps: how to reach a server, and the token for it.
//!
//! A profile is a file in the directory `perennial` of the user's configuration, on which only the user has permissions. Its
//! token goes to the server of the profile, and to no other.

use std::{
    fs::{self, File},
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use perennial::{
    client::{Client, Code, Credentials, Token},
    directory, pem,
};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, USAGE,
    output::{self, Problem},
};

/// The profile that is used if none is named and it exists.
pub const DEFAULT_NAME: &str = "default";

/// The server where neither an option nor a profile names one.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";

/// How to reach a server, and the token for it.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Profile {
    /// The file of a profile.
    ///
    /// # Errors
    /// The name is not one, or there is no home directory.
    pub fn path(name: &str) -> Result<PathBuf, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(format!("`{name}` is not the name of a profile: write letters, digits, `-` and `_`"));
        }
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let directory = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let directory = directory.ok_or("there is no home directory to keep profiles in: set HOME")?;
        Ok(directory.join("perennial").join(format!("{name}.toml")))
    }

    /// Reads a profile. `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be used. The text does not repeat a part of it.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let content = pem::read_private(path).map_err(|error| error.to_string())?;
        let profile = std::str::from_utf8(&content).ok().and_then(|text| toml::from_str(text).ok());
        let remedy = "it is not a profile: make it again with `perennial login`";
        profile.map(Some).ok_or_else(|| format!("{}: {remedy}", path.display()))
    }

    /// Replaces a profile in one step.
    fn write(&self, path: &Path) -> io::Result<()> {
        directory::create(path.parent().unwrap_or(Path::new(".")))?;
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)?;
        directory::sync_name(path)
    }
}

/// Reads a token from stdin, checks that the server accepts it, and keeps it in a profile.
pub async fn run(name: &str, mut profile: Profile, credentials: Credentials) -> Result<u8, Failure> {
    let path = match Profile::path(name) {
        Ok(path) => path,
        Err(text) => return usage(text),
    };
    // A later command may run in another directory.
    for file in [&mut profile.ca, &mut profile.cert, &mut profile.cert_key].into_iter().flatten() {
        *file = std::path::absolute(&file)?;
    }
    let token = read_token().await?;
    if token.is_empty() {
        return usage("there is no token on stdin: `perenniald token new` makes one".into());
    }
    let credentials = Credentials { token: Some(Token::Text(token.clone())), ..credentials };
    let client = Client::with_credentials(&profile.server, credentials)?
        .with_connect_timeout(std::time::Duration::ZERO);
    // A topic of the server's own that does not exist. The caller may have no right to list topics.
    match client.list_topics("$login").await {
        Ok(_) => {}
        Err(error) if error.code() == Code::PermissionDenied => {}
        Err(error) => return Err(error.into()),
    }
    profile.token = Some(token);
    profile
        .write(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let option = if name == DEFAULT_NAME { String::new() } else { format!(" with --profile {name}") };
    output::note(&format!(
        "the token for {} is kept in {}, and used{option}",
        profile.server,
        path.display()
    ));
    Ok(0)
}

fn usage(text: String) -> Result<u8, Failure> {
    output::report(&Problem::usage(text, None));
    Err(Failure::Reported(USAGE))
}

async fn read_token() -> io::Result<String> {
    let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    // Both end when this is dropped, as after Ctrl-C: the line of the question, because the terminal does not show the end of
    // the answer, and the state of the terminal.
    let question = is_terminal.then(|| output::question("Token (it is not shown): "));
    let hidden = is_terminal.then(Hidden::new).transpose()?;
    // A read of a terminal cannot be cancelled, so a thread does it.
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(io::Error::other)??;
    drop((hidden, question));
    Ok(line.trim().to_owned())
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
