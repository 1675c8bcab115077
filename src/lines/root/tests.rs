//! On real files: what of a root can be read, and that nothing else can, by any path, link or race.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::SystemTime,
};

use super::{rule::RootRules, *};

mod escape;
#[cfg(target_os = "linux")]
mod kernel;
mod listing;
mod race;
mod rules;

/// A root `r`, and what is outside of it, in one directory.
struct House {
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(house.root()).unwrap();
        house.write("../secret.txt", "secret");
        house.write("app.log", "good");
        house
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file, and makes its directory.
    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes a link at `path`.
    fn link(&self, path: &str, text: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(text, path).unwrap();
    }

    fn roots(&self, rules: RootRules) -> Roots {
        Roots::open(vec![Root { rules, ..Root::new("r", self.root()) }]).unwrap()
    }
}

/// What a caller gets that asks for a file.
fn read(roots: &Roots, path: &str) -> Result<String, Error> {
    let parsed = FilePath::parse(path)?;
    let file = roots.parent(&parsed).and_then(|parent| parent.open(&parsed.name));
    let mut text = String::new();
    file.map_err(|error| Error::of_open(error, path))?.read_to_string(&mut text)?;
    Ok(text)
}

/// Fails unless the file looks like one that does not exist.
fn assert_missing(roots: &Roots, path: &str) {
    match read(roots, path) {
        Err(Error::NotFound { path: reported }) if reported == path => {}
        other => panic!("{path:?}: {other:?}"),
    }
}

fn list(roots: &Roots, path: Option<&str>, most: usize, after: Option<&str>) -> Result<Page, Error> {
    let gone = tokio_util::sync::CancellationToken::new();
    roots.list(
        path,
        list::Range {
            most,
            after: after.map(str::to_owned),
            now: SystemTime::now(),
            gone,
            shows: list::Shows::default(),
        },
    )
}

fn listed(roots: &Roots) -> Vec<String> {
    list(roots, None, 1000, None).unwrap().files.into_iter().map(|file| file.path).collect()
}

fn globs(texts: &[&str]) -> Vec<rule::Glob> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn allow(texts: &[&str]) -> RootRules {
    RootRules { allow: globs(texts), ..RootRules::default() }
}

fn deny(texts: &[&str]) -> RootRules {
    RootRules { deny: globs(texts), ..RootRules::default() }
}
