//! Whose generations are in a directory that the operator named: it may hold those of several logs with the same name.
//!
//! The archive of a log is the log's own directory, or mirrors it below the part of the glob that has no wildcard: with
//! `archive/**`, `archive/a` is the archive of the logs in `a`, and `archive` of those in the root; with
//! `srv/archive/**`, `srv/archive/a` is that of `srv/a`. So is a directory in the log's own one, where the glob has a
//! wildcard before both, as in `*/archive/**`. A directory that is named by a date belongs to the one above it. Where a
//! directory mirrors several others, the deepest one that is there counts.

use std::path::{Path, PathBuf};

use super::{
    Tree,
    rotated_name::is_date,
    walk::{self, Aim},
};

/// What a directory is for a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tie {
    /// It is the log's own directory, or mirrors it.
    #[default]
    Own,
    /// It is in the log's own directory, where the log of another directory could be, too.
    Inside,
    /// Nothing says whose it is.
    Loose,
}

impl Tree {
    /// What a directory that the operator named is for the log with this name in the directory `own`.
    pub fn tie(&self, archive: &Path, own: &Path, name: &str) -> Tie {
        for fixed in self.fixed_parts(archive) {
            let plain = without_dates(archive, fixed);
            let mirrored = mirrored(plain, fixed);
            let depth = |path: &Path| path.components().count();
            let mut deeper = mirrored.iter().filter(|other| depth(other) > depth(own));
            if mirrored.iter().any(|it| it == own) && !deeper.any(|other| self.is_of_log(other, fixed, name))
            {
                return Tie::Own;
            }
            let is_inside = own.starts_with(fixed) && plain != fixed && plain.parent() == Some(own);
            if is_inside && !self.has_file(plain, name) {
                return Tie::Inside;
            }
        }
        Tie::Loose
    }

    /// Whether a loose directory is surely for a log with this name in another directory than `own`.
    pub fn is_of_another(&self, archive: &Path, own: &Path, name: &str) -> bool {
        self.fixed_parts(archive).any(|fixed| {
            let plain = without_dates(archive, fixed);
            let mirrors =
                || mirrored(plain, fixed).iter().any(|it| it != own && self.is_of_log(it, fixed, name));
            // Logs and archives are beside each other.
            let is_mixed = own.starts_with(fixed);
            let mut holders = [Some(plain), plain.parent()].into_iter().flatten();
            mirrors() || is_mixed && holders.any(|it| it != own && self.has_file(it, name))
        })
    }

    /// The parts without wildcards of the globs that named a directory.
    fn fixed_parts<'a>(&'a self, archive: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.globs.history_directories.iter().filter_map(move |fixed| {
            // It may be the path of a file.
            let is_of_file = fixed.parent() == Some(archive);
            if is_of_file {
                Some(archive)
            } else {
                Some(fixed.as_path()).filter(|it| archive.starts_with(it))
            }
        })
    }

    /// Whether a directory is there that may be the one of the log. Those above an archive are always there: they count
    /// only with the log itself.
    fn is_of_log(&self, directory: &Path, fixed: &Path, name: &str) -> bool {
        if fixed.starts_with(directory) {
            return self.has_file(directory, name);
        }
        walk::directory(&self.directory, &self.homes, directory).is_ok()
    }

    fn has_file(&self, directory: &Path, name: &str) -> bool {
        walk::file(&self.directory, &self.homes, &directory.join(name), Aim::Look).is_ok()
    }
}

/// The directories that one mirrors.
fn mirrored(archive: &Path, fixed: &Path) -> Vec<PathBuf> {
    let roots = fixed.ancestors().skip(1);
    let below = |base: &Path| archive.strip_prefix(base).unwrap_or(archive).to_owned();
    let beside = roots.map(|root| root.join(below(fixed)));
    // Where the glob names the archive of one directory, as `archive/a/**` does.
    let deeper = fixed.ancestors().skip(1).map(below);
    beside.chain(deeper).filter(|it| !it.starts_with(fixed)).collect()
}

/// A directory without the dates at its end, as in `a/2026/11` and `a/2026-11-23`, but not above `fixed`.
fn without_dates<'a>(directory: &'a Path, fixed: &Path) -> &'a Path {
    let is_of_date = |base: &&Path| {
        let rest = directory.strip_prefix(base).unwrap_or(Path::new(""));
        let parts = rest.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("-");
        is_date(parts.as_bytes()) || is_date(format!("{parts}-01").as_bytes())
    };
    let above = directory.ancestors().take_while(|base| base.starts_with(fixed));
    above.filter(is_of_date).last().unwrap_or(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_mirrors_directories_beside_or_above_the_fixed_part_of_its_glob() {
        let has = |archive: &str, fixed: &str, own: &str| {
            mirrored(without_dates(Path::new(archive), Path::new(fixed)), Path::new(fixed))
                .contains(&PathBuf::from(own))
        };
        for (archive, fixed, own) in [
            ("archive/a", "archive", "a"),
            ("archive/a/b", "archive", "a/b"),
            ("archive", "archive", ""),
            ("archive/2026/11", "archive", ""),
            ("archive/a/2026-11-23", "archive", "a"),
            ("archive/a", "archive/a", "a"),
            ("srv/archive/a", "srv/archive", "srv/a"),
            ("srv/archive", "srv/archive", "srv"),
            ("srv/archive", "srv/archive", ""),
        ] {
            assert!(has(archive, fixed, own), "{archive} {fixed} {own}");
        }
        for (archive, fixed, own) in [
            ("archive/b", "archive", "a"),
            ("archive/x/a", "archive", "a"),
            ("archive/a", "archive", ""),
            ("archive/1", "archive", ""),
            ("archive", "archive", "a"),
            ("a/archive", "", "a"),
            ("archive/a", "archive", "archive/a"),
        ] {
            assert!(!has(archive, fixed, own), "{archive} {fixed} {own}");
        }
    }
}
