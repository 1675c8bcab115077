#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use super::*;
use crate::access::{Need, Part};

fn parse(text: &str) -> Result<Rules, Vec<Fault>> {
    Rules::parse(text, &["logs".into(), "app".into()], &Accounts::default())
}

fn rights(text: &str, who: &[&str]) -> Rights {
    let identities = who.iter().map(|who| Identity::parse(who, &Accounts::default()).unwrap());
    parse(text).unwrap().rights(&identities.collect::<Vec<_>>())
}

const RULES: &str = r#"
[[rule]]
who = ["token:billing", "role:reader"]
may = ["subscribe", "list"]
topics = ["orders.>", "state.*.now"]

[[rule]]
who = ["token:billing"]
may = ["commit", "publish"]
topics = ["bills.*"]
consumers = ["billing", "billing.>"]

[[rule]]
who = ["anyone"]
may = ["read", "count", "list"]
files = ["logs=*.log", "app"]
countdowns = ["launch.*"]

[[rule]]
who = ["role:ops"]
may = ["administer"]
"#;

#[test]
fn a_caller_has_the_rights_of_each_of_its_identities_and_no_other() {
    let billing = rights(RULES, &["token:billing"]);
    let stranger = rights(RULES, &[]);
    let ops = rights(RULES, &["role:ops"]);
    for (verb, kind, name, is_billing, is_stranger) in [
        (Verb::Subscribe, Kind::Topic, "orders.new", true, false),
        (Verb::Subscribe, Kind::Topic, "orders", false, false),
        (Verb::Subscribe, Kind::Topic, "bills.a", false, false),
        (Verb::Publish, Kind::Topic, "bills.a", true, false),
        (Verb::Publish, Kind::Topic, "orders.new", false, false),
        (Verb::Purge, Kind::Topic, "bills.a", false, false),
        // A pattern needs the right for all of it.
        (Verb::Publish, Kind::Topic, "bills.*", true, false),
        (Verb::Publish, Kind::Topic, "bills.>", false, false),
        (Verb::Commit, Kind::Consumer, "billing", true, false),
        (Verb::Commit, Kind::Consumer, "billing.eu", true, false),
        (Verb::Commit, Kind::Consumer, "other", false, false),
        (Verb::Read, Kind::File, "logs/a.log", true, true),
        (Verb::Read, Kind::File, "logs/deep/a.log", true, true),
        (Verb::Read, Kind::File, "logs/a.txt", false, false),
        (Verb::Read, Kind::File, "app/a.txt", true, true),
        (Verb::Read, Kind::File, "other/a.log", false, false),
        (Verb::Read, Kind::File, "logs", false, false),
        (Verb::Count, Kind::Countdown, "launch.one", true, true),
        (Verb::Count, Kind::Countdown, "launch", false, false),
        (Verb::Manage, Kind::Countdown, "launch.one", false, false),
    ] {
        let need = Need::one(verb, kind, name, "field");
        assert_eq!(billing.allow(&need), is_billing, "{need:?}");
        assert_eq!(billing.allow_one(verb, kind, name), is_billing, "{need:?}");
        assert_eq!(stranger.allow(&need), is_stranger, "{need:?}");
        assert!(ops.allow(&need), "{need:?}");
    }
    assert!(stranger.allow(&Need::own_countdown()) && !Rights::default().allow(&Need::own_countdown()));
    assert!(stranger.allow(&Need::list(Kind::File)) && !stranger.allow(&Need::list(Kind::Topic)));
    assert!(billing.allow(&Need::list(Kind::Topic)) && !billing.allow(&Need::some(Verb::Purge, Kind::Topic)));
    assert!(billing.show_all_files(Some("app/x")) && billing.show_all_files(Some("app")));
    assert!(
        !billing.show_all_files(Some("logs")) && !billing.show_all_files(None) && ops.show_all_files(None)
    );
}

