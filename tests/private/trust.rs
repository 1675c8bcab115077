//! Who trusts whom: a client that is accepted works as in plain text, and one that is not gets an error that says why.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, SystemTime},
};

use rcgen::SerialNumber;
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    harness::{
        PATIENCE, Server,
        output::{run, stderr, stdout},
    },
    renewal::start,
};

/// The exit code of a call that reaches no server.
const UNREACHABLE: i32 = 64 + 14;

/// The client at a URL, with these options before the command.
fn client(server: &Server, host: &str, options: &[&str]) -> Command {
    let mut command = server.client(options);
    command.env("PERENNIAL_SERVER", format!("{host}:{}", server.address().port()));
    command
}

/// The options of a client that trusts an authority, and shows a certificate of another one.
fn options(trusted: &Authority, own: &Authority, name: &str) -> Vec<String> {
    let [certificate, key] = ["pem", "key"].map(|kind| own.path(&format!("{name}.{kind}")));
    ["--ca", &trusted.path("ca.pem"), "--cert", &certificate, "--cert-key", &key].map(Into::into).to_vec()
}

#[test]
fn a_client_that_trusts_the_authority_works_as_in_plain_text() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let server = start(&authority, &[]);
    let ca = authority.path("ca.pem");
    // An address without a scheme is of TLS if there is something for TLS.
    for host in ["https://localhost", "https://127.0.0.1", "localhost"] {
        let output = run(&mut client(
            &server,
            host,
            &["--ca", &ca, "-o", "raw", "countdown", "2", "--interval", "1ms", "--burst"],
        ));
        assert_eq!(stdout(&output), "2\n1\n0\n", "{host}: {}", stderr(&output));
    }
    let from_environment = run(client(&server, "https://localhost", &["health"]).env("PERENNIAL_CA", &ca));
    assert_eq!(stdout(&from_environment), "SERVING\n", "{}", stderr(&from_environment));
    // The system's authorities, as `SSL_CERT_FILE` names them.
    let system = run(client(&server, "https://localhost", &["health"]).env("SSL_CERT_FILE", &ca));
    assert_eq!(stdout(&system), "SERVING\n", "{}", stderr(&system));
    let text = stderr(&run(&mut client(&server, "http://localhost", &["--ca", &ca, "health"])));
    assert!(text.contains("plain text") && text.contains("try https://localhost"), "{text}");
}

#[test]
fn a_large_stream_arrives_whole_by_tls() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let server = start(&authority, &[]);
    let lines = (0..200_000).map(|n| format!("{n} {}\n", "x".repeat(n % 150))).collect::<String>();
    std::fs::write(server.log_file("app.log"), &lines).unwrap();
    let output =
        run(&mut client(&server, "localhost", &["--ca", &authority.path("ca.pem"), "lines", "logs/app.log"]));
    assert_eq!(stdout(&output), lines, "{}", stderr(&output));
}

#[test]
fn a_server_that_requires_certificates_serves_those_of_its_authority_alone() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    authority.sign_server();
    for (name, serial) in [("good", 1), ("revoked", 2)] {
        authority.sign(name, &[name], |params| params.serial_number = Some(SerialNumber::from(serial)));
    }
    authority.sign("expired", &["expired"], |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    });
    other.sign("good", &["good"], |_| {});
    authority.revoke(&[2]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let server = start(&authority, &["--tls-client-ca", &ca, "--tls-crl", &crl]);

    let output = run(client(&server, "localhost", &["health"]).args(options(&authority, &authority, "good")));
    assert_eq!(stdout(&output), "SERVING\n", "{}", stderr(&output));
    // The key can be in the file of the certificate.
    let both = ["good.pem", "good.key"].map(|name| crate::authority::read(&authority.file(name))).concat();
    authority.write("both.pem", &both);
    let both = authority.path("both.pem");
    let output = run(&mut client(&server, "localhost", &["--ca", &ca, "--cert", &both, "health"]));
    assert_eq!(stdout(&output), "SERVING\n", "{}", stderr(&output));

    let none = vec!["--ca".to_owned(), ca];
    for (options, fault, logged) in [
        (none, "asks for a client certificate: give one with --cert", "the client has no certificate"),
        (options(&authority, &authority, "revoked"), "was revoked", "Revoked"),
        (options(&authority, &authority, "expired"), "client certificate has expired", "expired"),
        (options(&authority, &other, "good"), "does not trust the authority", "of no authority"),
    ] {
        let output = run(client(&server, "localhost", &["health"]).args(&options));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(UNREACHABLE), "{options:?}: {text}");
        assert!(text.contains(fault), "{options:?}: {text}");
        let line = server.wait_for_log("connection refused");
        assert!(line.contains(logged), "{line}");
    }
}

