//! Names that change while they are read: never one byte from outside, or from a denied file.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// How often names are swapped in an ordinary test.
const SWAPS: usize = 50_000;

/// How often where there is time for it.
const MANY_SWAPS: usize = 1_000_000;

/// How long readers may take to meet both states.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tree in which a path is now good and now leads outside, or to a denied file, and the names to swap for it.
struct Trap {
    house: House,
    path: &'static str,
    swapped: (PathBuf, PathBuf),
    /// The path is good in one of the two states; else in neither.
    has_good: bool,
}

fn traps() -> Vec<Trap> {
    let trap = |build: fn(&House), path, one: &str, other: &str, has_good| {
        let house = House::new();
        build(&house);
        let swapped = (house.path(one), house.path(other));
        Trap { house, path, swapped, has_good }
    };
    vec![
        // The file itself, and a link to the secret.
        trap(|house| house.link("x.log", "../secret.txt"), "r/app.log", "app.log", "x.log", true),
        // The directory it is in, and a link to one outside.
        trap(
            |house| {
                house.write("dir/a.log", "good");
                house.write("../outside/a.log", "secret");
                house.link("out", "../outside");
            },
            "r/dir/a.log",
            "dir",
            "out",
            true,
        ),
        // The directory that a link goes up from: in the other place it would go further up than the root.
        trap(
            |house| {
                house.write("one/good.txt", "good");
                house.write("../good.txt", "secret");
                house.link("one/two/three/link", "../../good.txt");
                house.link("shallow/link", "none");
                house.link("entry.log", "one/two/three/link");
            },
            "r/entry.log",
            "one/two/three",
            "shallow",
            true,
        ),
        // The same, reached at the place where it goes up too far.
        trap(
            |house| {
                house.write("../good.txt", "secret");
                house.write("one/good.txt", "good");
                house.link("one/two/three/link", "../../good.txt");
                house.link("shallow/link", "../app.log");
            },
            "r/shallow/link",
            "one/two/three",
            "shallow",
            true,
        ),
        // The file, and a link to one that is denied.
        trap(
            |house| {
                house.write("a.key", "secret");
                house.link("x.log", "a.key");
            },
            "r/app.log",
            "app.log",
            "x.log",
            true,
        ),
        // Two links, neither of which may be followed.
        trap(
            |house| {
                house.link("x", "../secret.txt");
                house.link("y", house.directory.path().join("secret.txt"));
            },
            "r/x",
            "x",
            "y",
            false,
        ),
    ]
}

/// Readers read the path and list its root while the names are swapped this many times.
fn spring(trap: &Trap, swaps: usize) {
    let roots = trap.house.roots(RootRules { absolute_links: true, ..deny(&["*.key"]) });
    let (done, good, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (one, other) = &trap.swapped;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match read(&roots, trap.path) {
                        Ok(text) => {
                            assert_eq!(text, "good", "{}", trap.path);
                            good.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => {
                            assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        scope.spawn(|| {
            // As a stream does: a directory that is held while names change.
            let path = FilePath::parse(trap.path).unwrap();
            while !done.load(Ordering::Relaxed) {
                let Ok(parent) = roots.parent(&path) else { continue };
                for _ in 0..100 {
                    if let Ok(file) = parent.open(&path.name) {
                        assert_eq!(std::io::read_to_string(file).unwrap(), "good", "{}", trap.path);
                    }
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let files = list(&roots, None, 99, None).unwrap().files;
                assert!(files.iter().all(|file| file.size != "secret".len() as u64), "{files:?}");
            }
        });
        let start = Instant::now();
        let has_raced =
            || refused.load(Ordering::Relaxed) > 0 && (good.load(Ordering::Relaxed) > 0 || !trap.has_good);
        // A busy machine may let the readers begin late.
        for n in 0.. {
            if n >= swaps && (has_raced() || start.elapsed() > PATIENCE) {
                break;
            }
            renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let (good, refused) = (good.into_inner(), refused.into_inner());
    // Or there was no race.
    assert!(refused > 0 && (good > 0) == trap.has_good, "{}: {good} {refused}", trap.path);
}

fn spring_all(swaps: usize) {
    let traps = traps();
    let each = swaps.div_ceil(traps.len());
    for trap in &traps {
        spring(trap, each);
    }
}

#[test]
fn names_that_are_swapped_fifty_thousand_times_never_give_a_byte_of_the_secret() {
    spring_all(SWAPS);
}

#[test]
#[ignore = "takes a minute"]
fn names_that_are_swapped_a_million_times_never_give_a_byte_of_the_secret() {
    spring_all(MANY_SWAPS);
}
