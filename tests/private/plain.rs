//! Plain text, where others can listen, is a decision of the operator. So is everything that TLS needs.

use std::process::Command;

use crate::{
    authority::Authority,
    harness::{Server, output::run, output::stderr, server_command},
};

/// Why a server with these options does not start, and its exit code.
fn refused(listen: &str, options: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    let mut command: Command = server_command(directory.path(), listen);
    let output = run(command.args(options));
    (output.status.code(), stderr(&output))
}

#[test]
fn plain_text_on_an_address_that_others_can_reach_needs_a_decision() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:1"] {
        let (code, text) = refused(listen, &[]);
        assert_eq!(code, Some(2), "{listen}: {text}");
        assert!(text.contains(&format!("--listen is {listen}: others can reach this address")), "{text}");
        for remedy in ["--tls-cert", "--tls-key", "127.0.0.1", "--insecure"] {
            assert!(text.contains(remedy), "{text}");
        }
    }
    let server = Server::start_with_listen("0.0.0.0:0", &["--insecure"]);
    let line = server.wait_for_log("warning: every client that reaches");
    assert!(line.contains("no TLS"), "{line}");
    // The whole network 127.0.0.0/8 is of this machine.
    drop(Server::start_with_listen("127.1.2.3:0", &[]));
}

#[test]
fn a_server_with_tls_may_listen_everywhere_and_warns_if_it_serves_everyone() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| authority.path(name));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let server = Server::start_with_listen("0.0.0.0:0", &tls);
    assert!(server.startup().iter().any(|line| line.contains("listening on https://")));
    let line = server.wait_for_log("warning: every client");
    assert!(line.contains("--tls-client-ca"), "{line}");
    let options = [&tls[..], &["--tls-client-ca", &ca]].concat();
    let mut server = Server::start_with_listen("0.0.0.0:0", &options);
    server.terminate();
    server.wait();
    let log = server.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("warning")), "{log:?}");
}

#[test]
fn settings_of_tls_that_cannot_work_are_refused_at_the_start() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    authority.sign_server();
    other.sign_server();
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| authority.path(name));
    let other_key = other.path("server.key");
    for (options, code, fault) in [
        (&["--tls-cert", &certificate][..], 2, "--tls-cert is set, which also needs --tls-key FILE"),
        (&["--tls-key", &key], 2, "--tls-key is set, which also needs --tls-cert FILE"),
        (&["--tls-client-ca", &ca], 2, "needs --tls-cert FILE and --tls-key FILE"),
        (
            &["--tls-cert", &certificate, "--tls-key", &key, "--tls-crl", &ca],
            2,
            "--tls-crl is set, which also needs --tls-client-ca FILE",
        ),
        (&["--tls-client-auth", "perhaps"], 2, "neither required nor optional"),
        (
            &["--tls-cert", &certificate, "--tls-key", &other_key],
            1,
            "does not belong to the first certificate",
        ),
        (&["--tls-cert", "/no/such/file", "--tls-key", &key], 1, "/no/such/file: No such file"),
    ] {
        let (exit, text) = refused("127.0.0.1:0", options);
        assert_eq!(exit, Some(code), "{options:?}: {text}");
        assert!(text.contains(fault), "{options:?}: {text}");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    let (exit, text) = refused("127.0.0.1:0", &["--tls-cert", &certificate, "--tls-key", &key]);
    assert_eq!(exit, Some(1), "{text}");
    assert!(
        text.contains("server.key: others have permissions on it (644)") && text.contains("chmod 600"),
        "{text}"
    );
}
