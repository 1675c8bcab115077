//! The commands of the operator and of the caller: `perenniald token`, and the token of `perennial`.

use std::process::Command;

use crate::{
    harness::{
        Server,
        output::{run, stderr, stdout},
        server_command,
    },
    house::{House, RULES, mode},
};

const PERMISSION_DENIED: i32 = 64 + 7;
const UNAUTHENTICATED: i32 = 64 + 16;
const USAGE: i32 = 2;

/// `perenniald token` over a file of tokens.
fn token(house: &House, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    command.arg("token").arg("--tokens").arg(house.tokens_file()).args(arguments);
    command
}

#[test]
fn a_new_token_is_used_within_the_interval_and_a_revoked_one_no_longer() {
    let house = House::new();
    let made = run(&mut token(&house, &["new", "writer", "--expires", "1d", "--role", "ops"]));
    let secret = stdout(&made);
    assert!(
        made.status.success() && secret.starts_with("perennial_") && secret.len() == 75,
        "{}",
        stderr(&made)
    );
    let file = house.private("caller.token", &secret);
    let publish =
        |server: &Server| run(server.client(&["publish", "orders.new", "hello", "--token-file"]).arg(&file));
    house.server.wait_for_log("the files of access are in use");
    let published = publish(&house.server);
    assert_eq!(stdout(&published), "1\n", "{}", stderr(&published));
    let listed = stdout(&run(&mut token(&house, &["list"])));
    let row = listed.lines().find(|row| row.contains("ops")).unwrap();
    assert!(row.contains("valid") && row.ends_with("writer") && !listed.contains(secret.trim()), "{listed}");
    let id = row.split_whitespace().next().unwrap().to_owned();
    assert!(run(&mut token(&house, &["revoke", &id])).status.success());
    house.server.wait_for_log("the files of access are in use");
    let refused = publish(&house.server);
    assert_eq!(refused.status.code(), Some(UNAUTHENTICATED));
    assert!(
        stderr(&refused).contains("revoked") && !stderr(&refused).contains(secret.trim()),
        "{}",
        stderr(&refused)
    );
    // The other token of this name is as it was.
    assert_eq!(stdout(&run(&mut house.command("writer", &["publish", "orders.new", "x"]))), "2\n");
}

#[test]
fn a_denied_command_says_who_may_not_do_what() {
    let house = House::new();
    let denied = run(&mut house.command("reader", &["publish", "orders.new", "x"]));
    assert_eq!(denied.status.code(), Some(PERMISSION_DENIED));
    let text = stderr(&denied);
    assert!(
        text.contains("topic is `orders.new`: token:reader has no right to publish this topic"),
        "{text}"
    );
    let stranger = run(&mut house.server.client(&["messages", "orders.>"]));
    assert_eq!(stranger.status.code(), Some(UNAUTHENTICATED));
    assert!(stderr(&stranger).contains("show a token"), "{}", stderr(&stranger));
    assert_eq!(stdout(&run(&mut house.server.client(&["health"]))), "SERVING\n");
}

