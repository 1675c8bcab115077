//! The documents against the code: what they list is what there is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

use std::{collections::BTreeMap, path::Path, process::Command};

use perennial::proto::ErrorReason;
use tonic::Code;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
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
fn the_readme_is_read_in_fifteen_minutes() {
    assert!(document("README.md").lines().count() <= 150);
}
