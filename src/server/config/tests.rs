//! Settings from each source, and the errors of wrong ones.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{path::Path, time::Duration};

use clap::Parser;

use super::*;

fn given(arguments: &[&str]) -> Settings {
    let arguments = ["perenniald"].iter().chain(arguments);
    Arguments::try_parse_from(arguments).unwrap().settings
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = file::parse("stall = '10s'\nmax-streams = 7\nroot = ['a=/a']\nmax-line = '2KiB'").unwrap();
    let config = resolve(given(&["--stall", "20s", "--data", "/d"]), file).unwrap();
    assert_eq!(config.calls.stall, Duration::from_secs(20));
    assert_eq!(config.calls.max_streams, 7);
    assert_eq!(config.lines.max_line_bytes, 2048);
    let [root] = &config.roots[..] else { panic!("{:?}", config.roots) };
    assert_eq!((root.name.as_str(), root.path.as_path()), ("a", Path::new("/a")));
    assert_eq!(config.connections.drain, Duration::from_secs(20));
    assert_eq!(config.listen[0].to_string(), "127.0.0.1:50051");
}

/// As a number, TOML would read other digits than those that were written.
#[test]
fn a_mode_in_the_file_is_a_text_of_octal_digits() {
    let file = file::parse("socket-mode = \"660\"").unwrap();
    let arguments = ["--data", "/d", "--listen", "unix:/run/p"];
    assert_eq!(resolve(given(&arguments), file).unwrap().socket_mode, 0o660);
    for value in ["0o660", "660", "432", "\"+60\"", "\"0o660\"", "\"888\""] {
        let fault = file::parse(&format!("socket-mode = {value}")).unwrap_err();
        assert!(fault.contains("660"), "{value}: {fault}");
    }
}

#[test]
fn a_server_listens_on_one_address_or_on_several() {
    let listen = |arguments: &[&str], file: &str| {
        let arguments = [&["--data", "/d"], arguments].concat();
        resolve(given(&arguments), file::parse(file).unwrap()).map(|config| config.urls())
    };
    let urls = |arguments: &[&str], file: &str| listen(arguments, file).unwrap();
    assert_eq!(urls(&[], ""), ["http://127.0.0.1:50051"]);
    assert_eq!(urls(&[], "listen = 'unix:/run/p'"), ["unix:/run/p"]);
    assert_eq!(urls(&[], "listen = ['unix:/run/p', '[::1]:1']"), ["http://[::1]:1", "unix:/run/p"]);
    // A list from the flags replaces that of the file.
    let flags = ["--listen", "127.0.0.1:1", "--listen", "127.0.0.2:1,unix:p"];
    let expected = ["http://127.0.0.1:1", "http://127.0.0.2:1", "unix:p"];
    assert_eq!(urls(&flags, "listen = 'unix:/run/p'"), expected);
    assert!(file::parse("listen = ['here']").unwrap_err().contains("unix:PATH"));
    // TLS is for the addresses alone, and needs one.
    let tls = ["--tls-cert", "c", "--tls-key", "k", "--listen", "unix:/run/p"];
    assert!(listen(&tls, "").unwrap_err().to_string().contains("listen on IP:PORT, too"));
    let both = [&tls[..], &["--listen", "0.0.0.0:1"]].concat();
    assert_eq!(urls(&both, ""), ["https://0.0.0.0:1", "unix:/run/p"]);
    // One address of several that others can reach.
    let error = listen(&["--listen", "127.0.0.1:1,0.0.0.0:1"], "").unwrap_err().to_string();
    assert!(error.starts_with("--listen is 0.0.0.0:1: others can reach"), "{error}");
}