#[test]
fn a_refusal_is_logged_also_if_the_filter_of_the_log_asks_for_less() {
    for filter in ["warn", "perennial=debug"] {
        let house = House::with(RULES, &["--log", filter]);
        let denied = run(&mut house.command("reader", &["publish", "orders.new", "x"]));
        assert_eq!(denied.status.code(), Some(PERMISSION_DENIED));
        house.server.wait_for_log("denied caller=token:reader");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start_with_what_would_work() {
    let house = House::new();
    let start = |rules: &str, tokens: Option<&str>| {
        let mut command = server_command(house.server.directory(), "127.0.0.1:0");
        command.arg("--access").arg(house.private("other.toml", rules));
        command.args(tokens.iter().flat_map(|tokens| ["--tokens", tokens]));
        run(&mut command)
    };
    let tokens = house.tokens_file().display().to_string();
    for (rules, fault) in [
        ("", "may = [\"administer\"]"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['read']\nfiles = ['log']", "line 4: rule[0].files[0]"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['reed']", "did you mean `read`"),
    ] {
        let text = stderr(&start(rules, None));
        assert!(text.contains("other.toml: ") && text.contains(fault), "{rules}: {text}");
    }
    mode(&house.tokens_file(), 0o644);
    let text = stderr(&start(RULES, Some(&tokens)));
    assert!(text.contains("tokens.toml: ") && text.contains("chmod 600"), "{text}");
    assert!(stderr(&start(RULES, Some("/no/such/file"))).contains("/no/such/file"));
    let mut without_rules = server_command(house.server.directory(), "127.0.0.1:0");
    let text = stderr(&run(without_rules.args(["--tokens", &tokens])));
    assert!(text.contains("--tokens") && text.contains("--access FILE"), "{text}");
    let output = run(Command::new(env!("CARGO_BIN_EXE_perenniald")).args(["token", "list"]));
    assert!(output.status.code() == Some(USAGE) && stderr(&output).contains("--tokens FILE"));
    for (arguments, fault) in [
        (&["new", "a b"][..], "not a name"),
        (&["new", "a", "--expires", "soon"], "90d"),
        (&["new", "a", "--expires", "2020-01-01T00:00:00Z"], "past"),
    ] {
        let output = run(&mut token(&house, arguments));
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
        assert!(stderr(&output).contains(fault), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_variable_that_is_close_to_a_setting_is_a_warning_and_one_of_kubernetes_is_not() {
    let house = House::new();
    let mut command = server_command(house.server.directory(), "127.0.0.1:0");
    command.env("PERENNIAL_MAX_STREEMS", "5").env("PERENNIAL_PORT", "tcp://10.0.0.1:50051");
    let text = stderr(&run(command.args(["--access", "/no/such/file"])));
    let warnings = text.lines().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
    assert!(matches!(warnings[..], [one] if one.contains("did you mean `PERENNIAL_MAX_STREAMS`?")), "{text}");
}

#[test]
fn a_login_keeps_the_token_for_its_server_and_no_other() {
    let (house, other) = (House::new(), House::new());
    let perennial = |arguments: &[&str], input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.args(arguments).env_clear().env("XDG_CONFIG_HOME", house.file("config"));
        let stdin = house.private("stdin", input);
        run(command.stdin(std::fs::File::open(stdin).unwrap()))
    };
    let url = house.server.url();
    let refused = perennial(&["--server", &url, "login"], "perennial_wrong\n");
    assert_eq!(refused.status.code(), Some(UNAUTHENTICATED), "{}", stderr(&refused));
    assert_eq!(perennial(&["--server", &url, "login"], "").status.code(), Some(USAGE));
    let kept = house.file("config").join("perennial");
    assert!(!kept.exists());
    for (name, option) in [("default", &[][..]), ("work", &["--profile", "work"])] {
        let token = house.token(if name == "work" { "writer" } else { "reader" });
        let login = perennial(&[&["--server", &url, "login"], option].concat(), &format!("{token}\n"));
        assert!(login.status.success(), "{}", stderr(&login));
        assert!(!stderr(&login).contains(&token[..20]) && login.stdout.is_empty());
        let file = kept.join(name).with_extension("toml");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap()) & 0o777, 0o600);
    }
    // The default profile has the server, too.
    let listed = perennial(&["topics"], "");
    assert!(listed.status.success(), "{}", stderr(&listed));
    let published = perennial(&["--profile", "work", "publish", "orders.a", "x"], "");
    assert_eq!(stdout(&published), "1\n", "{}", stderr(&published));
    // The token is not shown to another server.
    let elsewhere = perennial(&["--server", &other.server.url(), "topics"], "");
    assert!(stderr(&elsewhere).contains("without credentials"), "{}", stderr(&elsewhere));
    let elsewhere = perennial(&["--server", &other.server.url(), "--profile", "work", "topics"], "");
    assert_eq!(elsewhere.status.code(), Some(USAGE));
    assert!(stderr(&elsewhere).contains("is not of http://"), "{}", stderr(&elsewhere));
    let absent = perennial(&["--profile", "absent", "topics"], "");
    assert!(stderr(&absent).contains("perennial login --profile absent"), "{}", stderr(&absent));
    mode(&kept.join("work.toml"), 0o644);
    let open = perennial(&["--profile", "work", "topics"], "");
    assert!(open.status.code() == Some(USAGE) && stderr(&open).contains("chmod 600"), "{}", stderr(&open));
}

#[test]
fn a_token_is_never_sent_in_plain_text_to_another_machine_nor_read_from_an_open_file() {
    let house = House::new();
    let other = |url: &str| {
        let mut command = house.command("reader", &["topics"]);
        run(command.env("PERENNIAL_SERVER", url))
    };
    for (url, hint) in
        [("http://192.0.2.1:1", "https://192.0.2.1:1"), ("example.test:7", "https://example.test:7")]
    {
        let output = other(url);
        assert_eq!(output.status.code(), Some(USAGE), "{url}");
        let text = stderr(&output);
        assert!(text.contains("plain text") && text.contains(hint) && !text.contains("perennial_"), "{text}");
    }
    let file = house.private("open.token", house.token("reader"));
    mode(&file, 0o640 | 0o004);
    let output = run(house.server.client(&["topics", "--token-file"]).arg(&file));
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
    // Neither the log of the server nor an error has a part of a token.
    house.server.terminate();
    let log = house.server.rest_of_log().join("\n");
    let secret = house.token("reader").strip_prefix("perennial_").unwrap();
    assert!(!log.contains(&secret[..16]), "{log}");
}