#[test]
fn a_server_with_optional_certificates_serves_clients_without_one_and_refuses_bad_ones() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    authority.sign_server();
    authority.sign("good", &["good"], |_| {});
    other.sign("good", &["good"], |_| {});
    let ca = authority.path("ca.pem");
    let server = start(&authority, &["--tls-client-ca", &ca, "--tls-client-auth", "optional"]);
    let none = vec!["--ca".to_owned(), ca.clone()];
    for (options, code) in [
        (none, 0),
        (options(&authority, &authority, "good"), 0),
        (options(&authority, &other, "good"), UNREACHABLE),
    ] {
        let output = run(client(&server, "localhost", &["health"]).args(&options));
        assert_eq!(output.status.code(), Some(code), "{options:?}: {}", stderr(&output));
    }
}

#[test]
fn each_reason_not_to_trust_a_server_has_an_error_that_says_what_to_do() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    authority.sign_server();
    let secure = start(&authority, &[]);
    let plain = Server::start();
    let expired = Authority::new("old");
    expired.sign("server", &["localhost"], |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    });
    let expired_server = start(&expired, &[]);
    let (ca, other_ca, expired_ca) = (authority.path("ca.pem"), other.path("ca.pem"), expired.path("ca.pem"));
    let elsewhere = format!("https://[::ffff:127.0.0.1]:{}", secure.address().port());
    for (server, host, options, fault) in [
        (&secure, "http://localhost", vec![], "the server speaks TLS: try https://localhost"),
        (&plain, "https://localhost", vec!["--ca", &ca], "does not speak TLS: try http://localhost"),
        (
            &secure,
            "https://localhost",
            vec!["--ca", &other_ca],
            "is not trusted: give the authority with --ca",
        ),
        (&secure, "https://localhost", vec![], "is not trusted: give the authority with --ca"),
        (&expired_server, "https://localhost", vec!["--ca", &expired_ca], "has expired: its operator"),
        (
            &secure,
            "https://localhost",
            vec!["--ca", &ca, "--server-name", "elsewhere.example"],
            "is for localhost, 127.0.0.1, and not for elsewhere.example",
        ),
    ] {
        let output = run(client(server, host, &["health"]).args(&options));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(UNREACHABLE), "{host} {options:?}: {text}");
        assert!(text.contains(fault), "{host} {options:?}: {text}");
        let output = run(client(server, host, &["-o", "json", "messages", "a"]).args(&options));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((&error["code"], &error["retryable"]), (&json!("UNAVAILABLE"), &json!(false)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(fault), "{error}");
    }
    let output = run(client(&secure, "h", &["--ca", &ca, "health"]).env("PERENNIAL_SERVER", &elsewhere));
    assert!(stderr(&output).contains("use a name that it has"), "{}", stderr(&output));
}

#[test]
fn files_of_the_client_that_cannot_be_used_are_refused_before_a_call() {
    let authority = Authority::new("ours");
    authority.sign_server();
    authority.sign("a", &["a"], |_| {});
    authority.sign("b", &["b"], |_| {});
    let [ca, a, b, key] = ["ca.pem", "a.pem", "b.key", "a.key"].map(|name| authority.path(name));
    let server = Server::start();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    for (options, fault) in [
        (&["--ca", "/no/such/file"][..], "/no/such/file: No such file"),
        (&["--ca", &key], "no certificate"),
        (&["--ca", &ca, "--cert", &a], "no private key"),
        (&["--ca", &ca, "--cert-key", &b], "--cert-key also needs --cert"),
        (&["--ca", &ca, "--cert", &a, "--cert-key", &b], "does not belong"),
        (&["--ca", &ca, "--cert", &a, "--cert-key", &key], "chmod 600"),
        (&["--ca", &ca, "--server-name", "a b"], "not a name"),
    ] {
        let output = run(client(&server, "localhost", &["health"]).args(options));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {text}");
        assert!(text.contains(fault), "{options:?}: {text}");
    }
}

#[test]
fn a_silent_client_is_closed_after_the_time_for_the_handshake_and_counted() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let server = start(&authority, &["--handshake", "50ms", "--metrics", "127.0.0.1:0"]);
    let metrics = server.wait_for_log("metrics are at ");
    let mut silent = TcpStream::connect(server.address()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let line = server.wait_for_log("connection refused");
    assert!(line.contains("--handshake"), "{line}");
    let address = metrics.rsplit("http://").next().unwrap().trim_end_matches("/metrics").to_owned();
    let mut scrape = TcpStream::connect(address).unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(text.contains("perennial_tls_handshakes_refused_total{reason=\"TIMEOUT\"} 1\n"), "{text}");
    assert!(text.contains("perennial_tls_certificate_expiry_timestamp_seconds "), "{text}");
    assert!(!text.contains("tls_crl_expiry"), "{text}");
}
