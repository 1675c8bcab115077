//! Streams of files over real directories.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    pin::Pin,
    time::Duration,
};

use futures::{Stream, StreamExt};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::lines::{Files, Options, Root, RootRules};

/// A change must be seen within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn served(rules: RootRules, options: Options) -> (TempDir, Files) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root { rules, ..Root::new("logs", directory.path()) };
    (directory, Files::new(vec![root], options).unwrap())
}

fn plain() -> (TempDir, Files) {
    served(RootRules::default(), Options::default())
}

fn write(directory: &Path, name: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x\n").unwrap();
}

fn query(globs: &[&str]) -> Query {
    Query {
        globs: globs.iter().map(ToString::to_string).collect(),
        shows: Shows::default(),
        hides_roots: false,
        shows_rotated: false,
        until_caught_up: false,
        position: None,
        batching: Batching { heartbeat: Duration::from_millis(500), ..Batching::default() },
    }
}

/// A caller that keeps the files that it has.
struct Caller {
    stream: Pin<Box<dyn Stream<Item = Result<Batch, Error>> + Send>>,
    files: BTreeSet<String>,
    position: Option<Position>,
    relists: usize,
    changes: usize,
}

impl Caller {
    fn open(files: &Files, query: Query) -> Self {
        let stream = Box::pin(files.watch(query).unwrap());
        Self { stream, files: BTreeSet::new(), position: None, relists: 0, changes: 0 }
    }

    fn resume(self, files: &Files, query: Query) -> Self {
        let stream = Box::pin(files.watch(Query { position: self.position, ..query }).unwrap());
        Self { stream, ..self }
    }

    /// Takes a batch. False at the end.
    async fn take(&mut self) -> bool {
        let next = tokio::time::timeout(LIMIT, self.stream.next()).await.unwrap();
        let Some(batch) = next else { return false };
        let Batch { is_relisted, changes, position, .. } = batch.unwrap();
        if is_relisted {
            self.files.clear();
            self.relists += 1;
        }
        self.changes += changes.len();
        for change in changes {
            match change {
                Change::Added(info) => assert!(self.files.insert(info.path.clone()), "{} twice", info.path),
                Change::Removed(path) => assert!(self.files.remove(&path), "{path} was not there"),
            }
        }
        self.position = Some(position);
        true
    }

    /// Takes batches until it has exactly these files.
    async fn until(&mut self, files: &[&str]) {
        let wanted = files.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let reached = async {
            while self.files != wanted {
                assert!(self.take().await);
            }
        };
        let result = tokio::time::timeout(LIMIT, reached).await;
        assert!(result.is_ok(), "has {:?}, wanted {wanted:?}", self.files);
    }

    /// Takes batches for a while: longer than a removal waits.
    async fn rest(&mut self) {
        let end = tokio::time::Instant::now() + GRACE * 2;
        while tokio::time::timeout_at(end, self.take()).await.is_ok() {}
    }
}

#[tokio::test]
async fn files_that_match_are_yielded_and_those_that_appear_and_go() {
    let (directory, files) = plain();
    let root = directory.path();
    for name in ["a.log", "b.txt", "deep/er/c.log"] {
        write(root, name);
    }
    let mut caller = Caller::open(&files, query(&["logs/**/*.log"]));
    caller.until(&["logs/a.log", "logs/deep/er/c.log"]).await;
    write(root, "new/d.log");
    write(root, "deep/er/e.log");
    caller.until(&["logs/a.log", "logs/deep/er/c.log", "logs/deep/er/e.log", "logs/new/d.log"]).await;
    fs::remove_file(root.join("a.log")).unwrap();
    fs::rename(root.join("deep/er"), root.join("moved")).unwrap();
    caller.until(&["logs/moved/c.log", "logs/moved/e.log", "logs/new/d.log"]).await;
    write(root, "moved/f.log");
    fs::remove_dir_all(root.join("new")).unwrap();
    caller.until(&["logs/moved/c.log", "logs/moved/e.log", "logs/moved/f.log"]).await;
    let watched = files.inner.notices.count();
    assert!((1..=4).contains(&watched), "{watched}");
    drop(caller);
    let all_gone = async {
        while files.inner.notices.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, all_gone).await.unwrap();
}

