//! The same as `random` for files, consumers and shared countdowns.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use perennial::{
    client::{Client, Code},
    proto::{
        CreateCountdownRequest, ReadLinesRequest, SetConsumerRequest, WatchFilesRequest,
        create_countdown_request::Target, file_change::Change, set_consumer_request::Start,
    },
};

use crate::{
    harness::soon,
    house::House,
    random::{has, some},
};

const ROUNDS: usize = 20;
const CALLERS: [&str; 2] = ["reader", "writer"];
const FILES: [&str; 5] = ["logs/a.log", "logs/a.txt", "logs/d/a.log", "logs/d/e/a.log", "logs/e/a.txt"];
const CONSUMERS: [&str; 3] = ["work", "work.a", "bill"];
const COUNTDOWNS: [&str; 3] = ["launch", "launch.a", "end"];

/// A kind of things: the key of a rule, the verbs, and what a rule can name.
struct Kind {
    key: &'static str,
    verbs: &'static [&'static str],
    patterns: &'static [&'static str],
    names: &'static [&'static str],
}

const KINDS: [Kind; 3] = [
    Kind {
        key: "files",
        verbs: &["list", "read"],
        patterns: &["*", "logs", "logs=*.log", "logs=d/**", "logs=/a.log", "logs=d/*.log", "logs=e"],
        names: &FILES,
    },
    Kind {
        key: "consumers",
        verbs: &["list", "commit"],
        patterns: &["work", "work.>", "*", "bill", ">"],
        names: &CONSUMERS,
    },
    Kind {
        key: "countdowns",
        verbs: &["list", "count", "manage"],
        patterns: &["launch", "launch.*", "*", "end"],
        names: &COUNTDOWNS,
    },
];

struct Rule {
    who: &'static str,
    kind: usize,
    may: Vec<&'static str>,
    names: Vec<&'static str>,
}

/// Whether a rule that names this holds for a thing.
fn holds(kind: usize, pattern: &str, name: &str) -> bool {
    if KINDS[kind].key != "files" {
        return has(pattern, name);
    }
    let path = name.strip_prefix("logs/").unwrap();
    match pattern {
        "*" | "logs" => true,
        "logs=*.log" => path.split('.').next_back() == Some("log"),
        "logs=d/**" => path.starts_with("d/"),
        "logs=/a.log" => path == "a.log",
        "logs=d/*.log" => path == "d/a.log",
        "logs=e" => path.starts_with("e/") || path.starts_with("d/e/"),
        _ => unreachable!("{pattern}"),
    }
}

fn may(rules: &[Rule], caller: &str, verb: &str, kind: usize, name: &str) -> bool {
    rules.iter().any(|rule| {
        let is_for = [caller, "anyone"].contains(&rule.who) && rule.kind == kind && rule.may.contains(&verb);
        is_for && rule.names.iter().any(|pattern| holds(kind, pattern, name))
    })
}

fn rules() -> Vec<Rule> {
    let rule = || {
        let kind = fastrand::usize(..3);
        Rule {
            who: ["reader", "writer", "anyone"][fastrand::usize(..3)],
            kind,
            may: some(KINDS[kind].verbs),
            names: vec![KINDS[kind].patterns[fastrand::usize(..KINDS[kind].patterns.len())]],
        }
    };
    (0..fastrand::usize(1..7)).map(|_| rule()).collect()
}

fn text(rules: &[Rule]) -> String {
    let list = |items: &[&str]| items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", ");
    let rule = |Rule { who, kind, may, names }: &Rule| {
        let who = if *who == "anyone" { (*who).to_owned() } else { format!("token:{who}") };
        let (may, names, key) = (list(may), list(names), KINDS[*kind].key);
        format!("[[rule]]\nwho = ['{who}']\nmay = [{may}]\n{key} = [{names}]\n")
    };
    let operator = "[[rule]]\nwho = ['token:operator']\nmay = ['administer']\n";
    operator.to_owned() + &rules.iter().map(rule).collect::<String>()
}

