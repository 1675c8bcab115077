//! The text that the server prints when it is ready: its address, its data, its roots, warnings, and with the demo the
//! first commands to try. It goes to stderr without colours, so that it can be copied.

use std::path::Path;

use super::{Config, demo};
use crate::lines::Root;

/// The server of a client that is given none.
const DEFAULT_URL: &str = "http://127.0.0.1:50051";

/// Prints the text. `needs_certificates`: a client needs a certificate.
pub fn print(needs_certificates: bool, config: &Config, data: &Path, roots: &[Root]) {
    let urls = config.urls();
    let mut text = urls.iter().map(|url| format!("perenniald: listening on {url}\n")).collect::<String>();
    text += &format!("perenniald: messages are kept in {}\n", kept_in(config, data));
    for Root { name, path, .. } in roots {
        text += &format!("perenniald: files of {} can be read as {name}/…\n", path.display());
    }
    let (is_secure, has_rules) = (config.tls.is_some(), config.access.is_some());
    let exposed = config.listen.iter().filter(|listen| !listen.is_local());
    let address = exposed.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let warning = match (is_secure, has_rules) {
        _ if address.is_empty() => None,
        (false, true) => Some(format!(
            "everyone on the way to {address} can read and change what is sent, tokens too, because there is no TLS"
        )),
        (false, false) => Some(format!(
            "every client that reaches {address} can read, publish and purge, because there is no authentication, and \
             everyone on the way can read and change what is sent, because there is no TLS"
        )),
        (true, false) if !needs_certificates => Some(format!(
            "every client that reaches {address} can read, publish and purge: say who may do what with --access, or \
             require certificates with --tls-client-ca"
        )),
        (true, _) => None,
    };
    if let Some(warning) = warning {
        text += &format!("perenniald: warning: {warning}\n");
    }
    if let Some(metrics) = config.metrics {
        text += &format!("perenniald: metrics are at http://{metrics}/metrics\n");
        if !metrics.ip().is_loopback() {
            text += &format!(
                "perenniald: warning: every client that reaches {metrics} can read the metrics, because there is no \
                 authentication\n"
            );
        }
    }
    if config.demo {
        let url = urls.first().map_or(DEFAULT_URL, String::as_str);
        text += &commands(url);
    }
    anstream::eprint!("{text}");
}

/// Where messages are kept.
fn kept_in(config: &Config, data: &Path) -> String {
    #[cfg(feature = "jetstream")]
    if let Some(servers) = &config.cluster {
        return servers.address.to_string();
    }
    let _ = config;
    data.display().to_string()
}

/// Three commands for the bundled client, three for grpcurl, and what else reaches a server on TCP: curl and a browser.
fn commands(url: &str) -> String {
    // grpcurl takes an address without a scheme, or `unix:PATH`.
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let server = if url == DEFAULT_URL { String::new() } else { format!("--server {url} ") };
    let client = format!("{} {server}", client());
    let security = if url.starts_with("https:") { "" } else { "-plaintext " };
    let grpcurl =
        |request: &str, method: &str| format!("  grpcurl {security}-d '{request}' {address} {method}\n");
    let root = demo::ROOT;
    let trust = if security.is_empty() {
        ", with the authority in --ca FILE, or -cacert FILE, or --cacert FILE for curl, unless the system trusts it"
    } else {
        ""
    };
    let web = if url.starts_with("unix:") {
        String::new()
    } else {
        format!("\n  curl -N '{url}/v1/lines/{root}/app.log?last=5&follow'\n\nOr open {url} in a browser.\n")
    };
    [
        format!("\nTry, in another terminal{trust}:\n\n"),
        format!("  {client}countdown 5\n"),
        format!("  {client}lines {root}/app.log -n 5 -f\n"),
        format!("  {client}messages '{root}.>' --last 3\n\n"),
        grpcurl(r#"{"start": 5}"#, "perennial.v1.CountdownService/Countdown"),
        grpcurl(
            r#"{"path": "demo/app.log", "last": 5, "follow": true}"#,
            "perennial.v1.LineService/ReadLines",
        ),
        grpcurl(r#"{"topics": ["demo.>"], "last": 3}"#, "perennial.v1.MessageService/Messages"),
        web,
        "\nKill the server and start it again: the streams continue.\n".into(),
    ]
    .concat()
}

/// How to call the client from the current directory: by its path beside the server, unless it is on the PATH. A server
/// that `cargo run` has built is alone, so there cargo builds the client, too.
fn client() -> String {
    let server = std::env::current_exe().unwrap_or_default();
    let beside = server.with_file_name("perennial");
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("perennial").is_file())
    });
    let here = std::env::current_dir().unwrap_or_default();
    if on_path {
        "perennial".into()
    } else if beside.is_file() {
        let relative = beside.strip_prefix(&here);
        relative.map_or_else(|_| beside.display().to_string(), |path| format!("./{}", path.display()))
    } else if server.starts_with(here.join("target")) && here.join("Cargo.toml").is_file() {
        "cargo run --release --quiet --bin perennial --".into()
    } else {
        "perennial".into()
    }
}
