//! Rights: what the rules allow one caller. The decision depends on names alone, never on what exists.

use std::{path::Path, sync::Arc};

use super::{Kind, Need, Target, Verb, verb::Verbs};
use crate::{lines::Paths, messages::topic::Pattern};

/// Files below a root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// `None`: every root.
    pub root: Option<String>,
    /// `None`: all files.
    pub paths: Option<Paths>,
}

impl Files {
    fn has(&self, path: &str) -> bool {
        let (root, relative) = path.split_once('/').unwrap_or((path, ""));
        self.root.as_ref().is_none_or(|own| own == root)
            && self.paths.as_ref().is_none_or(|paths| paths.hold(Path::new(relative)))
    }

    /// Whether it can have a file below a directory.
    fn reaches(&self, directory: &str) -> bool {
        let (root, relative) = directory.split_once('/').unwrap_or((directory, ""));
        self.root.as_ref().is_none_or(|own| own == root)
            && self.paths.as_ref().is_none_or(|paths| paths.reach(Path::new(relative)))
    }

    /// Whether it has every file below a directory.
    fn has_all(&self, directory: Option<&str>) -> bool {
        let root = directory.map(|directory| directory.split('/').next().unwrap_or_default());
        self.paths.is_none() && self.root.as_deref().is_none_or(|own| Some(own) == root)
    }
}

/// What one rule allows.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// To do what.
    pub verbs: Verbs,
    /// With which topics.
    pub topics: Vec<Pattern>,
    /// With which files.
    pub files: Vec<Files>,
    /// With which shared countdowns.
    pub countdowns: Vec<Pattern>,
    /// With which consumers.
    pub consumers: Vec<Pattern>,
}

impl Grant {
    fn patterns(&self, kind: Kind) -> &[Pattern] {
        match kind {
            Kind::Topic => &self.topics,
            Kind::Countdown => &self.countdowns,
            Kind::Consumer => &self.consumers,
            Kind::File => &[],
        }
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::File => self.files.iter().any(|files| files.has(name)),
            // With a wildcard: all that the pattern matches.
            _ if name.contains(['*', '>']) => Pattern::parse(name)
                .is_ok_and(|asked| self.patterns(kind).iter().any(|own| own.covers(&asked))),
            _ => self.patterns(kind).iter().any(|own| own.matches(name)),
        }
    }

    fn has_some(&self, kind: Kind) -> bool {
        if kind == Kind::File { !self.files.is_empty() } else { !self.patterns(kind).is_empty() }
    }
}

/// The part of a subscription that the caller may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// All of it.
    All,
    /// The topics that match these.
    Of(Arc<[Pattern]>),
}

/// The files with which a caller may do something, as its rules name them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FilesOf(Vec<Files>);

/// What a caller may do.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    grants: Vec<Arc<Grant>>,
    /// Whether one of them allows everything.
    administer: bool,
}

impl Rights {
    /// Everything that one of these allows.
    pub fn new(grants: Vec<Arc<Grant>>) -> Self {
        let administer = grants.iter().any(|grant| grant.verbs.has(Verb::Administer));
        Self { grants, administer }
    }

    /// Those of a caller where there are no rules: everything.
    pub fn all() -> Self {
        let grant = Grant { verbs: Verbs::from_iter([Verb::Administer]), ..Grant::default() };
        Self::new(vec![grant.into()])
    }

    /// Whether a rule allows the caller something.
    pub fn are_any(&self) -> bool {
        !self.grants.is_empty()
    }

    fn of(&self, verb: Verb) -> impl Iterator<Item = &Grant> {
        self.grants.iter().map(Arc::as_ref).filter(move |grant| grant.verbs.has(verb))
    }

    /// Whether the caller may do this.
    pub fn allow(&self, need: &Need<'_>) -> bool {
        if self.administer {
            return true;
        }
        let mut grants = self.of(need.verb);
        match &need.target {
            Target::Own => grants.next().is_some(),
            Target::Whole(kind, name) => grants.any(|grant| grant.has(*kind, name)),
            Target::Some(kind) => grants.any(|grant| grant.has_some(*kind)),
            // One that cannot be parsed is refused later, as a wrong field.
            Target::Part(text) => match Pattern::parse(text) {
                Ok(asked) => {
                    grants.any(|grant| grant.topics.iter().any(|own| own.intersection(&asked).is_some()))
                }
                Err(_) => grants.any(|grant| grant.has_some(Kind::Topic)),
            },
        }
    }

    /// Whether the caller may do this with one thing.
    pub fn allow_one(&self, verb: Verb, kind: Kind, name: &str) -> bool {
        self.administer || self.of(verb).any(|grant| grant.has(kind, name))
    }

    /// Whether a list can show a file below a directory.
    pub fn may_show_below(&self, directory: &str) -> bool {
        let directory = directory.trim_end_matches('/');
        let reaches = |grant: &Grant| grant.files.iter().any(|files| files.reaches(directory));
        self.administer || self.of(Verb::List).any(reaches)
    }

    /// Whether a list of all files below a directory, or below all roots, would leave none out.
    pub fn show_all_files(&self, directory: Option<&str>) -> bool {
        let has_all = |grant: &Grant| grant.files.iter().any(|files| files.has_all(directory));
        self.administer || self.of(Verb::List).any(has_all)
    }

    /// The files with which the caller may do this.
    pub fn files_of(&self, verb: Verb) -> FilesOf {
        if self.administer {
            return FilesOf(vec![Files { root: None, paths: None }]);
        }
        FilesOf(self.of(verb).flat_map(|grant| grant.files.iter().cloned()).collect())
    }

    /// The part of a subscription to these patterns that the caller may read. Patterns that cannot be parsed are left out.
    pub fn readable(&self, asked: &[String]) -> Part {
        if self.administer {
            return Part::All;
        }
        let asked = asked.iter().filter_map(|text| Pattern::parse(text).ok()).collect::<Vec<_>>();
        let own = || self.of(Verb::Subscribe).flat_map(|grant| &grant.topics);
        if asked.iter().all(|asked| own().any(|own| own.covers(asked))) {
            return Part::All;
        }
        let parts = asked.iter().flat_map(|asked| own().filter_map(|own| own.intersection(asked)));
        let mut kept = Vec::<Pattern>::new();
        for part in parts {
            if !kept.iter().any(|kept| kept.covers(&part)) {
                kept.retain(|kept| !part.covers(kept));
                kept.push(part);
            }
        }
        Part::Of(kept.into())
    }
}
