//! The tables `[[quota]]` of a file of rules.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, Rules, has};
use crate::{
    messages::{
        quota::{MAX_QUOTAS, TopicQuota},
        topic::{self, Pattern},
    },
    units,
};

/// The keys of a table.
const KEYS: [&str; 3] = ["topics", "topic_count", "stored_bytes"];

impl Reader<'_> {
    /// The quotas of topics.
    pub(super) fn quotas(&mut self, rules: &mut Rules, table: &DeTable<'_>) {
        for (index, (table, at, field)) in self.tables(table, "quota").into_iter().enumerate() {
            if index == MAX_QUOTAS {
                let text = format!("is one too many: there can be {MAX_QUOTAS}, each with several topics");
                return self.fault(at, field, text);
            }
            self.quota(rules, table, at, &field);
        }
    }

    fn quota(&mut self, rules: &mut Rules, table: &DeTable<'_>, at: usize, field: &str) {
        let are_known = self.check_keys(table, field, &KEYS);
        let topics = self.texts(table, "topics", field, at, are_known.then_some("[\"orders.>\"]"));
        let mut patterns = Vec::new();
        for text in topics {
            match Pattern::parse(text.text) {
                Ok(pattern) if !topic::is_reserved(pattern.as_str()) => patterns.push(pattern),
                Ok(_) => {
                    let fault = topic::Error::Reserved;
                    self.fault(text.at, text.field, format!("`{}` {fault}, and have no quota", text.text));
                }
                Err(fault) => self.fault(text.at, text.field, format!("`{}` {fault}", text.text)),
            }
        }
        let topics = self.count(table, "topic_count", field, false);
        let bytes = self.count(table, "stored_bytes", field, true);
        if are_known && !["topic_count", "stored_bytes"].iter().any(|key| has(table, key)) {
            self.fault(at, field, "limits nothing: set topic_count or stored_bytes");
        }
        rules.quotas.push(TopicQuota { patterns, topics, bytes });
    }

    /// A number from 1 on, or a size.
    fn count(&mut self, table: &DeTable<'_>, key: &str, field: &str, is_size: bool) -> Option<u64> {
        let value = table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(size) if is_size => units::parse_size(size).ok(),
            _ => None,
        };
        let number = number.filter(|number| *number > 0);
        if number.is_none() {
            let form = if is_size { "a size, as \"10GiB\"" } else { "a number from 1 on" };
            self.fault(Spanned::span(value).start, format!("{field}.{key}"), format!("is not {form}"));
        }
        number
    }
}