/// The code of a call that changes nothing, also where it is allowed.
async fn called(house: &House, caller: &str, verb: &str, name: &str) -> Code {
    let client = house.client(Some(caller));
    let code = |error: perennial::client::Error| error.code();
    match verb {
        "read" => {
            let request = ReadLinesRequest { path: name.into(), ..Default::default() };
            let first =
                soon("a response", Box::pin(client.read_lines(request).responses()).next()).await.unwrap();
            first.map_or_else(code, |_| Code::Ok)
        }
        // It names no start.
        "commit" => {
            let request = SetConsumerRequest { consumer: name.into(), start: None };
            client.set_consumer(request).await.map_or_else(code, |_| Code::Ok)
        }
        "count" => client.get_countdown(name).await.map_or_else(code, |_| Code::Ok),
        "manage" => client.pause_countdown(name, Some(1_000_000)).await.map_or_else(code, |_| Code::Ok),
        _ => unreachable!("{verb}"),
    }
}

/// The files that a stream of files begins with.
async fn watched(client: &Client) -> Result<BTreeSet<String>, Code> {
    let request = WatchFilesRequest { until_caught_up: true, ..WatchFilesRequest::from("logs") };
    let responses = client.watch_files(request).try_collect::<Vec<_>>();
    let responses = soon("the end", responses).await.map_err(|error| error.code())?;
    let changes =
        responses.into_iter().flat_map(|it| it.changes).map(|change| match change.change.unwrap() {
            Change::Added(file) => file.path,
            Change::Removed(file) => panic!("{file:?}"),
        });
    Ok(changes.collect())
}

async fn listed(house: &House, caller: &str, kind: usize) -> Result<BTreeSet<String>, Code> {
    let client = house.client(Some(caller));
    let names = match KINDS[kind].key {
        "files" => {
            let listed = client.list_files("").await.map(|all| all.into_iter().map(|it| it.path).collect());
            let listed = listed.map_err(|error| error.code());
            assert_eq!(watched(&client).await, listed, "{caller}");
            return listed;
        }
        "consumers" => client.list_consumers().await.map(|all| all.into_iter().map(|it| it.name).collect()),
        _ => client.list_countdowns().await.map(|all| all.into_iter().map(|it| it.name).collect()),
    };
    names.map_err(|error| error.code())
}

#[tokio::test]
async fn the_server_decides_as_the_model_about_files_consumers_and_countdowns() {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    println!("seed {seed}");
    let house = House::new();
    for file in FILES {
        let path = house.server.log_file(file.strip_prefix("logs/").unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "a\n").unwrap();
    }
    let operator = house.client(Some("operator"));
    for consumer in CONSUMERS {
        let start = Some(Start::Earliest(true));
        operator.set_consumer(SetConsumerRequest { consumer: consumer.into(), start }).await.unwrap();
    }
    for name in COUNTDOWNS {
        let target = Some(Target::Start(1_000_000));
        let request = CreateCountdownRequest { name: name.into(), target, ..Default::default() };
        operator.create_countdown(request).await.unwrap();
    }
    for round in 0..ROUNDS {
        let rules = rules();
        house.write_rules(&(text(&rules) + &format!("# {round}\n")));
        house.server.wait_for_log("the files of access are in use");
        for caller in CALLERS {
            for (kind, Kind { verbs, names, .. }) in KINDS.iter().enumerate() {
                let has_list = rules.iter().any(|rule| {
                    [caller, "anyone"].contains(&rule.who) && rule.kind == kind && rule.may.contains(&"list")
                });
                let shown = names.iter().filter(|name| may(&rules, caller, "list", kind, name));
                let expected = shown.map(ToString::to_string).collect();
                let expected = if has_list { Ok(expected) } else { Err(Code::PermissionDenied) };
                assert_eq!(listed(&house, caller, kind).await, expected, "{caller}\n{}", text(&rules));
                for verb in verbs.iter().filter(|verb| **verb != "list") {
                    let name = names[fastrand::usize(..names.len())];
                    let code = called(&house, caller, verb, name).await;
                    let is_allowed = may(&rules, caller, verb, kind, name);
                    let expected = match *verb {
                        _ if !is_allowed => Code::PermissionDenied,
                        "commit" => Code::InvalidArgument,
                        "manage" => Code::Aborted,
                        _ => Code::Ok,
                    };
                    assert_eq!(code, expected, "{caller} {verb} {name}\n{}", text(&rules));
                }
            }
        }
    }
}