#[tokio::test]
async fn a_tree_that_is_moved_in_appears_and_one_that_is_moved_out_goes() {
    let (directory, files) = plain();
    let root = directory.path();
    let outside = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    write(outside.path(), "tree/a/x.log");
    write(outside.path(), "tree/b/y.log");
    let mut caller = Caller::open(&files, query(&["logs/**/*.log"]));
    caller.until(&[]).await;
    fs::rename(outside.path().join("tree"), root.join("tree")).unwrap();
    caller.until(&["logs/tree/a/x.log", "logs/tree/b/y.log"]).await;
    fs::rename(root.join("tree"), outside.path().join("tree")).unwrap();
    caller.until(&[]).await;
    fs::remove_dir_all(root).unwrap();
    caller.rest().await;
    assert!(caller.files.is_empty());
    fs::create_dir(root).unwrap();
}

#[tokio::test]
async fn a_rotation_is_no_change() {
    let (directory, files) = plain();
    let root = directory.path();
    write(root, "app.log");
    write(root, "app.log.1");
    let mut caller = Caller::open(&files, query(&["logs"]));
    caller.until(&["logs/app.log"]).await;
    for generation in 2..6 {
        fs::rename(root.join("app.log"), root.join(format!("app.log.{generation}"))).unwrap();
        write(root, "app.log");
    }
    caller.rest().await;
    assert_eq!((caller.files.len(), caller.changes), (1, 1));
    // Without a new file, the log is gone, and its rotations do not take its place.
    fs::rename(root.join("app.log"), root.join("app.log.9")).unwrap();
    caller.until(&[]).await;
    caller.rest().await;
    assert!(caller.files.is_empty());
    let all = Query { shows_rotated: true, ..query(&["logs"]) };
    let mut all = Caller::open(&files, all);
    all.until(&[
        "logs/app.log.1",
        "logs/app.log.2",
        "logs/app.log.3",
        "logs/app.log.4",
        "logs/app.log.5",
        "logs/app.log.9",
    ])
    .await;
}

#[tokio::test]
async fn only_files_that_a_list_has_are_yielded() {
    let rules =
        RootRules { deny: vec!["secret".parse().unwrap(), "*.key".parse().unwrap()], ..RootRules::default() };
    let (directory, files) = served(rules, Options::default());
    let root = directory.path();
    for name in ["a.log", "a.key", "secret/b.log", "own/c.log"] {
        write(root, name);
    }
    fs::create_dir(root.join("d.log")).unwrap();
    symlink("a.log", root.join("link.log")).unwrap();
    symlink("a.key", root.join("key.log")).unwrap();
    symlink("own", root.join("circle")).unwrap();
    symlink("/etc/passwd", root.join("outside.log")).unwrap();
    symlink("later.log", root.join("dangling.log")).unwrap();
    let shows = Shows {
        file: Box::new(|path| path != "logs/hidden.log"),
        below: Box::new(|path| !path.starts_with("logs/own")),
    };
    write(root, "hidden.log");
    let mut caller = Caller::open(&files, Query { shows, ..query(&["logs"]) });
    caller.until(&["logs/a.log", "logs/link.log"]).await;
    // The target of the link appears.
    write(root, "later.log");
    caller.until(&["logs/a.log", "logs/dangling.log", "logs/later.log", "logs/link.log"]).await;
    write(root, "secret/e.log");
    write(root, "own/e.log");
    write(root, "b.key");
    fs::remove_file(root.join("later.log")).unwrap();
    caller.until(&["logs/a.log", "logs/link.log"]).await;
}

#[tokio::test]
async fn a_file_that_becomes_unreadable_goes_and_comes_back() {
    let (directory, files) = plain();
    let root = directory.path();
    write(root, "a.log");
    write(root, "b.log");
    let set_mode = |mode| fs::set_permissions(root.join("a.log"), fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o000);
    if fs::File::open(root.join("a.log")).is_ok() {
        // The superuser can read everything.
        return;
    }
    let mut caller = Caller::open(&files, query(&["logs"]));
    caller.until(&["logs/b.log"]).await;
    set_mode(0o600);
    caller.until(&["logs/a.log", "logs/b.log"]).await;
    set_mode(0o000);
    caller.until(&["logs/b.log"]).await;
}

