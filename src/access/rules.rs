//! The file of rules: who may do what. It is checked as a whole, and each fault has its line, its field and a remedy.
//!
//! ```toml
//! [[rule]]
//! who = ["token:billing", "certificate:DNS:billing.example"]
//! may = ["subscribe", "list"]
//! topics = ["orders.>"]
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::{
    Identity, Kind, Verb,
    identity::Accounts,
    jwt::Settings,
    quota::Limit,
    rights::{Files, Grant, Rights},
};
use crate::{
    lines::{Glob, Paths},
    messages::{quota::TopicQuota, topic::Pattern},
};

mod jwt;
mod limits;
mod quotas;

/// Up to this many faults are reported.
const MAX_FAULTS: usize = 20;

/// An unknown key suggests a known one if they are at least this similar.
const SIMILAR: f64 = 0.7;

/// Everyone's root in `files`.
const EVERY_ROOT: &str = "*";

/// What is wrong in a file of rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// Its name, as in `rule[2].may`.
    pub field: String,
    /// The fault, and what would work.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, field, text } = self;
        if field.is_empty() {
            write!(f, "line {line}: {text}")
        } else {
            write!(f, "line {line}: {field}: {text}")
        }
    }
}

/// The rules.
#[derive(Debug, Default)]
pub struct Rules {
    grants: Vec<Arc<Grant>>,
    /// The rules that name an identity, in their order.
    by_identity: HashMap<Identity, Vec<usize>>,
    jwt: Option<Settings>,
    limits: Vec<Limit>,
    /// The limits that name an identity, in their order.
    limits_by_identity: HashMap<Identity, Vec<usize>>,
    quotas: Vec<TopicQuota>,
}

impl Rules {
    /// Reads rules. `roots` are the names of the roots that are served.
    ///
    /// # Errors
    /// Every fault, up to a number.
    pub fn parse(text: &str, roots: &[String], accounts: &Accounts) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { text, roots, accounts, faults: Vec::new() };
        let rules = reader.file();
        if reader.faults.is_empty() {
            return Ok(rules);
        }
        reader.faults.sort_by_key(|fault| fault.line);
        reader.faults.truncate(MAX_FAULTS);
        Err(reader.faults)
    }

    /// Which JWTs are accepted, if some are.
    pub fn jwt(&self) -> Option<&Settings> {
        self.jwt.as_ref()
    }

    /// The number of rules.
    pub fn count(&self) -> usize {
        self.grants.len()
    }

    /// How much topics may take.
    pub fn quotas(&self) -> &[TopicQuota] {
        &self.quotas
    }

    /// What a caller with these identities may do.
    pub fn rights<'a>(&self, identities: impl IntoIterator<Item = &'a Identity>) -> Rights {
        let rules = numbers(&self.by_identity, identities).into_iter();
        Rights::new(rules.filter_map(|rule| self.grants.get(rule).cloned()).collect())
    }

    /// The limits of a caller with these identities, and by which of them each counts. One that names an identity of the
    /// connection counts by that, so that several tokens do not multiply it; each other one by the caller's first identity.
    pub fn limits<'a>(
        &self,
        own: &'a [Identity],
        of_connection: &'a [Identity],
    ) -> Vec<(Option<&'a Identity>, Limit)> {
        if self.limits.is_empty() {
            return Vec::new();
        }
        let named = |identity| self.limits_by_identity.get(identity).into_iter().flatten().copied();
        let mut holders = BTreeMap::new();
        for identity in of_connection {
            // A group has several accounts.
            let holder =
                if matches!(identity, Identity::Gid(_)) { of_connection.first() } else { Some(identity) };
            for number in named(identity) {
                holders.entry(number).or_insert(holder);
            }
        }
        let first = own.first().or_else(|| of_connection.first());
        for number in own.iter().chain([&Identity::Anyone]).flat_map(named) {
            holders.entry(number).or_insert(first);
        }
        let limits = holders.into_iter().map(|(number, holder)| Some((holder, *self.limits.get(number)?)));
        limits.flatten().collect()
    }
}

/// What names one of the identities, or anyone.
fn numbers<'a>(
    by_identity: &HashMap<Identity, Vec<usize>>,
    identities: impl IntoIterator<Item = &'a Identity>,
) -> Vec<usize> {
    let all = identities.into_iter().chain([&Identity::Anyone]);
    let mut numbers = all.filter_map(|one| by_identity.get(one)).flatten().copied().collect::<Vec<_>>();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A text and where it begins.
struct Listed<'a> {
    text: &'a str,
    at: usize,
    field: String,
}

