//! Links on the path of a followed file: what happens where they lead, and when they are pointed elsewhere.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use perennial::lines::{Event, Files, Query, Root, RootRules, Start};
use tempfile::TempDir;

use super::is_gap;
use crate::bed::{Bed, LIMIT, LOG, ROOT, Reading, append, follow, options, query_of};

/// Points a link to another file, at once.
fn point(link: &Path, to: impl AsRef<Path>) {
    let new = link.with_file_name("new-link");
    symlink(to, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

fn follow_of(name: &str) -> Query {
    Query { follow: true, ..query_of(name, Start::Head) }
}

/// Whether any inotify instance of this process watches this directory.
fn is_watched(directory: &Path) -> bool {
    let inode = format!("ino:{:x} ", fs::metadata(directory).unwrap().ino());
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap();
    infos
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .any(|info| info.lines().any(|line| line.starts_with("inotify ") && line.contains(&inode)))
}

/// Rotates `target` again and again, and writes three lines into each file, one of them late.
fn is_read_whole(bed: &Bed, target: &str, reading: &mut Reading) {
    const ROTATIONS: usize = 40;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROTATIONS {
                bed.append(target, format!("{round} a\n{round} b\n"));
                thread::sleep(Duration::from_millis(5));
                let old = format!("{target}.{}", ROTATIONS - round);
                bed.rename(target, &old);
                bed.append(target, "");
                bed.append(&old, format!("{round} c\n"));
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(reading.read_lines(3 * ROTATIONS));
        });
    });
    let line = |n: usize| format!("{} {}", n / 3, ["a", "b", "c"][n % 3]);
    assert_eq!(reading.take_texts(), (0..3 * ROTATIONS).map(line).collect::<Vec<_>>());
    assert!(!reading.take_events().iter().any(is_gap));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_of_a_link_that_is_rotated_all_the_time_is_read_as_by_its_own_path() {
    for bed in Bed::both() {
        for directory in ["data", "pods/uid/app", "containers", "day"] {
            fs::create_dir_all(bed.path(directory)).unwrap();
        }
        // As the kubelet does: a link to a link to a file.
        symlink("../../data/now.log", bed.path("pods/uid/0.log")).unwrap();
        symlink("../pods/uid/0.log", bed.path("containers/app.log")).unwrap();
        symlink("data/now.log", bed.path("one.log")).unwrap();
        symlink("data", bed.path("current")).unwrap();
        symlink("current/now.log", bed.path("both.log")).unwrap();
        for path in ["one.log", "containers/app.log", "current/now.log", "both.log"] {
            println!("{path}");
            bed.append("data/now.log", "");
            let mut reading = bed.open(follow_of(path)).await;
            reading.batch().await.unwrap();
            is_read_whole(&bed, "data/now.log", &mut reading);
            for entry in fs::read_dir(bed.path("data")).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_link_is_followed_where_it_leads_if_the_operator_allows_that() {
    let rules = RootRules { absolute_links: true, ..RootRules::default() };
    let bed = Bed::on_disk_with(rules);
    fs::create_dir(bed.path("data")).unwrap();
    symlink(bed.path("data/now.log"), bed.path(LOG)).unwrap();
    bed.append("data/now.log", "");
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.batch().await.unwrap();
    is_read_whole(&bed, "data/now.log", &mut reading);
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere_and_back_continues_where_it_was_also_for_a_reader_that_is_cut() {
    for bed in Bed::both() {
        bed.append("a", "a1\n");
        bed.append("b", "b1\n");
        symlink("a", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("a1").await;
        // Its last lines come, and then those of the other file.
        bed.append("a", "a2\n");
        point(&bed.path(LOG), "b");
        reading.read_until("b1").await;
        let start = reading.resume();
        let mut resumed = bed.open(follow(start)).await;
        resumed.batch().await.unwrap();
        for (target, next_offset, line) in [("a", 6, "a3"), ("b", 3, "b2")] {
            point(&bed.path(LOG), target);
            let rotated = Event::Rotated { next_offset };
            for reading in [&mut reading, &mut resumed] {
                reading.wait_for_event("the other file", |event| *event == rotated).await;
            }
            bed.append(target, format!("{line}\n"));
            for reading in [&mut reading, &mut resumed] {
                reading.read_until(line).await;
            }
        }
        assert_eq!(reading.texts(), ["a1", "a2", "b1", "a3", "b2"]);
        assert_eq!(resumed.texts(), ["a3", "b2"]);
        let offsets = [0, 6, 3].map(|next_offset| Event::Rotated { next_offset });
        assert_eq!(reading.events, offsets);
    }
}

#[tokio::test]
async fn every_link_of_a_chain_can_be_pointed_elsewhere() {
    for bed in Bed::both() {
        for directory in ["x/1", "x/2", "y"] {
            fs::create_dir_all(bed.path(directory)).unwrap();
        }
        for (name, line) in [("x/1/log", "1"), ("x/2/log", "2"), ("y/3", "3"), ("y/4", "4")] {
            bed.append(name, format!("{line}\n"));
        }
        symlink("1", bed.path("x/now")).unwrap();
        symlink("../x/now/log", bed.path("y/link")).unwrap();
        symlink("y/link", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        point(&bed.path("x/now"), "2");
        reading.read_until("2").await;
        point(&bed.path("y/link"), "3");
        reading.read_until("3").await;
        point(&bed.path(LOG), "y/4");
        reading.read_until("4").await;
        bed.append("y/4", "5\n");
        reading.read_until("5").await;
        assert_eq!(reading.texts(), ["1", "2", "3", "4", "5"]);
        assert_eq!(reading.events, vec![Event::Rotated { next_offset: 0 }; 3]);
    }
}

#[tokio::test]
async fn a_link_that_is_gone_for_two_seconds_loses_nothing_also_if_its_target_is_followed_itself() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("data")).unwrap();
        bed.append("data/now", "1\n");
        symlink("data/now", bed.path(LOG)).unwrap();
        let mut target = bed.open(follow_of("data/now")).await;
        target.read_until("1").await;
        for round in 0..2 {
            let mut reading = bed.open(follow(Start::Last(0))).await;
            reading.batch().await.unwrap();
            bed.remove(LOG);
            bed.append("data/now", format!("{round} away\n"));
            reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
            bed.append("data/now", format!("{round} still\n"));
            if round == 0 {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            symlink("data/now", bed.path(LOG)).unwrap();
            bed.append("data/now", format!("{round} back\n"));
            reading.read_until(&format!("{round} back")).await;
            let expected = ["away", "still", "back"].map(|line| format!("{round} {line}"));
            assert_eq!(reading.texts(), expected);
            assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
        }
        // Gone for a moment, so that its absence is not noticed.
        let mut reading = bed.open(follow(Start::Last(0))).await;
        reading.batch().await.unwrap();
        for round in 0..20 {
            bed.remove(LOG);
            bed.append("data/now", format!("{round} a\n"));
            symlink("data/now", bed.path(LOG)).unwrap();
            bed.append("data/now", format!("{round} b\n"));
        }
        reading.read_until("19 b").await;
        assert_eq!(reading.lines.len(), 40);
    }
}

#[tokio::test]
async fn links_that_lead_nowhere_are_left_and_their_directories_are_not_watched() {
    let rules =
        RootRules { deny: vec!["secret".parse().unwrap(), "*.key".parse().unwrap()], ..RootRules::default() };
    let (bed, outside) = (Bed::on_disk_with(rules), TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    for directory in ["good", "secret", "keys"] {
        fs::create_dir(bed.path(directory)).unwrap();
    }
    for (path, line) in [("good/log", "good"), ("secret/log", "secret"), ("keys/a.key", "secret")] {
        bed.append(path, format!("{line} 0\n"));
    }
    append(&outside.path().join("log"), "outside 0\n");
    // Another root of the same server is not a place where a link of this one leads.
    let roots = vec![
        Root {
            rules: RootRules {
                deny: vec!["secret".parse().unwrap(), "*.key".parse().unwrap()],
                ..RootRules::default()
            },
            ..Root::new(ROOT, bed.path(""))
        },
        Root::new("other", outside.path()),
    ];
    let files = Files::new(roots, options()).unwrap();
    symlink("good/log", bed.path(LOG)).unwrap();
    let mut reading = Bed::try_open_on(&files, follow(Start::Head)).await.unwrap();
    reading.read_until("good 0").await;
    assert!(is_watched(&bed.path("good")) && is_watched(&bed.path("")));
    symlink("loop-b", bed.path("loop-a")).unwrap();
    symlink("loop-a", bed.path("loop-b")).unwrap();
    symlink("../good/log", bed.path("secret/link")).unwrap();
    let bad = outside.path().join("log");
    for (round, target) in
        [Path::new("secret/log"), Path::new("keys/a.key"), Path::new("loop-a"), &bad].into_iter().enumerate()
    {
        point(&bed.path(LOG), target);
        reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        append(&outside.path().join("log"), "outside 1\n");
        bed.append("secret/log", "secret 1\n");
        for directory in [&bed.path("secret"), &bed.path("keys"), outside.path()] {
            assert!(!is_watched(directory), "{target:?} {directory:?}");
        }
        point(&bed.path(LOG), "good/log");
        let line = format!("good {}", round + 1);
        bed.append("good/log", format!("{line}\n"));
        reading.read_until(&line).await;
    }
    // By a link in a denied directory, which is not watched either.
    point(&bed.path(LOG), "secret/link");
    bed.append("good/log", "good 5\n");
    reading.read_until("good 5").await;
    assert!(!is_watched(&bed.path("secret")));
    assert_eq!(reading.texts(), (0..6).map(|n| format!("good {n}")).collect::<Vec<_>>());
}

/// The link led nowhere for a while, so that an event reports the file there as a new one.
#[tokio::test]
async fn a_link_that_is_pointed_to_a_file_that_comes_later_and_back_continues_where_it_was() {
    for bed in Bed::both() {
        bed.append("a", "a1\n");
        symlink("a", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("a1").await;
        point(&bed.path(LOG), "b");
        reading.wait_for_event("no file", |event| *event == Event::Deleted).await;
        bed.append("b", "b1\n");
        reading.read_until("b1").await;
        let mut resumed = bed.open(follow(reading.resume())).await;
        point(&bed.path(LOG), "a");
        bed.append("a", "a2\n");
        for reading in [&mut reading, &mut resumed] {
            reading.read_until("a2").await;
        }
        assert_eq!(reading.texts(), ["a1", "b1", "a2"]);
        assert_eq!(resumed.texts(), ["a2"]);
    }
}

/// The file that was read was renamed by hand, and the next one by a rotation.
#[tokio::test]
async fn a_target_that_was_renamed_in_two_ways_while_away_is_read_or_a_gap() {
    for bed in Bed::both() {
        std::fs::create_dir(bed.path("targets")).unwrap();
        bed.append("targets/app.a", "0\n");
        std::os::unix::fs::symlink("targets/app.a", bed.path(LOG)).unwrap();
        let start = super::away::leave(&bed, LOG).await;
        for (name, line) in [("targets/app-2.a", "1\n"), ("targets/app.a.1", "2\n")] {
            bed.rename("targets/app.a", name);
            bed.append("targets/app.a", line);
        }
        let reading = super::away::come_back(&bed, LOG, start, "2").await;
        let is_complete = reading.texts() == ["1", "2"];
        assert!(is_complete || reading.events.iter().any(super::is_gap), "{:?}", reading.events);
    }
}

/// The target was rotated, and then the link was pointed back to one that was read before.
#[tokio::test]
async fn a_target_that_was_rotated_before_the_link_was_pointed_back_while_away_is_a_gap() {
    for bed in Bed::both() {
        let point = |to: &str| {
            std::os::unix::fs::symlink(to, bed.path("temporary")).unwrap();
            bed.rename("temporary", LOG);
        };
        bed.append("app.a", "a 1\n");
        bed.append("app.b", "b 1\n");
        point("app.a");
        let mut reading = bed.open(crate::bed::follow(perennial::lines::Start::Head)).await;
        reading.read_until("a 1").await;
        point("app.b");
        reading.read_until("b 1").await;
        let start = reading.resume();
        drop(reading);
        bed.rename("app.b", "app.b.1");
        bed.append("app.b", "lost\n");
        point("app.a");
        bed.append("app.a", "a 2\n");
        let reading = super::away::come_back(&bed, LOG, start, "a 2").await;
        assert_eq!(reading.texts(), ["a 2"]);
        assert!(reading.events.iter().any(super::is_gap), "{:?}", reading.events);
    }
}

#[tokio::test]
async fn a_file_that_a_link_led_to_between_two_others_is_read_or_a_gap() {
    for bed in Bed::both() {
        for round in 0..20 {
            let name = |letter: &str| format!("{letter}{round}");
            for letter in ["a", "b", "c"] {
                bed.append(&name(letter), name(letter) + " line\n");
            }
            for last in ["c", "a"] {
                point(&bed.path(LOG), name("a"));
                let mut reading = bed.open(follow(Start::Head)).await;
                reading.read_until(&(name("a") + " line")).await;
                point(&bed.path(LOG), name("b"));
                point(&bed.path(LOG), name(last));
                bed.append(&name(last), "end\n");
                let is_read = |reading: &Reading| reading.texts().contains(&(name("b") + " line"));
                let end = Instant::now() + LIMIT;
                while !is_read(&reading) && !reading.events.iter().any(is_gap) {
                    assert!(Instant::now() < end, "{last}: {:?}", reading.events);
                    reading.batch().await.unwrap();
                }
                if !reading.texts().contains(&"end".into()) {
                    reading.read_until("end").await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere_once_reports_no_gap() {
    for bed in Bed::both() {
        let mut reading = None;
        for round in 0..50 {
            let (name, line) = (format!("file {round}"), format!("line {round}"));
            bed.append(&name, line.clone() + "\n");
            point(&bed.path(LOG), &name);
            let reading = match &mut reading {
                Some(reading) => reading,
                none => none.insert(bed.open(follow(Start::Head)).await),
            };
            reading.read_until(&line).await;
            assert!(!reading.events.iter().any(is_gap), "{round}: {:?}", reading.events);
        }
        // The same link again leads to no other file.
        let mut reading = reading.unwrap();
        point(&bed.path(LOG), "file 49");
        reading.quiet_for(Duration::from_millis(100)).await;
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

/// What was written after the part that was read may be lost.
#[tokio::test]
async fn a_target_that_was_truncated_before_a_link_was_pointed_back_is_reported_also_after_a_cut() {
    for bed in Bed::both() {
        bed.append("a", "a line 1\n");
        bed.append("b", "b1\n");
        symlink("a", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("a line 1").await;
        point(&bed.path(LOG), "b");
        reading.read_until("b1").await;
        let mut resumed = bed.open(follow(reading.resume())).await;
        resumed.batch().await.unwrap();
        // Shorter than what was read: so it has no late lines. No reader looks until all has happened.
        bed.append("a", "lost\n");
        fs::write(bed.path("a"), "a2\n").unwrap();
        point(&bed.path(LOG), "a");
        for reading in [&mut reading, &mut resumed] {
            reading.read_until("a2").await;
            let truncated = Event::Truncated { read_offset: 9, size: 3 };
            assert!(reading.events.contains(&truncated), "{:?}", reading.events);
        }
    }
}

/// The same of a file that was renamed away, and back to its path.
#[tokio::test]
async fn a_file_that_was_truncated_before_it_came_back_to_its_path_is_reported() {
    for bed in Bed::both() {
        bed.append(LOG, "line 1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("line 1").await;
        bed.rename(LOG, "away");
        bed.append(LOG, "line 2\n");
        reading.read_until("line 2").await;
        bed.append("away", "lost\n");
        fs::write(bed.path("away"), "3\n").unwrap();
        bed.rename(LOG, "away 2");
        bed.rename("away", LOG);
        reading.read_until("3").await;
        let truncated = Event::Truncated { read_offset: 7, size: 2 };
        assert!(reading.events.contains(&truncated), "{:?}", reading.events);
    }
}