#[test]
fn a_subscription_gets_the_part_that_may_be_read() {
    let billing = rights(RULES, &["token:billing"]);
    let part = |topics: &[&str]| {
        let topics = topics.iter().map(ToString::to_string).collect::<Vec<_>>();
        match billing.readable(&topics) {
            Part::All => vec!["all".to_owned()],
            Part::Of(patterns) => patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        }
    };
    assert_eq!(part(&["orders.>"]), ["all"]);
    assert_eq!(part(&["orders.new", "state.a.now"]), ["all"]);
    assert_eq!(part(&[">"]), ["orders.>", "state.*.now"]);
    assert_eq!(part(&["*.a.*", "orders.a.b"]), ["orders.a.*", "state.a.now"]);
    assert_eq!(part(&["orders.new", ">"]), ["orders.>", "state.*.now"]);
    assert!(billing.allow(&Need::part(">", "topics")) && billing.allow(&Need::part("*.*.now", "topics")));
    assert!(
        !billing.allow(&Need::part("bills.>", "topics"))
            && !billing.allow(&Need::part("$consumer.>", "topics"))
    );
    assert_eq!(rights(RULES, &["role:ops"]).readable(&[">".into()]), Part::All);
}

#[test]
fn each_fault_has_its_line_its_field_and_what_would_work() {
    for (text, line, field, fault) in [
        ("", 1, "rule", "may = [\"administer\"]"),
        ("rule = 1", 1, "rule", "[[rule]]"),
        ("a = [\n", 1, "", "unclosed array"),
        ("rules = 1\n[[rule]]\nwho=['anyone']\nmay=['count']", 1, "", "did you mean `rule`"),
        ("[[rule]]\nmay = ['count']", 1, "rule[0].who", "write who ="),
        ("[[rule]]\nwho = ['anyone']", 1, "rule[0].may", "write may ="),
        ("[[rule]]\nwho = 'anyone'\nmay = ['count']", 2, "rule[0].who", "is no list"),
        ("[[rule]]\nwho = []\nmay = ['count']", 2, "rule[0].who", "is empty"),
        ("[[rule]]\nwho = [1]\nmay = ['count']", 2, "rule[0].who[0]", "in quotes"),
        ("[[rule]]\nwho = ['alice']\nmay = ['count']", 2, "rule[0].who[0]", "token:NAME"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['count',\n'reed']", 4, "rule[0].may[1]", "did you mean `read`"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['publish']", 1, "rule[0]", "`publish` needs `topics`"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['list']", 1, "rule[0]", "`topics` or `files` or"),
        ("[[rule]]\nwho = ['anyone']\nmay = ['read']\ntopics = ['a']", 4, "rule[0].topics", "has no effect"),
        (
            "[[rule]]\nwho = ['anyone']\nmay = ['publish']\ntopics = ['a..b']",
            4,
            "rule[0].topics[0]",
            "empty token",
        ),
        (
            "[[rule]]\nwho = ['anyone']\nmay = ['read']\nfiles = ['log=*']",
            4,
            "rule[0].files[0]",
            "served: `logs`, `app`",
        ),
        (
            "[[rule]]\nwho = ['anyone']\nmay = ['read']\nfiles = ['logs=[a']",
            4,
            "rule[0].files[0]",
            "character class",
        ),
        ("quota = 1\n[[rule]]\nwho=['anyone']\nmay=['count']", 1, "quota", "[[quota]]"),
        ("[[quota]]\ntopic_count = 1", 1, "quota[0].topics", "write topics ="),
        ("[[quota]]\ntopics = ['a']", 1, "quota[0]", "set topic_count or stored_bytes"),
        ("[[quota]]\ntopics = ['a']\ntopic_count = 0", 3, "quota[0].topic_count", "a number from 1 on"),
        ("[[quota]]\ntopics = ['a']\ntopic_count = '9'", 3, "quota[0].topic_count", "a number from 1 on"),
        ("[[quota]]\ntopics = ['a']\nstored_bytes = '1GB?'", 3, "quota[0].stored_bytes", "as \"10GiB\""),
        ("[[quota]]\ntopics = ['a..b']\ntopic_count = 1", 2, "quota[0].topics[0]", "empty token"),
        (
            "[[quota]]\ntopics = ['$countdown.>']\ntopic_count = 1",
            2,
            "quota[0].topics[0]",
            "the server's own",
        ),
        ("[[quota]]\ntopics = ['a']\nstored_byte = 1", 3, "quota[0]", "did you mean `stored_bytes`"),
        (
            "[[rule]]\nwho = ['anyone']\nmay = ['count']\nfile = ['logs']",
            4,
            "rule[0]",
            "did you mean `files`",
        ),
    ] {
        let faults = parse(text).unwrap_err();
        let found = faults.iter().find(|found| found.field == field && found.text.contains(fault));
        assert!(found.is_some_and(|found| found.line == line), "{text}: {faults:?}");
    }
    // The whole file is checked.
    let text =
        "[[rule]]\nwho = ['x']\nmay = ['y']\n[[rule]]\nwho = ['anyone']\nmay = ['publish']\ntopics = ['']";
    let faults = parse(text).unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3, 7], "{faults:?}");
    assert!(faults[0].to_string().starts_with("line 2: rule[0].who[0]: "));
}