#[tokio::test]
async fn a_stream_resumes_without_a_repetition_or_reports_that_all_come_again() {
    let (directory, files) = plain();
    let root = directory.path();
    let names = (0..50).map(|n| format!("{n:02}.log")).collect::<Vec<_>>();
    for name in &names {
        write(root, name);
    }
    let small =
        || Query { batching: Batching { max_items: 7, ..query(&[]).batching }, ..query(&["logs/*.log"]) };
    let mut caller = Caller::open(&files, small());
    while caller.files.len() < 14 {
        caller.take().await;
    }
    // In the middle of the first files, and on another server.
    let again = Files::new(vec![Root::new("logs", root)], Options::default()).unwrap();
    let mut caller = caller.resume(&again, small());
    let all = names.iter().map(|name| format!("logs/{name}")).collect::<Vec<_>>();
    let all = all.iter().map(String::as_str).collect::<Vec<_>>();
    caller.until(&all).await;
    assert_eq!((caller.changes, caller.relists), (50, 0));
    // Nothing changed.
    let mut caller = caller.resume(&files, small());
    caller.rest().await;
    assert_eq!((caller.changes, caller.relists), (50, 0));
    // A file went while the caller was away.
    fs::remove_file(root.join("00.log")).unwrap();
    let mut caller = caller.resume(&files, small());
    while caller.relists == 0 {
        caller.take().await;
    }
    caller.until(&all[1..]).await;
    assert_eq!(caller.relists, 1);
    let other = Query { position: caller.position, ..query(&["logs/*.txt"]) };
    assert!(matches!(files.watch(other).err(), Some(Error::Mismatch)));
}

#[tokio::test]
async fn a_stream_can_end_when_it_has_caught_up() {
    let (directory, files) = plain();
    write(directory.path(), "a.log");
    let mut caller = Caller::open(&files, Query { until_caught_up: true, ..query(&["logs/*.log"]) });
    while caller.take().await {}
    assert_eq!(caller.files.len(), 1);
}

#[tokio::test]
async fn thousands_of_files_are_yielded_each_once_also_after_lost_events() {
    let (directory, files) = plain();
    let root = directory.path();
    (0..3_000).for_each(|n| write(root, &format!("{}/{n}.log", n % 10)));
    let mut caller = Caller::open(&files, query(&["logs/**/*.log"]));
    while caller.files.len() < 3_000 {
        caller.take().await;
    }
    files.inner.notices.lose_events();
    (0..3_000).for_each(|n| write(root, &format!("{}/new{n}.log", n % 10)));
    while caller.files.len() < 6_000 {
        caller.take().await;
    }
    assert_eq!((caller.changes, caller.relists), (6_000, 0));
}

