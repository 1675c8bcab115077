//! The documents against the code: what they list is what there is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use perennial::proto::ErrorReason;
use tonic::Code;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// README.md, SECURITY.md and the manual, by name.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("SECURITY.md")];
    let manual = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(manual.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// The texts in backticks outside of fenced blocks.
fn code_spans(document: &str) -> Vec<String> {
    let fences = document.split("```").step_by(2);
    fences.flat_map(|text| text.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The words of a text: letters, digits, `_` and `-`.
fn words(text: &str) -> BTreeSet<String> {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    text.split(|letter| !is_of_word(letter)).map(str::to_owned).collect()
}

/// The help of a command and of its commands.
fn help(binary: &str, command: &[&str]) -> String {
    let output = Command::new(binary).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{binary} {command:?} --help");
    let mut text = String::from_utf8(output.stdout).unwrap();
    let commands =
        text.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    for name in names.map(str::to_owned).collect::<Vec<_>>() {
        let command = command.iter().copied().chain([name.as_str()]).collect::<Vec<_>>();
        text += &help(binary, &command);
    }
    text
}

/// The cells of each row of a document's tables, and the heading above it.
fn rows(document: &str) -> Vec<(String, Vec<String>)> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in document.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            text.clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) {
            rows.push((heading.clone(), row.split(" | ").map(str::to_owned).collect()));
        }
    }
    rows
}

/// The flags of `perenniald --help` with the default that it prints, if it prints one.
fn settings_of_help() -> BTreeMap<String, Option<String>> {
    let help = Command::new(env!("CARGO_BIN_EXE_perenniald")).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let texts = help.split("[env: PERENNIAL_").collect::<Vec<_>>();
    let setting = |(before, after): (&&str, &&str)| {
        let name = after.split(['=', ']']).next().unwrap();
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let default =
            before.rsplit_once("[default: ").map(|(_, rest)| rest.split([']', ',']).next().unwrap());
        // Only the text of this setting, which begins with its flag.
        let at = before.rfind(&flag).unwrap_or_else(|| panic!("{flag} is not in {before}"));
        let is_its_own = before.rfind("[default: ").is_some_and(|default| default > at);
        (flag, default.filter(|_| is_its_own).map(str::to_owned))
    };
    texts.iter().zip(&texts[1..]).map(setting).collect()
}

#[test]
fn settings_md_lists_the_settings_of_the_help_with_their_defaults() {
    let mut listed = BTreeMap::new();
    for (_, cells) in rows(&document("docs/settings.md")) {
        if let Some(flag) = cells[0].strip_prefix("`--") {
            let flag = format!("--{}", flag.split([' ', '`']).next().unwrap());
            let default = cells[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
            listed.insert(flag, default.map(str::to_owned));
        }
    }
    assert_eq!(listed, settings_of_help());
}

/// The name of a code as in the specification: from `InvalidArgument` INVALID_ARGUMENT.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn errors_md_lists_every_reason_with_its_code_and_whether_it_is_retried() {
    let mut listed = Vec::new();
    for (heading, cells) in rows(&document("docs/errors.md")) {
        if let Some(reason) = cells[0].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
            listed.push((reason.to_owned(), cells[1].clone(), heading == "Reasons with RetryInfo"));
        }
    }
    listed.sort();
    let reason = |it: ErrorReason| (it.as_str_name().to_owned(), name(it.code()), it.is_retried());
    let mut expected = ErrorReason::all().map(reason).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn every_option_that_a_document_names_is_in_a_help() {
    let known =
        words(&(help(env!("CARGO_BIN_EXE_perenniald"), &[]) + &help(env!("CARGO_BIN_EXE_perennial"), &[])));
    for (name, document) in documents() {
        for span in code_spans(&document).iter().filter(|span| span.starts_with("--")) {
            let option = span.split([' ', '=']).next().unwrap();
            // `--quick` and its like are of `cargo bench`.
            assert!(known.contains(option) || name.ends_with("benchmarks.md"), "{name}: {span}");
        }
    }
}

