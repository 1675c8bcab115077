//! What new files of access change, for the line about them in the log.

use std::collections::HashMap;

use super::{Policy, tokens::Tokens};
use crate::watched::mark;

/// Up to this many names of a kind are in the line.
const MAX_NAMES: usize = 20;

/// The parts of a file of rules: each table, by its name in the texts of faults (`rule[2]`), and a mark of its content.
#[derive(Debug, Default)]
pub struct Parts(Vec<(String, u64)>);

impl Parts {
    /// The parts of a file, and the content of the file of keys that it names.
    pub fn new(text: &str, keys: Option<&Vec<u8>>) -> Self {
        let mut parts = Vec::new();
        for (key, value) in text.parse::<toml::Table>().unwrap_or_default() {
            match value {
                toml::Value::Array(tables) => {
                    for (index, table) in tables.iter().enumerate() {
                        parts.push((format!("{key}[{index}]"), mark(&(&key, table.to_string()))));
                    }
                }
                value => parts.push((key, mark(&value.to_string()))),
            }
        }
        parts.extend(keys.map(|keys| ("jwt.keys".into(), mark(keys))));
        Self(parts)
    }

    /// The names of the parts that other parts do not have, whatever number they have there.
    fn beside(&self, others: &Self) -> Vec<&str> {
        let mut left = HashMap::<u64, usize>::new();
        for (_, mark) in &others.0 {
            *left.entry(*mark).or_default() += 1;
        }
        let mut is_new = |mark| match left.get_mut(mark) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        self.0.iter().filter(|(_, mark)| is_new(mark)).map(|(name, _)| name.as_str()).collect()
    }
}

/// What a policy has beside the one before. A text without a name is `None`.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Rules, limits and quotas, by their numbers in the new file.
    pub added: Option<String>,
    /// The same, by their numbers in the file before.
    pub removed: Option<String>,
    /// Those that have the same number in both files, and another content.
    pub changed: Option<String>,
    /// The names of tokens.
    pub made: Option<String>,
    /// Also those that are no longer in the file.
    pub revoked: Option<String>,
    /// Tokens whose roles, name or end were changed.
    pub others: Option<String>,
}

impl Changes {
    /// What `now` changes.
    pub fn new(before: &Policy, now: &Policy) -> Self {
        let (added, removed) = (now.parts.beside(&before.parts), before.parts.beside(&now.parts));
        let of_tokens = |tokens: &Tokens, beside: &Tokens| {
            let is_used =
                |tokens: &Tokens, hash| tokens.get(hash).is_some_and(|entry| entry.revoked.is_none());
            let names = tokens.iter().filter(|(hash, _)| is_used(tokens, hash) && !is_used(beside, hash));
            sorted(names.map(|(_, entry)| entry.name.as_str()).collect())
        };
        let others = now.tokens.iter().filter(|(hash, entry)| {
            let before = before.tokens.get(hash);
            before.is_some_and(|before| before.revoked == entry.revoked && before != *entry)
        });
        let (changed, new) = added.into_iter().partition::<Vec<_>, _>(|name| removed.contains(name));
        let gone = removed.into_iter().filter(|name| !changed.contains(name));
        Self {
            removed: list(gone.collect()),
            added: list(new),
            changed: list(changed),
            made: of_tokens(&now.tokens, &before.tokens),
            revoked: of_tokens(&before.tokens, &now.tokens),
            others: sorted(others.map(|(_, entry)| entry.name.as_str()).collect()),
        }
    }
}

fn sorted(mut names: Vec<&str>) -> Option<String> {
    names.sort_unstable();
    names.dedup();
    list(names)
}

fn list(names: Vec<&str>) -> Option<String> {
    let more = names.len().saturating_sub(MAX_NAMES);
    let text = names.into_iter().take(MAX_NAMES).collect::<Vec<_>>().join(", ");
    match more {
        0 => Some(text).filter(|text| !text.is_empty()),
        more => Some(format!("{text} and {more} more")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::access::{Files, identity::Accounts, reload::Contents, tokens};

    /// Rules, each for one caller.
    fn rules(callers: &[&str]) -> String {
        let rule = |who: &&str| format!("[[rule]]\nwho = ['{who}']\nmay = ['administer']\n");
        callers.iter().map(rule).collect()
    }

    fn policy(rules: &str, tokens: &str) -> Policy {
        let files = Files { rules: PathBuf::from("access.toml"), tokens: Some("tokens.toml".into()) };
        let contents = Contents {
            rules: rules.into(),
            tokens: Some(tokens.into()),
            keys: None,
            accounts: Accounts::default(),
        };
        Policy::new(&files, &contents, &[], None).unwrap()
    }

    #[test]
    fn rules_are_named_by_number_and_tokens_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let tokens = || std::fs::read_to_string(&file).unwrap();
        for name in ["ci", "old"] {
            tokens::add(&file, name, Vec::new(), None).unwrap();
        }
        let before = policy(&rules(&["token:a", "token:b", "token:c"]), &tokens());
        assert_eq!(Changes::new(&before, &before), Changes::default());
        tokens::revoke(&file, "old").unwrap();
        tokens::add(&file, "new", Vec::new(), None).unwrap();
        let text = tokens().replace("name = \"ci\"", "name = \"ci\"\nroles = [\"r\"]");
        // Another order of rules is no change.
        let limit = "[[limit]]\nwho = ['anyone']\nstreams = 1\n";
        let now = policy(&format!("{}{limit}", rules(&["token:d", "token:c", "token:b", "uid:1"])), &text);
        let text = |text: &str| Some(text.to_owned());
        let changes = Changes {
            added: text("limit[0], rule[3]"),
            removed: None,
            changed: text("rule[0]"),
            made: text("new"),
            revoked: text("old"),
            others: text("ci"),
        };
        assert_eq!(Changes::new(&before, &now), changes);
        let changes = Changes {
            added: None,
            removed: text("limit[0], rule[3]"),
            changed: text("rule[0]"),
            made: text("old"),
            revoked: text("new"),
            others: text("ci"),
        };
        assert_eq!(Changes::new(&now, &before), changes);
    }

    #[test]
    fn a_line_names_a_few_of_many() {
        let many = (10..50).map(|n| format!("token:{n}")).collect::<Vec<_>>();
        let many = policy(&rules(&many.iter().map(String::as_str).collect::<Vec<_>>()), "");
        let added = Changes::new(&policy(&rules(&["token:10"]), ""), &many).added.unwrap();
        assert!(added.starts_with("rule[1], rule[2], ") && added.ends_with(" and 19 more"), "{added}");
    }
}
