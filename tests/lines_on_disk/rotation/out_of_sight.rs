//! Files that are renamed to where no rotation puts them, while their writer goes on: they are their log's, unless they
//! became another's.

use std::{
    fs::{self, File},
    io::Write,
};

use perennial::lines::{Event, Query, RootRules, Start};

use super::is_gap;
use crate::bed::{Bed, LOG, follow, query_of};

async fn deleted(reading: &mut crate::bed::Reading) {
    reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
}

/// logrotate's `nocreate` with `olddir`, or with another extension: the writer reopens its log only seconds later.
#[tokio::test]
async fn lines_written_to_a_log_after_it_was_moved_away_and_before_the_next_one_is_created_are_delivered() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("archive")).unwrap();
        for (round, away) in
            ["archive/app.log", "app-20261123.log", "old.txt", "archive/app.log.1"].into_iter().enumerate()
        {
            let line = |n: usize| format!("{round} {n}");
            bed.append(LOG, line(0) + "\n");
            let mut writer = File::options().append(true).open(bed.path(LOG)).unwrap();
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until(&line(0)).await;
            bed.rename(LOG, away);
            deleted(&mut reading).await;
            writeln!(writer, "{}", line(1)).unwrap();
            reading.read_until(&line(1)).await;
            // Late, after the next file is read.
            bed.append(LOG, line(2) + "\n");
            reading.read_until(&line(2)).await;
            writeln!(writer, "{}", line(3)).unwrap();
            reading.read_until(&line(3)).await;
            bed.append(LOG, line(4) + "\n");
            reading.read_until(&line(4)).await;
            assert_eq!(reading.texts(), (0..5).map(line).collect::<Vec<_>>(), "{away}");
            assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
            bed.remove(LOG);
        }
    }
}