#[test]
fn what_follows_from_a_fault_is_not_reported_as_another_one() {
    for text in [
        "[[rules]]\nwho = ['anyone']\nmay = ['count']",
        "[[rule]]\nwhom = ['anyone']\nmay = ['count']",
        "[[rule]]\nwho = ['anyone']\nmy = ['count']",
        "[[rule]]\nwho = ['anyone']\nmay = ['publsh']\ntopics = ['a']",
        "[[rule]]\nwho = ['anyone']\nmay = ['publish']\ntopic = ['a']",
        "[[rule]]\nwho = ['anyone']\nmay = 'publish'\ntopics = ['a']",
        "[[rule]]\nwho = ['anyone']\nmay = ['publish']\ntopics = ['a..b']",
        "[[limit]]\nwho = ['anyone']\ncall = 1\n[[rule]]\nwho = ['anyone']\nmay = ['count']",
        "[[limit]]\nwhom = ['anyone']\ncalls = 1\n[[rule]]\nwho = ['anyone']\nmay = ['count']",
        "[[quota]]\ntopics = ['a']\ntopiccount = 1\n[[rule]]\nwho = ['anyone']\nmay = ['count']",
        "[jwt]\nissuers = 'x'\n[[rule]]\nwho = ['anyone']\nmay = ['count']",
    ] {
        let faults = parse(text).unwrap_err();
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
    }
}

#[test]
fn quotas_of_topics_are_read() {
    let anyone = "[[rule]]\nwho = ['anyone']\nmay = ['count']\n";
    let quota = "[[quota]]\ntopics = ['a.>', 'b']\ntopic_count = 3\nstored_bytes = '1KiB'\n";
    let rules = parse(&format!("{anyone}{quota}[[quota]]\ntopics = ['c']\nstored_bytes = 7")).unwrap();
    let [first, second] = rules.quotas() else { panic!("{:?}", rules.quotas()) };
    assert_eq!((first.name(), first.topics, first.bytes), ("a.> b".into(), Some(3), Some(1024)));
    assert_eq!((second.topics, second.bytes), (None, Some(7)));
    assert!(first.has("a.x") && first.has("b") && !first.has("c") && !first.has("$a.x"));
    let many = parse(&(anyone.to_owned() + &quota.repeat(65))).unwrap_err();
    assert!(many[0].text.contains("there can be 64"), "{many:?}");
}

#[test]
fn rules_that_cannot_be_read_do_not_panic_and_every_fault_has_a_line() {
    use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
    let pieces = [
        "[[rule]]",
        "who",
        "may",
        "topics",
        "files",
        "=",
        "[",
        "]",
        "'",
        "\"",
        "anyone",
        "token:a",
        "subscribe",
        ">",
        "a.*",
        "logs",
        "logs=**",
        "\n",
        " ",
        ",",
        "#",
        "{",
        "}",
        "1",
        "true",
        "\u{fc}",
        "\0",
    ];
    TestRunner::default()
        .run(&vec(select(pieces.to_vec()), 0..40), |pieces| {
            if let Err(faults) = parse(&pieces.concat()) {
                prop_assert!(!faults.is_empty() && faults.len() <= MAX_FAULTS);
                prop_assert!(faults.iter().all(|fault| fault.line >= 1 && !fault.text.is_empty()));
            }
            Ok(())
        })
        .unwrap();
}
