//! A server with rules and tokens, and callers with a token each.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use perennial::{
    access::tokens,
    client::{Client, Credentials, Token},
};
use tempfile::TempDir;

use crate::harness::Server;

/// The rules that most tests begin with: each caller is named for what it may do.
pub const RULES: &str = r#"
[[rule]]
who = ["token:reader"]
may = ["subscribe", "list"]
topics = ["orders.>", "state.*"]

[[rule]]
who = ["token:writer"]
may = ["publish", "purge"]
topics = ["orders.>"]

[[rule]]
who = ["token:worker"]
may = ["commit", "list"]
consumers = ["work.>"]

[[rule]]
who = ["token:tail"]
may = ["read", "list"]
files = ["logs=*.log"]

[[rule]]
who = ["token:clock"]
may = ["count", "manage", "list"]
countdowns = ["launch.>"]

[[rule]]
who = ["token:operator"]
may = ["administer"]

[[rule]]
who = ["token:nobody"]
may = ["publish"]
topics = ["nowhere"]
"#;

/// The callers of [`RULES`].
pub const CALLERS: [&str; 7] = ["reader", "writer", "worker", "tail", "clock", "operator", "nobody"];

pub struct House {
    pub server: Server,
    directory: TempDir,
    tokens: HashMap<String, String>,
}

impl House {
    pub fn new() -> Self {
        Self::with(RULES, &[])
    }

    /// A server with these rules and further arguments.
    pub fn with(rules: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [rules_file, tokens_file] =
            ["access.toml", "tokens.toml"].map(|name| directory.path().join(name));
        fs::write(&rules_file, rules).unwrap();
        let mut tokens = HashMap::new();
        for name in CALLERS {
            let token = tokens::add(&tokens_file, name, Vec::new(), None).unwrap();
            tokens.insert(name.to_owned(), token.expose().to_owned());
        }
        let (rules_file, tokens_file) = (rules_file.display().to_string(), tokens_file.display().to_string());
        let own = ["--access", &rules_file, "--tokens", &tokens_file, "--reload-interval", "20ms"];
        let server = Server::start_with(&[&own[..], arguments].concat());
        Self { server, directory, tokens }
    }

    /// Replaces the rules in one step.
    pub fn write_rules(&self, rules: &str) {
        fs::write(self.file("new.toml"), rules).unwrap();
        fs::rename(self.file("new.toml"), self.file("access.toml")).unwrap();
    }

    /// The token of a caller.
    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.file("tokens.toml")
    }

    /// A caller with its token; without a name, one that has none.
    pub fn client(&self, name: Option<&str>) -> Client {
        let token = name.map(|name| Token::Text(self.token(name).into()));
        Client::with_credentials(&self.server.url(), Credentials { token, ..Credentials::default() }).unwrap()
    }

    /// The command `perennial` of a caller.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.server.client(arguments);
        command.env("PERENNIAL_TOKEN", self.token(name));
        command
    }

    /// A file that only its owner can read.
    pub fn private(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).unwrap();
        mode(&path, 0o600);
        path
    }
}

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