#[tokio::test]
async fn lines_written_to_the_target_of_a_link_that_is_gone_for_a_moment_come_once() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("data")).unwrap();
        bed.append("data/now", "1\n");
        std::os::unix::fs::symlink("data/now", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        bed.remove(LOG);
        deleted(&mut reading).await;
        bed.append("data/now", "2\n");
        reading.read_until("2").await;
        std::os::unix::fs::symlink("data/now", bed.path(LOG)).unwrap();
        bed.append("data/now", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.texts(), ["1", "2", "3"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

#[tokio::test]
async fn a_log_that_is_renamed_to_a_denied_name_is_delivered_up_to_that_moment_and_no_further() {
    let rules = || RootRules { deny: vec!["*.key".parse().unwrap()], ..RootRules::default() };
    let names = ["secret.key", "archive/secret.key", "app.log.key.1"];
    for (away, is_created_at_once) in names.into_iter().flat_map(|name| [(name, false), (name, true)]) {
        let bed = Bed::on_disk_with(rules());
        fs::create_dir(bed.path("archive")).unwrap();
        bed.append(LOG, "first\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("first").await;
        bed.append(LOG, (0..50_000).map(|n| format!("{n}\n")).collect::<String>());
        bed.rename(LOG, away);
        if is_created_at_once {
            bed.append(LOG, "created\n");
            reading.read_until("created").await;
        } else {
            deleted(&mut reading).await;
        }
        assert_eq!(reading.lines.len(), 50_001 + usize::from(is_created_at_once), "{away}");
        for n in 0..3 {
            bed.append(away, format!("secret {n}\n"));
            // Also when it has grown far beyond, or was rewritten.
            bed.append(LOG, format!("next {n}\n"));
            reading.read_until(&format!("next {n}")).await;
        }
        fs::write(bed.path(away), "secret\n").unwrap();
        bed.append(LOG, "end\n");
        reading.read_until("end").await;
        assert!(reading.texts().iter().all(|line| !line.contains("secret")), "{away}");
    }
}

#[tokio::test]
async fn a_rotated_log_that_is_renamed_to_a_denied_name_later_has_no_late_lines_but_a_gap() {
    let rules = RootRules { deny: vec!["*.key".parse().unwrap()], ..RootRules::default() };
    let bed = Bed::on_disk_with(rules);
    bed.append(LOG, "1\n");
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.read_until("1").await;
    bed.rename(LOG, "app.log.1");
    bed.append(LOG, "2\n");
    reading.read_until("2").await;
    bed.rename("app.log.1", "secret.key");
    bed.append("secret.key", "secret\n");
    reading.wait_for_event("a gap", is_gap).await;
    bed.append(LOG, "3\n");
    reading.read_until("3").await;
    assert_eq!(reading.texts(), ["1", "2", "3"]);
}

/// Two logs, both followed: what is written to one of them under its own name is not the other's.
#[tokio::test]
async fn a_log_that_is_moved_over_another_followed_one_gets_none_of_its_later_lines() {
    for bed in Bed::both() {
        bed.append("a", "a1\n");
        bed.append("b", "b1\n");
        let open = async |name| bed.open(Query { follow: true, ..query_of(name, Start::Head) }).await;
        let (mut a, mut b) = (open("a").await, open("b").await);
        a.read_until("a1").await;
        b.read_until("b1").await;
        bed.rename("a", "b");
        deleted(&mut a).await;
        bed.append("b", "b2\n");
        b.read_until("b2").await;
        for n in 2..5 {
            bed.append("a", format!("a{n}\n"));
            bed.append("b", format!("b{}\n", n + 1));
            a.read_until(&format!("a{n}")).await;
            b.read_until(&format!("b{}", n + 1)).await;
        }
        assert_eq!(a.texts(), ["a1", "a2", "a3", "a4"]);
    }
}

/// A follower of the rotated file must not take late lines from the followers of the log.
#[tokio::test]
async fn late_lines_are_delivered_also_if_the_rotated_file_is_followed_by_its_own_name() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        bed.append("app.log.1", "0\n");
        let mut rotated = bed.open(Query { follow: true, ..query_of("app.log.1", Start::Head) }).await;
        rotated.read_until("0").await;
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, "2\n");
        rotated.read_until("1").await;
        bed.append("app.log.1", "late\n");
        rotated.read_until("late").await;
        reading.read_lines(3).await;
        let mut texts = reading.texts();
        texts.sort();
        assert_eq!(texts, ["1", "2", "late"]);
    }
}

/// It is not known what was written to it.
#[tokio::test]
async fn a_file_that_is_deleted_before_it_can_be_opened_is_a_gap() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        let mut gaps = 0;
        for round in 1..=50 {
            bed.rename(LOG, &format!("old.{round}"));
            // Most of these are gone before their event is read.
            let mut writer = File::create(bed.path(LOG)).unwrap();
            bed.remove(LOG);
            writeln!(writer, "lost {round}").unwrap();
            bed.append(LOG, format!("{round}\n"));
            reading.read_until(&round.to_string()).await;
            let is_read = reading.take_texts().contains(&format!("lost {round}"));
            let has_gap = reading.take_events().iter().any(is_gap);
            assert!(is_read || has_gap, "{round}");
            gaps += usize::from(has_gap);
        }
        println!("{gaps} gaps");
    }
}

/// It does not come to the files again that were read after that one.
#[tokio::test]
async fn a_reader_that_is_cut_in_late_lines_of_an_older_file_gets_each_line_once() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        for (old, line) in [("app.log.2", "2"), ("app.log.1", "3")] {
            bed.rename(LOG, old);
            bed.append(LOG, format!("{line}\n"));
            reading.read_until(line).await;
        }
        bed.append("app.log.2", "late\n");
        reading.read_until("late").await;
        let start = reading.resume();
        drop(reading);
        bed.append("app.log.2", "later\n");
        bed.append(LOG, "4\n");
        let mut reading = bed.open(follow(start)).await;
        reading.wait_for_event("the way back", |event| matches!(event, Event::Rotated { .. })).await;
        reading.read_lines(2).await;
        reading.quiet_for(std::time::Duration::from_millis(300)).await;
        let mut texts = reading.texts();
        texts.sort();
        assert_eq!(texts, ["4", "later"], "{:?}", reading.events);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}