/// The files of `proto/`, as one text.
fn contract() -> String {
    let names = ["countdown", "errors", "gap", "lines", "messages"];
    names.map(|name| document(&format!("proto/perennial/v1/{name}.proto"))).concat()
}

/// Names with an underscore that are not of the contract: of other programs and libraries, and of the code.
const NOT_OF_THE_CONTRACT: [&str; 38] = [
    "BENCH_DURABLE_STREAMS",
    "BENCH_NATS_SERVER",
    "BENCH_PERENNIALD",
    "BENCH_PYTHON",
    "CERTIFICATE_EXPIRED",
    "CLIENT_GONE",
    "GRPC_ARG_KEEPALIVE_TIMEOUT_MS",
    "GRPC_ARG_KEEPALIVE_TIME_MS",
    "GRPC_ARG_MAX_RECONNECT_BACKOFF_MS",
    "NATS_SERVER",
    "PERENNIAL_CA",
    "PERENNIAL_CERT",
    "PERENNIAL_CERT_KEY",
    "PERENNIAL_FUZZ_SECONDS",
    "PERENNIAL_FUZZ_SEED",
    "PERENNIAL_PORT",
    "PERENNIAL_PROFILE",
    "PERENNIAL_SERVER",
    "PERENNIAL_TOKEN",
    "PERENNIAL_TOKEN_FILE",
    "PLAIN_TEXT",
    "REFUSED_BY_CLIENT",
    "allow_rollup_hdrs",
    "authorized_keys",
    "channel_args",
    "countdown_service",
    "duplicate_window",
    "left_out",
    "max_payload",
    "more_needs",
    "next_sequence",
    "replaces_up_to",
    "rule_files",
    "sleep_until",
    "tokens_changed",
    "tokens_made",
    "tokens_revoked",
    "whole_file",
];

const ACCESS_METRICS: &str = "src/access/metrics.rs";
const TLS_METRICS: &str = "src/server/tls/metrics.rs";

/// The names of the metrics, without the parts that the encoding adds.
fn is_metric(name: &str) -> bool {
    let files = [
        "src/grpc/metrics.rs",
        "src/grpc/call/stall.rs",
        "src/server/metrics.rs",
        "src/server/log_metrics.rs",
        "src/server/consumer_lags.rs",
        "src/server/process_metrics.rs",
        "src/messages/embedded/figures.rs",
        "src/server/reload.rs",
        "src/grpc/gate/observed.rs",
        "src/web.rs",
        TLS_METRICS,
        ACCESS_METRICS,
    ];
    let registered = words(&files.map(document).concat());
    let name = name.strip_suffix("_total").unwrap_or(name);
    let without = name.strip_prefix("perennial_");
    registered.contains(name) || without.is_some_and(|name| registered.contains(name))
}

#[test]
fn every_name_of_the_contract_that_a_document_uses_is_there() {
    // The last one is of HTTP/2.
    let known = words(&(contract() + &document("clients/python/README.md") + " too_many_data_frames"));
    let mut unknown = BTreeSet::new();
    // Names of tests are checked below.
    let security = rows(&document("SECURITY.md"));
    let tests = security.iter().flat_map(|(_, cells)| code_spans(&cells[2])).collect::<BTreeSet<_>>();
    for (_, document) in documents() {
        let spans = code_spans(&document).into_iter().filter(|span| !tests.contains(span));
        let is_name = |span: &String| span.contains('_') && words(span).len() == 1 && !known.contains(span);
        let is_known = |span: &str| NOT_OF_THE_CONTRACT.contains(&span) || is_metric(span);
        unknown.extend(spans.filter(is_name).filter(|span| !is_known(span)));
    }
    assert!(unknown.is_empty(), "neither in the contract nor listed above: {unknown:?}");
}

#[test]
fn every_file_that_a_document_names_exists() {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "benches/", "clients/", "proto/", "docs/", ".ci/"];
    for (name, document) in documents() {
        let spans = code_spans(&document).into_iter();
        for span in spans.filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder))) {
            let path = span.split(' ').next().unwrap();
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{name}: {span}");
        }
    }
}