struct Reader<'a> {
    text: &'a str,
    roots: &'a [String],
    accounts: &'a Accounts,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, field: impl Into<String>, text: impl Into<String>) {
        let line = 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        self.faults.push(Fault { line, field: field.into(), text: text.into() });
    }

    fn file(&mut self) -> Rules {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.fault(at, "", error.message());
                return Rules::default();
            }
        };
        let mut rules = Rules::default();
        let table = table.get_ref();
        let are_known = self.check_keys(table, "", &["rule", "limit", "quota", "jwt"]);
        self.limits(&mut rules, table);
        self.quotas(&mut rules, table);
        rules.jwt = self.jwt(table);
        // A key that is misspelled may be this one.
        if are_known && !has(table, "rule") {
            let remedy = "there is no [[rule]], so every call would be denied; to allow everything, write a rule with \
                          who = [\"anyone\"] and may = [\"administer\"]";
            self.fault(0, "rule", remedy);
        }
        for (table, at, field) in self.tables(table, "rule") {
            self.rule(&mut rules, table, at, &field);
        }
        rules
    }

    /// The tables of a list, where each begins, and its name.
    fn tables<'t>(&mut self, table: &'t DeTable<'_>, key: &str) -> Vec<(&'t DeTable<'t>, usize, String)> {
        let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value.get_ref() else {
            let fault = format!("is no list of tables: begin each with [[{key}]]");
            self.fault(value.span().start, key, fault);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let (at, field) = (value.span().start, format!("{key}[{index}]"));
            match value.get_ref() {
                DeValue::Table(table) => tables.push((table, at, field)),
                _ => self.fault(at, field, format!("is no table: begin it with [[{key}]]")),
            }
        }
        tables
    }

    fn rule(&mut self, rules: &mut Rules, table: &DeTable<'_>, at: usize, field: &str) {
        let keys = ["who", "may"].into_iter().chain(Kind::ALL.map(Kind::key)).collect::<Vec<_>>();
        // What is missing may be a key that is misspelled, and a verb, too: one fault is reported, and not what follows.
        let mut are_known = self.check_keys(table, field, &keys);
        let mut grant = Grant::default();
        let example = are_known.then_some("[\"token:billing\"] or [\"anyone\"]");
        let who = self.texts(table, "who", field, at, example);
        let may = self.texts(table, "may", field, at, are_known.then_some("[\"subscribe\", \"list\"]"));
        for text in &may {
            if let Some(verb) = Verb::named(text.text) {
                grant.verbs.add(verb);
                continue;
            }
            let names = Verb::ALL.map(Verb::name);
            are_known = false;
            let (known, nearest) = (names.join(", "), nearest(text.text, &names));
            let fault = format!("`{}` is no verb{nearest}: write one of {known}", text.text);
            self.fault(text.at, text.field.clone(), fault);
        }
        for kind in Kind::ALL {
            let texts = self.texts(table, kind.key(), field, at, None);
            let is_used = kind.verbs().iter().any(|verb| grant.verbs.has(*verb));
            if let (Some(first), false, false, true) = (texts.first(), is_used, may.is_empty(), are_known) {
                let verbs = kind.verbs().iter().map(|verb| verb.name()).collect::<Vec<_>>().join(", ");
                self.fault(
                    first.at,
                    format!("{field}.{}", kind.key()),
                    format!("has no effect with this `may`: only {verbs} need {}", kind.key()),
                );
            }
            for text in texts {
                self.target(&mut grant, kind, &text);
            }
        }
        if are_known {
            self.check_targets(&grant, table, at, field);
        }
        let number = rules.grants.len();
        for text in who {
            match Identity::parse(text.text, self.accounts) {
                Ok(identity) => rules.by_identity.entry(identity).or_default().push(number),
                Err(fault) => self.fault(text.at, text.field, fault),
            }
        }
        rules.grants.push(Arc::new(grant));
    }

    /// A verb without a target would allow nothing.
    fn check_targets(&mut self, grant: &Grant, table: &DeTable<'_>, at: usize, field: &str) {
        let has = |kind: &Kind| has(table, kind.key());
        for verb in grant.verbs.iter() {
            let kinds = Kind::ALL.into_iter().filter(|kind| kind.verbs().contains(&verb)).collect::<Vec<_>>();
            // A countdown of one's own has no name.
            if verb != Verb::Count && !kinds.is_empty() && !kinds.iter().any(has) {
                let keys =
                    kinds.iter().map(|kind| format!("`{}`", kind.key())).collect::<Vec<_>>().join(" or ");
                self.fault(
                    at,
                    field,
                    format!("`{verb}` needs {keys}: list what it allows, as in {}", example(&kinds)),
                );
            }
        }
    }

    fn target(&mut self, grant: &mut Grant, kind: Kind, text: &Listed<'_>) {
        let fault = if kind == Kind::File {
            match self.files(text.text) {
                Ok(files) => return grant.files.push(files),
                Err(fault) => fault,
            }
        } else {
            match Pattern::parse(text.text) {
                Ok(pattern) => {
                    let patterns = match kind {
                        Kind::Topic => &mut grant.topics,
                        Kind::Countdown => &mut grant.countdowns,
                        _ => &mut grant.consumers,
                    };
                    return patterns.push(pattern);
                }
                Err(fault) => {
                    format!("`{}` {fault}; `*` is one token, and `>` at the end one or more", text.text)
                }
            }
        };
        self.fault(text.at, text.field.clone(), fault);
    }

    /// `ROOT` or `ROOT=GLOB`, with `*` for every root.
    fn files(&self, text: &str) -> Result<Files, String> {
        let (root, glob) = text.split_once('=').map_or((text, None), |(root, glob)| (root, Some(glob)));
        if root != EVERY_ROOT && !self.roots.iter().any(|known| known == root) {
            let known = self.roots.iter().map(|root| format!("`{root}`")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() {
                "the server serves no root (--root)".into()
            } else {
                format!("served: {known}{}", nearest(root, self.roots))
            };
            let form = "write ROOT, ROOT=GLOB, or `*` for every root";
            return Err(format!("there is no root `{root}`; {known}; {form}"));
        }
        let paths = match glob {
            None => None,
            Some(glob) => {
                let glob = glob.parse::<Glob>().map_err(|error| error.to_string())?;
                Some(Paths::new([&glob]).map_err(|error| error.to_string())?)
            }
        };
        Ok(Files { root: (root != EVERY_ROOT).then(|| root.into()), paths })
    }

    /// Whether all keys are known.
    fn check_keys(&mut self, table: &DeTable<'_>, field: &str, known: &[&str]) -> bool {
        let mut are_known = true;
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                are_known = false;
                let nearest = nearest(name, known);
                let keys = known.join(", ");
                self.fault(
                    key.span().start,
                    field,
                    format!("there is no key `{name}`{nearest}: the keys are {keys}"),
                );
            }
        }
        are_known
    }

    /// The texts of a list. `example`: it must be there.
    fn texts<'t>(
        &mut self,
        table: &'t DeTable<'_>,
        key: &str,
        field: &str,
        at: usize,
        example: Option<&str>,
    ) -> Vec<Listed<'t>> {
        let field = format!("{field}.{key}");
        let form = example.unwrap_or("[\"…\", \"…\"]");
        let Some(value) = table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value) else {
            if example.is_some() {
                self.fault(at, field, format!("is not set: write {key} = {form}"));
            }
            return Vec::new();
        };
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(value.span().start, field, format!("is no list: write {key} = {form}"));
            return Vec::new();
        };
        if values.is_empty() {
            self.fault(value.span().start, &field, format!("is empty: write {key} = {form}"));
        }
        let mut texts = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let (at, field) = (value.span().start, format!("{field}[{index}]"));
            match value.get_ref() {
                DeValue::String(text) => texts.push(Listed { text, at, field }),
                _ => self.fault(at, field, "is no text: write it in quotes"),
            }
        }
        texts
    }
}

fn has(table: &DeTable<'_>, key: &str) -> bool {
    table.iter().any(|(name, _)| name.get_ref() == key)
}

fn example(kinds: &[Kind]) -> &'static str {
    match kinds.first() {
        Some(Kind::File) => "files = [\"logs=*.log\"]",
        Some(Kind::Countdown) => "countdowns = [\"launch\"]",
        Some(Kind::Consumer) => "consumers = [\"billing\"]",
        _ => "topics = [\"orders.>\"]",
    }
}

/// Which of the known names may be meant; empty if no one is similar.
pub(super) fn nearest(name: &str, known: &[impl AsRef<str>]) -> String {
    let known = known.iter().map(AsRef::as_ref);
    let nearest = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > SIMILAR);
    nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
