//! The table `[jwt]` of a file of rules.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Reader;
use crate::access::jwt::{ALGORITHMS, Settings};

/// The keys of the table.
const KEYS: [&str; 5] = ["issuer", "audience", "algorithms", "keys", "roles"];

impl Reader<'_> {
    /// Which JWTs are accepted, if there is the table.
    pub(super) fn jwt(&mut self, table: &DeTable<'_>) -> Option<Settings> {
        let value = table.iter().find(|(key, _)| key.get_ref() == "jwt").map(|(_, value)| value)?;
        let at = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            self.fault(at, "jwt", "is no table: begin it with [jwt]");
            return None;
        };
        if !self.check_keys(table, "jwt", &KEYS) {
            // What is missing may be a key that is misspelled.
            return None;
        }
        let issuer = self.text(table, "issuer", at, Some("\"https://id.example\""));
        let audience = self.text(table, "audience", at, Some("\"perennial\""));
        let keys = self.text(table, "keys", at, Some("\"jwks.json\""));
        let roles = self.text(table, "roles", at, None);
        let names = self.texts(table, "algorithms", "jwt", at, Some("[\"ES256\", \"RS256\"]"));
        let mut algorithms = Vec::new();
        for name in names {
            if let Some((_, algorithm)) = ALGORITHMS.iter().find(|(known, _)| *known == name.text) {
                algorithms.push(*algorithm);
                continue;
            }
            let known = ALGORITHMS.map(|(known, _)| known).join(", ");
            let fault = format!("`{}` is not supported: write one of {known}", name.text);
            self.fault(name.at, name.field, fault);
        }
        let keys = Path::new(&keys?).to_owned();
        Some(Settings { issuer: issuer?, audience: audience?, algorithms, keys, roles })
    }

    fn text(&mut self, table: &DeTable<'_>, key: &str, at: usize, example: Option<&str>) -> Option<String> {
        let value = table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value);
        let form = example.unwrap_or("\"groups\"");
        match value.map(Spanned::get_ref) {
            Some(DeValue::String(text)) if !text.is_empty() => Some(text.to_string()),
            None if example.is_none() => None,
            _ => {
                let at = value.map_or(at, |value| value.span().start);
                self.fault(at, format!("jwt.{key}"), format!("is not set to a text: write {key} = {form}"));
                None
            }
        }
    }
}