#[tokio::test]
async fn what_cannot_be_served_is_refused() {
    let (directory, files) =
        served(RootRules::default(), Options { max_watched_per_stream: 5, ..Options::default() });
    assert!(matches!(files.watch(query(&[])).err(), Some(Error::Globs { .. })));
    for glob in ["*/a.log", "logs/[a", "logs//a", "/a", "a.log;/x"] {
        let error = files.watch(query(&["logs/a", glob])).err();
        assert!(matches!(error, Some(Error::Glob { index: 1, .. })), "{glob}: {error:?}");
    }
    let long = "a".repeat(MAX_GLOB_BYTES);
    assert!(matches!(files.watch(query(&[&format!("logs/{long}")])).err(), Some(Error::Globs { .. })));
    assert!(matches!(files.watch(query(&["other/*"])).err(), Some(Error::NotFound { .. })));
    let mut hidden = Caller::open(&files, Query { hides_roots: true, ..query(&["other/*"]) });
    hidden.take().await;
    hidden.take().await;
    assert!(hidden.files.is_empty());
    (0..6).for_each(|n| write(directory.path(), &format!("{n}.log")));
    let mut stream = Box::pin(files.watch(query(&["logs/*"])).unwrap());
    assert!(stream.next().await.unwrap().is_ok());
    let error = stream.next().await.unwrap();
    assert!(matches!(error, Err(Error::TooManyFiles { limit: 5 })), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_is_read_again_does_not_count_twice() {
    let options = Options { max_watched_per_stream: 5, max_watched: 5, ..Options::default() };
    let (directory, files) = served(RootRules::default(), options);
    (0..3).for_each(|n| write(directory.path(), &format!("{n}.log")));
    let mut caller = Caller::open(&files, query(&["logs/*"]));
    caller.until(&["logs/0.log", "logs/1.log", "logs/2.log"]).await;
    files.inner.notices.lose_events();
    write(directory.path(), "3.log");
    caller.until(&["logs/0.log", "logs/1.log", "logs/2.log", "logs/3.log"]).await;
    assert_eq!(files.watched(), 5);
}

#[tokio::test]
async fn all_streams_share_a_limit_and_one_that_ends_leaves_room() {
    let (directory, files) = served(RootRules::default(), Options { max_watched: 10, ..Options::default() });
    (0..6).for_each(|n| write(directory.path(), &format!("{n}.log")));
    let all = ["0", "1", "2", "3", "4", "5"].map(|n| format!("logs/{n}.log"));
    let mut one = Caller::open(&files, query(&["logs/*"]));
    one.until(&all.each_ref().map(String::as_str)).await;
    // The root, and six files.
    assert_eq!(files.watched(), 7);
    let mut few = Caller::open(&files, query(&["logs/0.log"]));
    few.until(&["logs/0.log"]).await;
    assert_eq!(files.watched(), 9);
    let mut stream = Box::pin(files.watch(query(&["logs/*"])).unwrap());
    assert!(stream.next().await.unwrap().is_ok());
    let error = stream.next().await.unwrap();
    assert!(matches!(error, Err(Error::TooManyWatched { limit: 10 })), "{error:?}");
    drop((stream, one));
    let room = async {
        while files.watched() > 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, room).await.unwrap();
    // A stream that is open ends when it finds more than there is room for.
    (6..20).for_each(|n| write(directory.path(), &format!("{n}.log")));
    let mut more = Box::pin(files.watch(query(&["logs/*"])).unwrap());
    assert!(more.next().await.unwrap().is_ok());
    assert!(matches!(more.next().await.unwrap(), Err(Error::TooManyWatched { .. })));
    fs::remove_file(directory.path().join("0.log")).unwrap();
    few.until(&[]).await;
}

#[tokio::test]
async fn changes_that_a_stream_does_not_look_at_are_kept_up_to_a_bound() {
    let inbox = notices::Inbox::default();
    for directory in 0..100 {
        let path = format!("logs/{directory}/").into();
        (0..500).for_each(|name| inbox.add(&path, Some(&name.to_string())));
    }
    let changes = inbox.take();
    assert!(changes.all && changes.directories.is_empty());
    let path = "logs/".into();
    (0..10).for_each(|name| inbox.add(&path, Some(&name.to_string())));
    let changes = inbox.take();
    assert!(!changes.all && changes.directories.len() == 1);
}

#[derive(Clone, Debug)]
enum Act {
    Write(u8, u8),
    Remove(u8, u8),
    RenameFile([u8; 4]),
    RenameDirectory(u8, u8),
    RemoveDirectory(u8),
    Take,
    Resume,
    Lose,
}

fn act() -> impl Strategy<Value = Act> {
    let directory = 0..4_u8;
    let file = 0..4_u8;
    prop_oneof![
        4 => (directory.clone(), file.clone()).prop_map(|(d, f)| Act::Write(d, f)),
        2 => (directory.clone(), file.clone()).prop_map(|(d, f)| Act::Remove(d, f)),
        2 => (directory.clone(), file.clone(), directory.clone(), file).prop_map(|(a, b, c, d)| Act::RenameFile([a, b, c, d])),
        2 => (directory.clone(), directory.clone()).prop_map(|(a, b)| Act::RenameDirectory(a, b)),
        1 => directory.prop_map(Act::RemoveDirectory),
        3 => Just(Act::Take),
        1 => Just(Act::Resume),
        1 => Just(Act::Lose),
    ]
}

/// Some of the directories are in others.
fn directory_of(number: u8) -> &'static str {
    ["a", "a/b", "c", "c/d/e"].get(usize::from(number)).unwrap()
}

fn matching(root: &Path) -> BTreeSet<String> {
    fn add(at: &Path, path: &str, all: &mut BTreeSet<String>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                add(&entry.path(), &path, all);
            } else if path.strip_suffix(".log").is_some() {
                all.insert(path);
            }
        }
    }
    let mut all = BTreeSet::new();
    add(root, "logs", &mut all);
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_caller_has_the_files_of_the_tree_when_it_rests(acts in prop::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (directory, files) = plain();
            let root = directory.path();
            let file = |d: u8, f: u8| root.join(directory_of(d)).join(format!("{f}.log"));
            let mut caller = Caller::open(&files, query(&["logs/**/*.log"]));
            for act in &acts {
                match *act {
                    Act::Write(d, f) => write(root, &format!("{}/{f}.log", directory_of(d))),
                    Act::Remove(d, f) => drop(fs::remove_file(file(d, f))),
                    Act::RenameFile([a, b, c, d]) => drop(fs::rename(file(a, b), file(c, d))),
                    Act::RenameDirectory(a, b) => {
                        drop(fs::rename(root.join(directory_of(a)), root.join(directory_of(b))));
                    }
                    Act::RemoveDirectory(d) => drop(fs::remove_dir_all(root.join(directory_of(d)))),
                    Act::Take => drop(tokio::time::timeout(Duration::from_millis(5), caller.take()).await),
                    Act::Resume => caller = caller.resume(&files, query(&["logs/**/*.log"])),
                    Act::Lose => files.inner.notices.lose_events(),
                }
            }
            let wanted = matching(root);
            let wanted = wanted.iter().map(String::as_str).collect::<Vec<_>>();
            caller.until(&wanted).await;
        });
    }
}
