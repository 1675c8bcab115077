//! Names, kinds of files and sequences of changes that are rarer than those of a rotation by logrotate.

use std::{fs, os::unix::fs::symlink};

use perennial::lines::{Event, Found, Query, RootRules, Start};

use super::{
    away::{come_back, leave},
    copied::wait_for_tick,
    is_gap,
};
use crate::bed::{Bed, LOG, Reading, follow, options, query_of};

/// All lines came in order, and no loss is reported.
fn is_complete(reading: &Reading, expected: &[&str], why: &str) {
    assert_eq!(reading.texts(), expected, "{why}: {:?}", reading.events);
    assert!(!reading.events.iter().any(is_gap), "{why}: {:?}", reading.events);
}

fn clear(bed: &Bed) {
    for entry in fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { fs::remove_dir_all(entry).unwrap() } else { fs::remove_file(entry).unwrap() }
    }
}

#[tokio::test]
async fn dates_with_a_time_a_zone_or_an_index_are_read_in_order() {
    for bed in Bed::both() {
        for names in [
            ["app.log-20261130T120000Z", "app.log-20261130T130000Z", "app.log-20261201T000000Z"],
            ["app-2026-11-30.log", "app-2026-12-01.log", "app-2026-12-02.log"],
            ["app.log.2026-11-30.1", "app.log.2026-11-30.2", "app.log.2026-11-30.10"],
            ["app.log.2026-11-30_12-00-00", "app.log.2026-11-30_12-00-01", "app.log.2026-11-30_12-01-00"],
            [
                "app-2026-11-30T12-00-00.000.log",
                "app-2026-11-30T12-00-00.500.log",
                "app-2026-12-01T00-00-00.000.log",
            ],
            ["app.log.1764478800", "app.log.1764478801", "app.log.1764478900"],
        ] {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "more\n");
            for (n, name) in names.iter().enumerate() {
                bed.rename(LOG, name);
                bed.append(LOG, format!("{}\n", n + 1));
            }
            let reading = come_back(&bed, LOG, start, "3").await;
            is_complete(&reading, &["more", "1", "2", "3"], names[0]);
            clear(&bed);
        }
    }
}

/// A name that no rotation is known to give: the files between are not found, and that is reported.
#[tokio::test]
async fn files_that_are_numbered_in_an_unknown_way_are_a_gap() {
    for bed in Bed::both() {
        for name in [
            |n: usize| format!("{n}.app.log"),
            |n: usize| format!("app.log.{n}.save"),
            |n: usize| format!("APP.LOG.{n}"),
            |n: usize| format!("old-app.log-{n}"),
            |n: usize| format!("app{n}.log"),
            |n: usize| format!("app ({n}).log"),
        ] {
            for count in [1, 2, 3] {
                bed.append(LOG, "0\n");
                let start = leave(&bed, LOG).await;
                bed.append(LOG, "more\n");
                for round in 1..=count {
                    for n in (1..round).rev() {
                        bed.rename(&name(n), &name(n + 1));
                    }
                    bed.rename(LOG, &name(1));
                    bed.append(LOG, format!("{round}\n"));
                }
                let reading = come_back(&bed, LOG, start, &count.to_string()).await;
                let has_all = reading.lines.len() == count + 1;
                let has_gap = reading.events.iter().any(is_gap);
                let shown = (name(1), count, reading.texts(), &reading.events);
                assert!(has_all != has_gap, "{shown:?}");
                clear(&bed);
            }
        }
    }
}

