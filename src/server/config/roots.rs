//! The settings of roots: directories by name, and rules for them by the same names.

use std::{path::PathBuf, str::FromStr};

use super::{Error, pick, settings::Settings};
use crate::lines::{self, Glob};

/// `NAME=DIR`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root {
    name: String,
    path: PathBuf,
}

impl FromStr for Root {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.into(), path: path.into() })
            }
            _ => Err(format!("`{text}` is not NAME=DIR, as in logs=/var/log")),
        }
    }
}

/// `NAME=GLOB`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    root: String,
    glob: Glob,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((root, glob)) if !root.is_empty() => {
                let glob = glob.parse::<Glob>().map_err(|error| error.to_string())?;
                Ok(Self { root: root.into(), glob })
            }
            _ => Err(format!("`{text}` is not NAME=GLOB, as in logs=*.log; separate several by commas")),
        }
    }
}

/// The roots with their rules. Each list is from the flags, or else from the file.
pub fn resolve(given: &Settings, file: &Settings) -> Result<Vec<lines::Root>, Error> {
    let mut roots = pick(&given.root, &file.root)
        .iter()
        .map(|Root { name, path }| lines::Root::new(name, path))
        .collect::<Vec<_>>();
    for Rule { root, glob } in pick(&given.allow, &file.allow) {
        rules(&mut roots, "--allow", root)?.allow.push(glob.clone());
    }
    for Rule { root, glob } in pick(&given.deny, &file.deny) {
        rules(&mut roots, "--deny", root)?.deny.push(glob.clone());
    }
    for Rule { root, glob } in pick(&given.history, &file.history) {
        rules(&mut roots, "--history", root)?.history.push(glob.clone());
    }
    for root in pick(&given.no_hard_links, &file.no_hard_links) {
        rules(&mut roots, "--no-hard-links", root)?.hard_links = false;
    }
    for root in pick(&given.absolute_links, &file.absolute_links) {
        rules(&mut roots, "--absolute-links", root)?.absolute_links = true;
    }
    Ok(roots)
}

/// The rules of a root. An unknown root is an error, because a rule without a root would protect nothing.
fn rules<'a>(
    roots: &'a mut [lines::Root],
    setting: &'static str,
    name: &str,
) -> Result<&'a mut lines::RootRules, Error> {
    let known = roots.iter().map(|root| format!("`{}`", root.name)).collect::<Vec<_>>();
    if let Some(root) = roots.iter_mut().find(|root| root.name == name) {
        return Ok(&mut root.rules);
    }
    let remedy = match &known[..] {
        [] => format!("add it with --root {name}=DIR"),
        known => format!("write one of {}, or add it with --root {name}=DIR", known.join(", ")),
    };
    Err(Error::UnknownRoot { setting, name: name.into(), remedy })
}
