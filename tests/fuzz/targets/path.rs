//! Paths and globs: an input is a glob, a line break, and a path. No path leads out of a root, and no glob that denies a
//! path lets it be read.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::SystemTime,
};

use futures::StreamExt;
use perennial::lines::{Files, Glob, MayRead, OnGap, Options, Paths, Query, Root, RootRules, Rules, Start};
use perennial::stream::Batching;
use tempfile::TempDir;

use super::house::answer;

pub const WORDS: &[&str] = &[
    "logs/",
    "app.log",
    "../",
    "./",
    "//",
    "secret",
    "up/",
    "absolute/",
    "dir/",
    "key.pem",
    ".1",
    ".gz",
    "-20261101",
    "**",
    "*",
    "?",
    "{a,b}",
    "[a-z]",
    "[!a]",
    "\\",
    "\0",
    "/",
];

/// What the files outside of the root hold.
const OUTSIDE: &str = "outside the root";

/// What the files in it hold.
const INSIDE: &str = "inside the root";

struct Place {
    directory: TempDir,
    /// All files of the root.
    files: Files,
    /// Those of `files`, with their paths below the root.
    names: Vec<PathBuf>,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("dir/deep")).unwrap();
    fs::create_dir(directory.path().join("outer")).unwrap();
    for name in ["secret", "app.log", "outer/app.log", "rootapp.log"] {
        fs::write(directory.path().join(name), format!("{OUTSIDE}\n").repeat(3)).unwrap();
    }
    let names = [
        "app.log",
        "app.log.1",
        "app.log-20261101",
        "key.pem",
        "key.pem.1",
        "dir/app.log",
        "dir/deep/a.log",
        "dir/A.LOG",
        "a b.log",
        "\u{fc}.log",
        "{a,b}",
        "[a]",
        "-",
        "*",
    ];
    for name in names {
        fs::write(root.join(name), format!("{INSIDE}\n").repeat(3)).unwrap();
    }
    for (link, to) in [
        ("up", ".."),
        ("dir/up", "../.."),
        ("secret", "../secret"),
        ("loop", "loop"),
        ("app.log.2", "../app.log"),
        ("inside", "dir/deep/a.log"),
    ] {
        symlink(to, root.join(link)).unwrap();
    }
    symlink(directory.path(), root.join("absolute")).unwrap();
    let files = files(&root, RootRules { absolute_links: true, ..RootRules::default() }).unwrap();
    Place { directory, files, names: names.map(PathBuf::from).to_vec() }
});

fn files(root: &Path, rules: RootRules) -> Result<Files, perennial::lines::RootError> {
    Files::new(vec![Root { rules, ..Root::new("logs", root) }], Options::default())
}

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (glob, path) = text.split_once('\n').unwrap_or(("", &text));
    check(&PLACE.files, path);
    let Ok(glob) = glob.parse::<Glob>() else { return };
    let Ok(paths) = Paths::new([&glob]) else { return };
    let root = PLACE.directory.path().join("root");
    let of_glob = RootRules { absolute_links: true, ..RootRules::default() };
    // A set of globs that is too large is refused.
    let denied = files(&root, RootRules { deny: vec![glob.clone()], ..of_glob.clone() });
    let allowed = files(&root, RootRules { allow: vec![glob], ..of_glob });
    let (Ok(denied), Ok(allowed)) = (denied, allowed) else { return };
    let held = PLACE.names.iter().map(|name| (name, paths.hold(name))).collect::<HashMap<_, _>>();
    for (name, is_held) in held {
        let path = format!("logs/{}", name.display());
        if is_held {
            assert!(!check(&denied, &path), "{path} is denied");
        }
        assert_eq!(check(&allowed, &path), is_held, "{path} is allowed");
    }
    check(&denied, path);
    check(&allowed, path);
}

/// Reads and lists a path. True if a file was read.
fn check(files: &Files, path: &str) -> bool {
    let query = Query {
        path: path.into(),
        may_read: MayRead::default(),
        start: Start::Head,
        history: false,
        follow: false,
        wait_for_create: false,
        on_gap: OnGap::Skip,
        rules: Rules::default(),
        patterns: perennial::lines::Patterns::default(),
        partial_flush: None,
        batching: Batching::default(),
    };
    answer(path, async {
        if let Ok(page) = files.list(Some(path), 100, None, SystemTime::UNIX_EPOCH).await {
            for file in page.files {
                let below = file.path.strip_prefix("logs/").map(PathBuf::from);
                let is_own =
                    below.is_some_and(|below| PLACE.names.contains(&below) || below == Path::new("inside"));
                assert!(is_own, "{} is listed below {path:?}", file.path);
            }
        }
        let Ok(stream) = files.open(query).await else { return false };
        let mut stream = Box::pin(stream);
        while let Some(batch) = stream.next().await {
            let Ok(batch) = batch else { break };
            let is_outside =
                batch.items.iter().any(|item| memchr::memmem::find(item, OUTSIDE.as_bytes()).is_some());
            assert!(!is_outside, "{path:?} leads out of the root");
        }
        true
    })
}