/// As by `mkdir archive/3; mv app.log archive/3`.
#[tokio::test]
async fn a_file_that_was_moved_to_a_directory_of_its_own_between_two_others_is_a_gap() {
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        let history = vec!["archive/**".parse().unwrap()];
        let bed = Bed::with_rules(parent, options(), RootRules { history, ..RootRules::default() });
        bed.append(LOG, "0\n");
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "more\n");
        for n in 1..=3 {
            fs::create_dir_all(bed.path(&format!("archive/{n}"))).unwrap();
            bed.rename(LOG, &format!("archive/{n}/{LOG}"));
            bed.append(LOG, format!("{n}\n"));
        }
        let reading = come_back(&bed, LOG, start, "3").await;
        let has_all = reading.lines.len() == 4;
        assert!(has_all || reading.events.iter().any(is_gap), "{:?} {:?}", reading.texts(), reading.events);
    }
}

/// As by `mv logs logs.1; mkdir logs`.
#[tokio::test]
async fn a_directory_that_is_replaced_loses_nothing_in_silence_however_often_that_happens() {
    for bed in Bed::both() {
        let path = "a/b/app.log";
        let replace = |n: usize| {
            let name = ["a", "a/b"][n % 2];
            bed.rename(name, &format!("old-{n}"));
            fs::create_dir_all(bed.path("a/b")).unwrap();
            bed.append(path, format!("{n}\n"));
        };
        fs::create_dir_all(bed.path("a/b")).unwrap();
        bed.append(path, "0\n");
        let mut reading = bed.open(Query { follow: true, ..query_of(path, Start::Head) }).await;
        reading.read_until("0").await;
        for n in 1..=4 {
            replace(n);
            reading.read_until(&n.to_string()).await;
        }
        is_complete(&reading, &["0", "1", "2", "3", "4"], "one by one");
        (5..=24).for_each(replace);
        reading.read_until("24").await;
        // The events of directories that are gone may be read after the last file was found.
        if reading.lines.len() < 25 && !reading.events.iter().any(is_gap) {
            reading.wait_for_event("a gap", is_gap).await;
        }
    }
}

/// Neither their order nor whose they are shows in such names; only when they were created does.
#[tokio::test]
async fn a_file_that_was_created_between_two_others_is_a_gap_whatever_its_name_is() {
    for bed in Bed::both() {
        for names in [["app-Mon.log", "app-Tue.log"], ["9f0c2a", "b771de"], ["app.log.bak", "app.log.save"]] {
            for count in [1, 2] {
                bed.append(LOG, "0\n");
                let start = leave(&bed, LOG).await;
                bed.append(LOG, "more\n");
                for (n, name) in names.iter().take(count).enumerate() {
                    bed.rename(LOG, name);
                    bed.append(LOG, format!("{}\n", n + 1));
                }
                let reading = come_back(&bed, LOG, start, &count.to_string()).await;
                let has_all = reading.lines.len() == count + 1;
                let has_gap = reading.events.iter().any(is_gap);
                assert!(has_all != has_gap, "{names:?} {count} {:?} {:?}", reading.texts(), reading.events);
                clear(&bed);
            }
        }
    }
}

/// Labels of svlogd, multilog and s6-log; a file that was not finished ends with `.u`.
#[tokio::test]
async fn the_labelled_files_of_a_current_log_are_read_in_order() {
    for bed in Bed::both() {
        let names =
            ["@4000000067e0a1b2c3d4e5f6.s", "@4000000067e0a1b2d0000000.u", "@4000000067e0b00000000000.s"];
        bed.append("current", "0\n");
        let start = leave(&bed, "current").await;
        bed.append("current", "more\n");
        for (n, name) in names.iter().enumerate() {
            bed.rename("current", name);
            bed.append("current", format!("{}\n", n + 1));
        }
        let mut reading = come_back(&bed, "current", start, "3").await;
        bed.rename("current", "@4000000067e0b00100000000.s");
        bed.append("current", "4\n");
        reading.read_until("4").await;
        is_complete(&reading, &["more", "1", "2", "3", "4"], "labels");
    }
}