#[test]
fn a_setting_that_would_have_no_effect_is_refused() {
    for (arguments, needed) in [
        (&["--socket-mode", "660"][..], "--socket-mode is set, which also needs --listen unix:PATH"),
        (&["--handshake", "5s"], "--handshake is set, which also needs --tls-cert FILE"),
    ] {
        let arguments = [&["--data", "/d"], arguments].concat();
        let error = resolve(given(&arguments), Settings::default()).unwrap_err().to_string();
        assert!(error.starts_with(needed), "{error}");
    }
    let file = file::parse("socket-mode = '660'").unwrap();
    assert!(resolve(given(&["--data", "/d"]), file).is_err());
    // `config print` writes the defaults, too.
    let file = file::parse("socket-mode = '600'\nhandshake = '10s'").unwrap();
    resolve(given(&["--data", "/d"]), file).unwrap();
    let used = ["--data", "/d", "--socket-mode", "660", "--listen", "unix:p,127.0.0.1:1"];
    resolve(given(&used), Settings::default()).unwrap();
    let used = ["--data", "/d", "--handshake", "5s", "--tls-cert", "c", "--tls-key", "k"];
    resolve(given(&used), Settings::default()).unwrap();
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_the_nearest_known_key() {
    let fault = file::parse("# a comment\nmax-streems = 7").unwrap_err();
    assert!(fault.starts_with("line 2: ") && fault.contains("`max-streams`"), "{fault}");
    let fault = file::parse("max-streams = 7\nmax-s = 7").unwrap_err();
    assert!(fault.starts_with("line 2: "), "{fault}");
    let fault = file::parse("colour = 'red'").unwrap_err();
    assert!(!fault.contains("Did you mean"), "{fault}");
    let fault = file::parse("[limits]\nstall = '5s'").unwrap_err();
    assert!(fault.contains("`[limits]`") && fault.contains("at the top"), "{fault}");
    let fault = file::parse("stall = 'soon'").unwrap_err();
    assert!(fault.contains("stall") && fault.contains("500ms"), "{fault}");
}

#[test]
fn the_error_of_a_wrong_value_says_what_would_work() {
    let error = resolve(given(&["--max-streams", "0", "--data", "/d"]), Settings::default()).unwrap_err();
    assert_eq!(error.to_string(), "--max-streams is 0: it must be 1 or more");
    let most = u64::MAX.to_string();
    let error = resolve(given(&["--max-message", &most, "--data", "/d"]), Settings::default()).unwrap_err();
    assert!(error.to_string().contains("16MiB at most"), "{error}");
    for wrong in [
        &["--stall", "soon"][..],
        &["--root", "logs"],
        &["--max-line", "1 parsec"],
        &["--listen", "here"],
        &["--demo=perhaps"],
        &["--idle", "2562047788015215h"],
    ] {
        assert!(Arguments::try_parse_from(["perenniald"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn rules_from_flags_and_from_the_file_apply_to_the_roots_that_they_name() {
    let file = "root = ['a=/a', 'b=/b']\nallow = ['a=*.{log,txt}']\ndeny = ['b=x']\nabsolute-links = ['b']";
    let flags = [
        "--deny",
        "a=*.key,a=y",
        "--deny=b=z=1",
        "--history=a=archive/**,b=*.old",
        "--no-hard-links",
        "a",
        "--data",
        "/d",
    ];
    let config = resolve(given(&flags), file::parse(file).unwrap()).unwrap();
    let [a, b] = &config.roots[..] else { panic!("{:?}", config.roots) };
    let globs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<lines::Glob>>();
    assert_eq!(a.rules.allow, globs(&["*.{log,txt}"]));
    assert_eq!((&a.rules.deny, &b.rules.deny), (&globs(&["*.key", "y"]), &globs(&["z=1"])));
    assert_eq!((&a.rules.history, &b.rules.history), (&globs(&["archive/**"]), &globs(&["*.old"])));
    assert_eq!((a.rules.hard_links, a.rules.absolute_links), (false, false));
    assert_eq!((b.rules.hard_links, b.rules.absolute_links), (true, true));
    assert!(b.rules.allow.is_empty());
}

#[test]
fn the_error_of_a_rule_for_an_unknown_root_lists_the_known_roots() {
    for (setting, value) in [
        ("--allow", "log=*"),
        ("--deny", "log=*"),
        ("--history", "log=archive/**"),
        ("--no-hard-links", "log"),
        ("--absolute-links", "log"),
    ] {
        let flags = ["--root", "logs=/l,app=/a", setting, value, "--data", "/d"];
        let error = resolve(given(&flags), Settings::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{setting} names the root `log`")), "{error}");
        assert!(error.contains("`logs`, `app`") && error.contains("--root log=DIR"), "{error}");
    }
    let error = resolve(given(&["--deny", "log=*", "--data", "/d"]), Settings::default()).unwrap_err();
    assert!(error.to_string().ends_with("add it with --root log=DIR"), "{error}");
}

#[test]
fn the_error_of_a_wrong_glob_names_the_setting_the_fault_and_a_remedy() {
    for (wrong, fault) in [("logs=[a", "character class"), ("logs=../x", "`..`"), ("*.log", "NAME=GLOB")] {
        let error = Arguments::try_parse_from(["perenniald", "--deny", wrong]).unwrap_err().to_string();
        assert!(error.contains("--deny") && error.contains(fault) && error.contains("*.log"), "{error}");
        let fault_of_file = file::parse(&format!("stall = '5s'\ndeny = ['{wrong}']")).unwrap_err();
        assert!(fault_of_file.contains("line 2") && fault_of_file.contains(fault), "{fault_of_file}");
    }
    // A comma separates two globs, also within braces.
    let error = Arguments::try_parse_from(["perenniald", "--allow", "logs=*.{log,txt}"]).unwrap_err();
    assert!(error.to_string().contains("unclosed alternate"), "{error}");
    let fault = file::parse("[roots.logs]\npath = '/var/log'").unwrap_err();
    assert!(fault.contains("`[roots]`") && fault.contains("at the top"), "{fault}");
}

#[test]
fn retention_rules_keep_their_order_and_flags_replace_those_of_the_file() {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let file = || file::parse("retain = ['a.b=count:7', 'a.>=age:7d total:2GiB']\nretention-interval = '5s'");
    let config = resolve(given(&["--data", "/d"]), file().unwrap()).unwrap();
    assert_eq!(config.messages.retention, rules(&["a.b=count:7", "a.>=age:7d total:2GiB"]));
    assert_eq!(config.messages.retention_interval, Duration::from_secs(5));

    let flags = ["--retain", "b=last,c=bytes:1KiB count:2", "--retain=>=age:1d", "--data", "/d"];
    let config = resolve(given(&flags), file().unwrap()).unwrap();
    assert_eq!(config.messages.retention, rules(&["b=last", "c=bytes:1KiB count:2", ">=age:1d"]));

    let config = resolve(given(&["--data", "/d"]), Settings::default()).unwrap();
    assert!(config.messages.retention.is_empty());
    assert_eq!(config.messages.retention_interval, Duration::from_secs(20));
    let flags = ["--retention-interval", "0s", "--data", "/d"];
    let error = resolve(given(&flags), Settings::default()).unwrap_err().to_string();
    assert!(error.starts_with("--retention-interval is 0") && error.contains("1ms or more"), "{error}");
}

#[test]
fn the_error_of_a_wrong_retention_rule_names_the_setting_the_fault_and_a_remedy() {
    for (wrong, fault, remedy) in [
        ("orders.>", "PATTERN=LIMITS", "orders.>=age:7d"),
        ("orders.>=7d", "`7d` is not a limit", "age:7d"),
        ("orders.>=count:0", "count is 0", "leave it out"),
        ("orders.>.a=age:7d", "the pattern has `>` before its end", "only the last token"),
        ("$countdown.>=age:7d", "`$`", "the server's own"),
    ] {
        let error = Arguments::try_parse_from(["perenniald", "--retain", wrong]).unwrap_err().to_string();
        assert!(error.contains("--retain") && error.contains(fault) && error.contains(remedy), "{error}");
        let fault_of_file = file::parse(&format!("stall = '5s'\nretain = ['{wrong}']")).unwrap_err();
        let is_located = fault_of_file.contains("line 2") && fault_of_file.contains("retain");
        assert!(is_located && fault_of_file.contains(fault), "{fault_of_file}");
    }
    // A comma separates two rules; a limit alone is not a rule.
    let error = Arguments::try_parse_from(["perenniald", "--retain", "a=age:7d,count:1"]).unwrap_err();
    assert!(error.to_string().contains("spaces between limits"), "{error}");
}

#[test]
fn the_demo_is_a_flag_that_also_takes_a_value() {
    for (flag, expected) in [("--demo", true), ("--demo=1", true), ("--demo=true", true), ("--demo=0", false)]
    {
        assert_eq!(given(&[flag]).demo, Some(expected), "{flag}");
    }
}

#[test]
fn every_setting_is_a_flag_a_variable_and_a_key() {
    let mut command = Arguments::full_command();
    for argument in command.get_arguments() {
        let flag = argument.get_long().unwrap();
        assert_eq!(argument.get_env().unwrap().to_str().unwrap(), variable(flag));
    }
    command.build();
    command.debug_assert();
}

#[test]
fn the_help_prints_the_defaults_of_the_parts() {
    let help = Arguments::full_command().render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, default) in [
        ("--listen", "127.0.0.1:50051"),
        ("--stall", "5m"),
        ("--max-line", "1MiB"),
        ("--segment", "64MiB"),
        ("--max-tick-rate", "1000000"),
        ("--keep-ended", "1d"),
    ] {
        let text = help.split(&format!("{flag} <")).nth(1).unwrap();
        let text = text.split("[env: ").next().unwrap();
        assert!(text.ends_with(&format!("[default: {default}] ")), "{flag}: {text}");
    }
    // The help follows when a part changes its default.
    let mut config = Config::with_data("/d".into());
    config.calls.stall = Duration::from_secs(7);
    assert!(Settings::defaults(&config).contains(&("stall".into(), "7s".into())));
}

#[test]
fn each_printed_default_is_accepted_as_a_value() {
    let defaults = Config::with_data("/d".into());
    Settings::check(&defaults).unwrap();
    let defaults = Settings::defaults(&defaults);
    assert!(defaults.len() > 30, "{defaults:?}");
    for (flag, default) in &defaults {
        let flags = [format!("--{flag}"), default.clone(), "--data".into(), "/d".into()];
        let flags = flags.iter().map(String::as_str).collect::<Vec<_>>();
        let config = resolve(given(&flags), Settings::default()).unwrap();
        assert_eq!(Settings::defaults(&config), defaults, "{flag}");
    }
}

#[test]
fn a_duration_has_one_grammar_in_flags_retention_and_the_file() {
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let config = resolve(given(&["--keep-ended", "7d", "--data", "/d"]), Settings::default()).unwrap();
    assert_eq!(config.countdown.keep_ended, week);
    let file = file::parse("keep-ended = '1w'").unwrap();
    let config = resolve(given(&["--data", "/d", "--retain", "a=age:1w"]), file).unwrap();
    assert_eq!((config.countdown.keep_ended, config.messages.retention[0].age), (week, Some(week)));
}
