//! Which files of a root can be read: globs and links, as the operator configured them.
//!
//! A glob is matched against a path relative to the root. `*` and `?` match within a name, `**` matches across
//! directories; `[a-z]` and `{a,b}` work as usual. As in .gitignore, a glob without a `/` holds at any depth, a leading `/` ties it to the
//! root itself, and a glob that matches a directory holds for everything below it. Denying wins, and ignores case: where the
//! file system does so, `KEY.PEM` is `key.pem`. What denies a file also denies its rotations, wherever their marks
//! stand: `*.key` denies `a.key.1.gz` and `a-20261123.key`.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::rotated_name;

/// Which files of a root can be read.
#[derive(Clone, Debug)]
pub struct RootRules {
    /// Only files that match one of these can be read; all files if it is empty.
    pub allow: Vec<Glob>,
    /// No file that matches one of these can be read.
    pub deny: Vec<Glob>,
    /// Files that match one of these may be rotated generations of any log of the root, and are then read as its
    /// history, though not by their own names unless they are allowed.
    pub history: Vec<Glob>,
    /// Files with more than one name can be read. Another name may be outside the root.
    pub hard_links: bool,
    /// Links by an absolute path are followed, if the path lies in the directory of the root.
    pub absolute_links: bool,
}

impl Default for RootRules {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            history: Vec::new(),
            hard_links: true,
            absolute_links: false,
        }
    }
}

/// A valid pattern of paths.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    text: String,
}

/// Why a text is not a glob.
#[derive(Debug, thiserror::Error)]
#[error("`{glob}` is no glob: {fault}; write *.log, nginx/*.log or secrets/**")]
pub struct GlobError {
    glob: String,
    fault: String,
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(glob: &str) -> Result<Self, GlobError> {
        let error = |fault: String| GlobError { glob: glob.into(), fault };
        let inner = glob.strip_prefix('/').unwrap_or(glob);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(error("no path has an empty part, `.` or `..`".into()));
        }
        let is_at_any_depth = !inner.contains('/') && !glob.starts_with('/');
        let text = if is_at_any_depth { format!("**/{inner}") } else { inner.into() };
        let parsed = Self { text };
        parsed.build(false).map_err(|fault| error(fault.kind().to_string()))?;
        Ok(parsed)
    }
}

impl Glob {
    /// The directories, relative to the root, below which all is that it matches: that of the names before the first one
    /// with a pattern, and the one that holds this.
    pub fn directory(&self) -> PathBuf {
        let is_literal = |part: &&str| !part.contains(['*', '?', '[', '{', '\\']);
        self.text.split('/').take_while(is_literal).collect()
    }

    /// Globs that match the directories in which there can be a path that it matches, or one above it; none for the root.
    fn above(&self) -> Vec<Self> {
        let (mut globs, mut text) = (Vec::new(), String::new());
        let parts = self.text.split('/').collect::<Vec<_>>();
        for part in parts.iter().take(parts.len() - 1) {
            // Braces and brackets may have a `/` in them: then a part is no glob by itself.
            let is_any = *part == "**" || Self { text: (*part).into() }.build(false).is_err();
            text += if is_any { "**" } else { part };
            globs.push(Self { text: text.clone() });
            if is_any {
                break;
            }
            text.push('/');
        }
        globs
    }

    fn build(&self, ignore_case: bool) -> Result<globset::Glob, globset::Error> {
        GlobBuilder::new(&self.text)
            .literal_separator(true)
            .backslash_escape(true)
            .case_insensitive(ignore_case)
            .build()
    }
}

/// Globs, compiled: which paths they hold for.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The globs as they are written, in order.
    texts: Vec<String>,
    globs: GlobSet,
    /// The directories in which there can be such a path.
    above: GlobSet,
}

impl PartialEq for Paths {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Paths {}

impl Paths {
    /// Compiles globs.
    ///
    /// # Errors
    /// The globs are too large together.
    pub fn new<'a>(globs: impl IntoIterator<Item = &'a Glob>) -> Result<Self, GlobError> {
        let error = |error: globset::Error| GlobError {
            glob: error.glob().unwrap_or_default().into(),
            fault: error.kind().to_string(),
        };
        let (mut texts, mut all, mut above) = (Vec::new(), GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            texts.push(glob.text.clone());
            all.add(glob.build(false).map_err(error)?);
            for glob in glob.above() {
                above.add(glob.build(false).map_err(error)?);
            }
        }
        Ok(Self { texts, globs: all.build().map_err(error)?, above: above.build().map_err(error)? })
    }

    /// Whether a glob matches this path, relative to the root, or a directory that it lies in.
    pub fn hold(&self, path: &Path) -> bool {
        holds(&self.globs, path)
    }

    /// Whether they can hold for a path below this directory, relative to the root.
    pub fn reach(&self, directory: &Path) -> bool {
        directory.as_os_str().is_empty() || self.above.is_match(directory) || self.hold(directory)
    }
}

/// The globs of a root, compiled.
#[derive(Debug)]
pub struct Globs {
    /// `None`: all files are allowed.
    allow: Option<GlobSet>,
    deny: GlobSet,
    history: GlobSet,
    /// See [`Glob::directory`].
    pub history_directories: BTreeSet<PathBuf>,
}

impl Globs {
    /// Compiles the globs of a root.
    pub fn new(rules: &RootRules) -> Result<Self, globset::Error> {
        let set = |globs: &[Glob], of_cases: &[bool]| {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                for ignore_case in of_cases {
                    set.add(glob.build(*ignore_case)?);
                }
            }
            set.build()
        };
        let allow = if rules.allow.is_empty() { None } else { Some(set(&rules.allow, &[false])?) };
        let history_directories = rules.history.iter().map(Glob::directory).collect();
        Ok(Self {
            allow,
            // Ignoring case alone denies less than the glob says: `[!a]` then matches no `A`.
            deny: set(&rules.deny, &[false, true])?,
            history: set(&rules.history, &[false])?,
            history_directories,
        })
    }

    /// Whether the file of this path, relative to the root, can be read.
    pub fn allow(&self, path: &Path) -> bool {
        !self.deny_file(path) && self.allow.as_ref().is_none_or(|allow| holds(allow, path))
    }

    /// Whether the file of this path may be a rotated generation of a log in another directory.
    pub fn is_history(&self, path: &Path) -> bool {
        holds(&self.history, path) && !self.deny_file(path)
    }

    /// Whether the file of this path is denied, by its own name or by one that it may have had before it was rotated.
    /// Then it cannot be read, whatever allows it.
    pub fn deny_file(&self, path: &Path) -> bool {
        let is_base_denied = || {
            let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
            let base_path = |base: Vec<u8>| path.with_file_name(OsStr::from_bytes(&base));
            rotated_name::bases(name).into_iter().any(|base| holds(&self.deny, &base_path(base)))
        };
        !self.deny.is_empty() && (holds(&self.deny, path) || is_base_denied())
    }

    /// Whether everything below the directory of this path is denied.
    pub fn deny_directory(&self, path: &Path) -> bool {
        !self.deny.is_empty() && holds(&self.deny, path)
    }
}

/// Whether a glob matches the path or a directory that it lies in.
fn holds(globs: &GlobSet, path: &Path) -> bool {
    path.ancestors().filter(|path| !path.as_os_str().is_empty()).any(|path| globs.is_match(path))
}