/// The names of the tests in a file.
fn tests_of(text: &str) -> BTreeSet<String> {
    let test = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let lines = text.lines().map(str::trim_start).collect::<Vec<_>>();
    let mut names = BTreeSet::new();
    for at in (0..lines.len()).filter(|at| test(lines[*at])) {
        // Other attributes may follow.
        let function = lines[at..].iter().find_map(|line| line.split_once("fn "));
        names.extend(function.and_then(|(_, rest)| rest.split('(').next()).map(str::to_owned));
    }
    names
}

#[test]
fn each_threat_in_security_md_names_its_defence_and_tests_that_exist() {
    let rows = rows(&document("SECURITY.md"));
    let rows = rows.iter().map(|(_, cells)| cells).filter(|cells| cells[0] != "threat");
    let rows = rows.filter(|cells| !cells[0].starts_with('-')).collect::<Vec<_>>();
    assert!(rows.len() >= 20, "{}", rows.len());
    let steps = document(".ci/run");
    for cells in rows {
        let [threat, defence, tests] = &cells[..] else { panic!("{cells:?}") };
        assert!(!defence.is_empty(), "{threat}");
        let spans = code_spans(tests);
        let (files, names) = spans.iter().partition::<Vec<_>, _>(|span| span.contains('/'));
        let (steps_of_ci, files) = files.into_iter().partition::<Vec<_>, _>(|file| file.starts_with(".ci/"));
        for step in &steps_of_ci {
            assert!(steps.contains(step.as_str()), "{threat}: {step} is no step of CI");
        }
        let found = files.iter().map(|file| (file, tests_of(&document(file)))).collect::<Vec<_>>();
        for (file, tests) in &found {
            assert!(names.iter().any(|name| tests.contains(*name)), "{threat}: no test of {file} is named");
        }
        for name in &names {
            assert!(
                found.iter().any(|(_, tests)| tests.contains(*name)),
                "{threat}: there is no test {name}"
            );
        }
        assert!(!steps_of_ci.is_empty() || !names.is_empty(), "{threat}: no test");
    }
}

#[test]
fn operate_md_lists_every_metric() {
    let metrics = document("src/grpc/metrics.rs") + &document(TLS_METRICS) + &document(ACCESS_METRICS);
    let operate = words(&document("docs/operate.md"));
    for registered in metrics.split(".register(\"").skip(1) {
        let name = format!("perennial_{}", registered.split('"').next().unwrap());
        assert!(operate.contains(&name) || operate.contains(&format!("{name}_total")), "{name}");
    }
    let is_collected = |word: &String| word.starts_with("data_") && word.len() > "data_".len();
    for name in words(&document("src/server/metrics.rs")).into_iter().filter(is_collected) {
        assert!(operate.contains(&format!("perennial_{name}")), "{name}");
    }
}

#[test]
fn operate_md_has_the_alerts_of_the_rules_and_the_rules_name_metrics_that_exist() {
    let (rules, operate) = (document("docs/alerts.yml"), document("docs/operate.md"));
    let expressions = rules.split("expr:").skip(1).map(|rule| {
        let rule = rule.trim_start_matches([' ', '|', '\n']);
        rule.lines().next().unwrap()
    });
    let mut count = 0;
    for expression in expressions {
        assert!(operate.contains(&format!("\n| `{}` | ", expression.replace('|', "\\|"))), "{expression}");
        count += 1;
    }
    let alerts = operate.split("\n| alert if |").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(alerts.lines().skip(2).count(), count);
    let tables = words(operate.split("\n| alert if |").next().unwrap());
    for name in words(&rules).into_iter().filter(|word| word.starts_with("perennial_")) {
        assert!(tables.contains(name.trim_end_matches("_bucket")), "{name}");
    }
}

#[test]
fn the_new_names_in_the_changelog_are_those_of_the_contract() {
    let contract = words(&contract());
    for (_, cells) in rows(&document("CHANGELOG.md")) {
        for name in code_spans(&cells[2]) {
            assert!(contract.contains(&name), "{name} is the new name for {cells:?}");
        }
    }
}

#[test]
fn the_readme_is_read_in_fifteen_minutes() {
    assert!(document("README.md").lines().count() <= 150);
}