#[tokio::test]
async fn a_log_is_followed_and_resumed_whatever_characters_its_name_has() {
    for bed in Bed::both() {
        for name in [
            "my app.log",
            "журнал.log",
            "日誌",
            "a'b\"c.log",
            "-n",
            "new\nline.log",
            "a[1]*?.log",
            "e\u{301}.log",
        ] {
            let rotated = |n: usize| format!("{name}.{n}");
            bed.append(name, "0\n");
            let mut reading = bed.open(Query { follow: true, ..query_of(name, Start::Head) }).await;
            reading.read_until("0").await;
            let start = reading.resume();
            for n in 1..4 {
                for number in (1..n).rev() {
                    bed.rename(&rotated(number), &rotated(number + 1));
                }
                bed.rename(name, &rotated(1));
                bed.append(name, format!("{n}\n"));
                reading.read_until(&n.to_string()).await;
            }
            is_complete(&reading, &["0", "1", "2", "3"], name);
            let reading = come_back(&bed, name, start, "3").await;
            is_complete(&reading, &["1", "2", "3"], name);
            clear(&bed);
        }
    }
}

/// `ln app.log app.log.1 && rm app.log`, and a name that stays.
#[tokio::test]
async fn a_log_that_is_rotated_by_hard_links_is_read_once() {
    for bed in Bed::both() {
        for keeps in [false, true] {
            bed.append(LOG, "0\n");
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("0").await;
            let start = reading.resume();
            for n in 1..4 {
                for number in (1..n).rev() {
                    bed.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
                }
                fs::hard_link(bed.path(LOG), bed.path("app.log.1")).unwrap();
                if keeps {
                    fs::hard_link(bed.path(LOG), bed.path(&format!("kept {n}"))).unwrap();
                }
                bed.remove(LOG);
                bed.append(LOG, format!("{n}\n"));
                reading.read_until(&n.to_string()).await;
            }
            is_complete(&reading, &["0", "1", "2", "3"], "live");
            let reading = come_back(&bed, LOG, start, "3").await;
            is_complete(&reading, &["1", "2", "3"], "away");
            clear(&bed);
        }
    }
}

/// It counts as missing, and is not opened.
#[tokio::test]
async fn a_log_that_is_replaced_by_something_that_is_no_file_is_gone_until_a_file_is_back() {
    for bed in Bed::both() {
        let path = bed.path(LOG);
        let fifo = || {
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        };
        let socket = || drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let directory = || fs::create_dir(&path).unwrap();
        let nowhere = || symlink("nowhere", &path).unwrap();
        let device = || symlink("/dev/zero", &path).unwrap();
        let odd: [&dyn Fn(); 5] = [&fifo, &socket, &directory, &nowhere, &device];
        for (kind, put) in odd.into_iter().enumerate() {
            bed.append(LOG, "1\n");
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("1").await;
            bed.append(LOG, "2\n");
            bed.rename(LOG, "app.log.1");
            put();
            reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
            let start = reading.resume();
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            bed.append(LOG, "3\n");
            reading.read_until("3").await;
            is_complete(&reading, &["1", "2", "3"], &kind.to_string());
            let reading = come_back(&bed, LOG, start, "3").await;
            is_complete(&reading, &["3"], &kind.to_string());
            clear(&bed);
        }
    }
}

#[tokio::test]
async fn empty_generations_between_others_are_passed_over() {
    for bed in Bed::both() {
        let downward = ["app.log.1", "app.log.2", "app.log.3", "app.log.4"];
        let dates = ["app.log-20261121", "app.log-20261122", "app.log-20261123", "app.log-20261124"];
        for (names, shifts) in [(downward, true), (dates, false)] {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "more\n");
            for (n, text) in ["", "2\n", "", "4\n"].into_iter().enumerate() {
                if shifts {
                    for number in (0..n).rev() {
                        bed.rename(names[number], names[number + 1]);
                    }
                }
                bed.rename(LOG, names[if shifts { 0 } else { n }]);
                bed.append(LOG, text);
            }
            let reading = come_back(&bed, LOG, start, "4").await;
            is_complete(&reading, &["more", "2", "4"], names[0]);
            clear(&bed);
        }
    }
}

