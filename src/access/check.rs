//! Checks the files of access as a start reads them, and finds every fault at once.

use std::path::Path;

use super::{
    Error, Files,
    identity::{Accounts, ETC},
    jwt::{self, Jwts},
    rules::Rules,
    tokens::Tokens,
};
use crate::pem;

/// The setting of the rules.
const RULES: &str = "--access";

/// The setting of the tokens.
const TOKENS: &str = "--tokens";

/// Every fault of the files, with its setting. `roots` are the names of the roots that are served.
pub fn faults(files: &Files, roots: &[String]) -> Vec<(&'static str, Error)> {
    let mut faults = Vec::new();
    let found = pem::read(&files.rules).map_err(|error| faults.push((RULES, error.into()))).ok();
    if let Some(content) = found {
        faults.extend(faults_of_rules(files, &content, roots).into_iter().map(|error| (RULES, error)));
    }
    if let Some(path) = &files.tokens {
        let tokens = pem::read_private(path).and_then(|content| Tokens::parse(path, &content));
        faults.extend(tokens.err().map(|error| (TOKENS, error.into())));
    }
    faults
}

/// Those of the rules, and of the file of keys that they name.
fn faults_of_rules(files: &Files, content: &[u8], roots: &[String]) -> Vec<Error> {
    let path = &files.rules;
    let Ok(text) = std::str::from_utf8(content) else {
        return vec![pem::Error { path: path.clone(), fault: "it is not text".into() }.into()];
    };
    let rules = Rules::parse(text, roots, &Accounts::read(Path::new(ETC)));
    let keys = jwt::keys_file(path, content).map(|keys| pem::read(&keys).map(|content| (keys, content)));
    let (mut faults, rules) = match rules {
        Ok(rules) => (Vec::new(), Some(rules)),
        Err(faults) => (vec![Error::Rules { path: path.clone(), faults }], None),
    };
    match (keys, rules.as_ref().and_then(Rules::jwt)) {
        (Some(Err(error)), _) => faults.push(error.into()),
        (Some(Ok((keys, content))), Some(settings)) => {
            let settings = jwt::Settings { keys, ..settings.clone() };
            faults.extend(Jwts::new(&settings, &content).err().map(Error::from));
        }
        _ => {}
    }
    faults
}
