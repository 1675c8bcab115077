//! The tables `[[limit]]` of a file of rules.

use std::num::NonZeroU32;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, Rules, has};
use crate::{
    access::{
        Identity,
        quota::{Limit, Quota},
    },
    units,
};

impl Reader<'_> {
    /// The limits of callers.
    pub(super) fn limits(&mut self, rules: &mut Rules, table: &DeTable<'_>) {
        for (table, at, field) in self.tables(table, "limit") {
            self.limit(rules, table, at, &field);
        }
    }

    fn limit(&mut self, rules: &mut Rules, table: &DeTable<'_>, at: usize, field: &str) {
        let keys = ["who"].into_iter().chain(Quota::ALL.map(Quota::key)).collect::<Vec<_>>();
        let are_known = self.check_keys(table, field, &keys);
        let example = are_known.then_some("[\"role:reader\"] or [\"anyone\"]");
        let who = self.texts(table, "who", field, at, example);
        let mut limit = Limit::default();
        for quota in Quota::ALL {
            let number = self.amount(table, quota, field);
            match quota {
                Quota::Streams => limit.streams = number,
                Quota::Calls => limit.calls = number,
                Quota::Publishes => limit.publishes = number,
                Quota::Bytes => limit.bytes = number,
            }
        }
        if are_known && !Quota::ALL.iter().any(|quota| has(table, quota.key())) {
            self.fault(at, field, "limits nothing: set streams, calls, publishes or bytes");
        }
        let number = rules.limits.len();
        for text in who {
            match Identity::parse(text.text, self.accounts) {
                Ok(identity) => rules.limits_by_identity.entry(identity).or_default().push(number),
                Err(fault) => self.fault(text.at, text.field, fault),
            }
        }
        rules.limits.push(limit);
    }

    /// A number, or for bytes a size.
    fn amount(&mut self, table: &DeTable<'_>, quota: Quota, field: &str) -> Option<NonZeroU32> {
        let key = quota.key();
        let value = table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(size) if quota == Quota::Bytes => units::parse_size(size).ok(),
            _ => None,
        };
        let number = number.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
        if number.is_none() {
            let form = if quota == Quota::Bytes {
                "a size from 1B to 4095MiB, as \"1MiB\""
            } else {
                "a number from 1 on"
            };
            self.fault(Spanned::span(value).start, format!("{field}.{key}"), format!("is not {form}"));
        }
        number
    }
}