/// The name of the rotated file is not UTF-8, so that no cursor finds it; a follower has it open.
#[tokio::test]
async fn a_log_that_is_renamed_to_a_name_that_is_not_utf_8_is_drained_and_then_a_gap() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::on_disk();
    bed.append(LOG, "1\n");
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.read_until("1").await;
    let start = reading.resume();
    bed.append(LOG, "2\n");
    fs::rename(bed.path(LOG), bed.path("").join(std::ffi::OsStr::from_bytes(b"app.log.\xff"))).unwrap();
    bed.append(LOG, "3\n");
    reading.read_until("3").await;
    is_complete(&reading, &["1", "2", "3"], "live");
    drop(reading);
    let skip = Query { on_gap: perennial::lines::OnGap::Skip, ..follow(start) };
    let mut reading = bed.open(skip).await;
    reading.read_until("3").await;
    assert_eq!(
        (reading.texts(), reading.events[0].clone()),
        (vec!["3".to_owned()], Event::Resumed(Found::Lost))
    );
    assert!(reading.events.iter().any(is_gap));
}

/// A directory on the path is replaced by a link to another one, and back.
#[tokio::test]
async fn a_directory_that_is_replaced_by_a_link_loses_nothing() {
    for bed in Bed::both() {
        for directory in ["logs", "other"] {
            fs::create_dir(bed.path(directory)).unwrap();
        }
        bed.append("logs/app.log", "1\n");
        bed.append("other/app.log", "2\n");
        let mut reading = bed.open(Query { follow: true, ..query_of("logs/app.log", Start::Head) }).await;
        reading.read_until("1").await;
        bed.rename("logs", "moved");
        symlink("other", bed.path("logs")).unwrap();
        reading.read_until("2").await;
        bed.append("other/app.log", "3\n");
        reading.read_until("3").await;
        bed.remove("logs");
        bed.rename("moved", "logs");
        bed.append("logs/app.log", "4\n");
        reading.read_until("4").await;
        let texts = reading.texts();
        assert_eq!(texts, ["1", "2", "3", "4"], "{:?}", reading.events);
        clear(&bed);
    }
}

/// The rotation was changed while no reader was there: nothing says that its files are of this log, and in which order.
#[tokio::test]
async fn files_of_another_rotation_that_came_later_are_a_gap() {
    for bed in Bed::both() {
        for names in [
            ["app-1.log", "app-20261201.log"],
            ["app-20261200.log", "app-20261201.log"],
            ["app.log.1", "app-20261201.log"],
            ["app.log-20261201", "20261202-app.log"],
            ["app-20261201.log", "app-1.log"],
        ] {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "1\n");
            for (n, name) in names.iter().enumerate() {
                // Each change of the file has a time of its own.
                wait_for_tick(&bed);
                bed.rename(LOG, name);
                wait_for_tick(&bed);
                bed.append(LOG, format!("{}\n", n + 2));
            }
            let reading = come_back(&bed, LOG, start, "3").await;
            assert_eq!(reading.texts(), ["1", "3"], "{names:?}");
            assert!(reading.events.iter().any(is_gap), "{names:?} {:?}", reading.events);
            for name in names.iter().chain([&LOG]) {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn a_dated_file_that_came_and_went_after_the_log_was_deleted_is_a_gap() {
    let bed = Bed::on_disk();
    bed.append(LOG, "1\n");
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.read_until("1").await;
    bed.remove(LOG);
    reading.wait_for_event("its deletion", |event| *event == Event::Deleted).await;
    let start = reading.resume();
    drop(reading);
    bed.append(LOG, "2\n");
    bed.rename(LOG, "app-20261201.log");
    bed.append(LOG, "3\n");
    let reading = come_back(&bed, LOG, start, "3").await;
    assert_eq!(reading.texts(), ["3"]);
    assert!(reading.events.iter().any(is_gap), "{:?}", reading.events);
}
