//! A log is made by the log itself, and then broken, exported and imported.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use super::*;
use crate::messages::{
    Config, Content, Log, NewMessage, Position, Sequence, retention::Rule, tests::workload::share,
    topic::Pattern,
};

/// Small segments, so that a test sees several.
fn config() -> Config {
    Config { segment_bytes: 400, ..Config::default() }
}

fn text(topic: &str, text: &str) -> NewMessage {
    NewMessage { topic: topic.into(), content: Content::Text(text.into()), ..NewMessage::default() }
}

/// A log of several segments, closed.
pub(super) async fn make(directory: &Path) -> Log {
    let (log, _) = Log::open(directory, config()).unwrap();
    for n in 1..=12 {
        let topic = if n % 3 == 0 { "b.c" } else { "a" };
        let message_id = (n % 4 == 0).then(|| format!("id-{n}"));
        let key = (n % 5 == 0).then(|| "key".to_owned());
        let headers = vec![("name".to_owned(), format!("\"{n}\"\n"))];
        let ttl = (n % 6 == 0).then(|| Duration::from_secs(3600));
        let content =
            if n % 2 == 0 { Content::Data(vec![n, 255].into()) } else { Content::Text("ü".into()) };
        let topic = topic.into();
        let message = NewMessage { topic, content, key, headers, message_id, ttl, ..NewMessage::default() };
        log.publish(message).await.unwrap();
    }
    log
}

fn found(directory: &Path) -> (Verified, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut read = (0, 0);
    let progress = |done, all| read = (done, all);
    let verified = verify(directory, |finding| findings.push(finding.clone()), progress).unwrap();
    assert!(read.0 == verified.bytes && read.0 <= read.1, "progress ends at the end: {read:?}");
    (verified, findings)
}

fn exported(directory: &Path, selection: Selection, rules: &[Rule]) -> String {
    let archive = Archive::open(directory, rules).unwrap();
    let export = Export::new(&archive, selection);
    let (mut out, mut findings) = (Vec::new(), Vec::new());
    let written = export.write(&mut out, |finding| findings.push(finding.clone())).unwrap();
    assert_eq!(findings, []);
    assert_eq!(written, export.count().unwrap());
    String::from_utf8(out).unwrap()
}

fn sequences(lines: &str) -> Vec<u64> {
    let sequence = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64();
    lines.lines().map(|line| sequence(line).unwrap()).collect()
}

pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.sort();
    files
}

#[tokio::test]
async fn a_log_is_sound_also_while_it_is_open_and_no_byte_of_it_can_change() {
    let directory = tempfile::tempdir().unwrap();
    let log = make(directory.path()).await;
    let (verified, findings) = found(directory.path());
    assert_eq!((verified.messages, verified.damage), (12, 0), "{findings:?}");
    log.purge_topic("a", Sequence::new(2)).await.unwrap();
    log.close().await;
    let (verified, findings) = found(directory.path());
    assert!(verified.segments > 2 && findings.is_empty(), "{verified:?} {findings:?}");
    assert!(files(directory.path()).iter().any(|path| path.ends_with("removed.1")));

    // Each on a copy of its own: a copy of the manifest that is damaged may be being written, and is waited for.
    std::thread::scope(|scope| {
        for share in 0..SHARES {
            let directory = directory.path();
            scope.spawn(move || {
                let copy = tempfile::tempdir().unwrap();
                for path in files(directory) {
                    std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
                }
                for path in files(copy.path()) {
                    change_bytes(&path, share);
                }
            });
        }
    });
}

/// How many threads change bytes of a log.
const SHARES: usize = 24;

/// Flips a bit in each byte of a share of a file of a log. Each change must be noticed.
fn change_bytes(path: &Path, first: usize) {
    let directory = path.parent().unwrap();
    let whole = std::fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let length = match name.split_once(['.', '-']) {
        // Spare files hold nothing.
        Some(("reserve", _)) => 0,
        // What follows the content is reserved.
        Some(("removed", _)) => {
            let length = u64::from_le_bytes(whole[20..28].try_into().unwrap());
            28 + usize::try_from(length).unwrap() + 4
        }
        // A copy of the manifest ends with reserved room, too.
        Some(("manifest", _)) => usize::from(whole[12]) + 256 * usize::from(whole[13]),
        _ => whole.len(),
    };
    for at in share((first..length).step_by(SHARES)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(path, &flipped).unwrap();
        let mut findings = Vec::new();
        let mut is_noticed = || {
            let verified = verify(directory, |finding| findings.push(finding.clone()), |_, _| ());
            let is_damage = |finding: &Finding| finding.fault.is_damage() && finding.path == path;
            verified.is_err() || findings.iter().any(is_damage)
        };
        // The bytes of a removed message may be overwritten at any time: only the trim points say that it is removed.
        let is_noticed = is_noticed() || without_trim_points(directory, is_noticed);
        assert!(is_noticed, "{} byte {at}: {findings:?}", path.display());
    }
    std::fs::write(path, &whole).unwrap();
}

/// Does something while there is no file of trim points.
fn without_trim_points<T>(directory: &Path, mut what: impl FnMut() -> T) -> T {
    let names = ["removed.0", "removed.1"].map(|name| directory.join(name));
    let kept = names.each_ref().map(|name| std::fs::read(name).unwrap());
    for name in &names {
        std::fs::remove_file(name).unwrap();
    }
    let result = what();
    for (name, bytes) in names.iter().zip(kept) {
        std::fs::write(name, bytes).unwrap();
    }
    result
}

#[tokio::test]
async fn damage_is_named_by_its_sequence_and_all_else_is_exported() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await.close().await;
    let path = &files(directory.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    let at = memchr::memmem::find(&bytes, "ü".as_bytes()).unwrap();
    bytes[at + 1] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (verified, findings) = found(directory.path());
    assert_eq!((verified.messages, verified.damage), (11, 1));
    assert_eq!(findings[0].path, *path);
    assert_eq!(findings[0].fault, Fault::Message { sequence: 1, topic: "a".into() });

    let archive = Archive::open(directory.path(), &[]).unwrap();
    let (mut out, mut reported) = (Vec::new(), Vec::new());
    let export = Export::new(&archive, Selection::default());
    assert_eq!(export.write(&mut out, |finding| reported.push(finding.clone())).unwrap(), 11);
    assert_eq!(reported, findings);
    assert_eq!(sequences(std::str::from_utf8(&out).unwrap()), (2..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_that_was_set_aside_is_reported_and_is_not_damage() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await.close().await;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let last = files(directory.path()).into_iter().rfind(is_segment).unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes.extend(b"PBLK and not whole");
    std::fs::write(&last, bytes).unwrap();
    let (_, findings) = found(directory.path());
    assert!(matches!(findings[..], [Finding { fault: Fault::Torn { from: 13 }, .. }]), "{findings:?}");
    let (log, opened) = Log::open(directory.path(), config()).unwrap();
    log.close().await;
    let (verified, findings) = found(directory.path());
    assert_eq!((verified.damage, &findings[0].path), (0, &opened.torn[0].0), "{findings:?}");
    assert_eq!(findings[0].fault, Fault::SetAside { bytes: 18 });
}

#[tokio::test]
async fn an_export_can_be_imported() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = make(old.path()).await;
    log.commit_cursor("billing", position(&log), false).await.unwrap();
    let own = NewMessage { topic: "$countdown.x".into(), ..text("", "state") };
    log.publish_own(own).await.unwrap();
    log.publish(text("a", "last")).await.unwrap();
    log.close().await;
    let all = Selection { has_system: true, ..Selection::default() };
    let lines = exported(old.path(), all.clone(), &[]);
    assert_eq!(sequences(&lines), (1..=15).collect::<Vec<_>>());
    // With a gap, and numbers as other programs write them.
    let lines = lines.replacen("\"sequence\":15", "\"sequence\":\"7000\"", 1);

    let directory = new.path().join("messages");
    let imported = import(&directory, lines.as_bytes(), &config()).unwrap();
    assert_eq!((imported.messages, imported.sequences, imported.consumers), (14, Some((1, 7000)), 1));
    let (verified, findings) = found(&directory);
    assert!(verified.messages == 14 && verified.segments > 2 && findings.is_empty(), "{findings:?}");
    let expected = lines.replace("\"7000\"", "7000");
    let expected =
        expected.lines().filter(|line| !line.contains("$consumer")).map(|line| format!("{line}\n"));
    assert_eq!(exported(&directory, all, &[]), expected.collect::<String>());

    let archive = Archive::open(&directory, &[]).unwrap();
    assert_ne!(archive.log, Archive::open(old.path(), &[]).unwrap().log);
    let again = import(&directory, "".as_bytes(), &config());
    assert!(matches!(again, Err(Error::Occupied { messages: 14, .. })), "{again:?}");
    let (log, opened) = Log::open(&directory, config()).unwrap();
    assert_eq!((opened.messages, opened.damaged.len(), opened.torn.len()), (14, 0, 0));
    assert_eq!(log.publish(text("a", "next")).await.unwrap().sequence, 7001);
    log.close().await;
}

fn position(log: &Log) -> Position {
    let embedded = log.embedded();
    Position { delivered_up_to: 3, ..Position::start(embedded.id()) }
}

#[tokio::test]
async fn only_messages_that_a_reader_would_get_are_exported_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = make(directory.path()).await;
    let brief = NewMessage { ttl: Some(Duration::from_millis(1)), ..text("a", "gone") };
    log.publish(brief).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    log.purge_topic("a", Sequence::new(5)).await.unwrap();
    log.commit_cursor("billing", position(&log), false).await.unwrap();
    let export = |selection| sequences(&exported(directory.path(), selection, &[]));
    assert_eq!(export(Selection::default()), [3, 6, 7, 8, 9, 10, 11, 12]);
    let range = Selection { from: Some(7), until: Some(10), ..Selection::default() };
    assert_eq!(export(range), [7, 8, 9, 10]);
    let of = |pattern: &str| Selection {
        patterns: vec![Pattern::parse(pattern).unwrap()],
        has_system: pattern.starts_with('$'),
        ..Selection::default()
    };
    assert_eq!(export(of("b.*")), [3, 6, 9, 12]);
    assert_eq!(export(of("$consumer.>")), [14]);
    let last = sequences(&exported(directory.path(), Selection::default(), &["b.>=last".parse().unwrap()]));
    assert_eq!(last, [7, 8, 10, 11, 12]);

    let stats = Archive::open(directory.path(), &[]).unwrap().stats(1).unwrap();
    assert_eq!((stats.topics, stats.messages, stats.system_messages), (2, 8, 1));
    assert_eq!((stats.first.unwrap().sequence, stats.last.unwrap().sequence), (3, 14));
    assert_eq!((stats.largest_topics.len(), stats.largest_topics[0].messages), (1, 4));
    let consumer = &stats.consumers[0];
    assert_eq!((consumer.name.as_str(), consumer.sequence, consumer.lag), ("billing", Some(3), Some(10)));
    assert!(stats.create_time.is_some() && stats.message_ids == 3);
    log.close().await;
}

#[test]
fn wrong_lines_are_named_by_number_and_nothing_is_imported() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("messages");
    let line = |sequence: u64, topic: &str, second: u32| {
        format!(
            "{{\"sequence\":{sequence},\"topic\":\"{topic}\",\"publishTime\":\"2026-11-23T03:36:{second:02}Z\",\
             \"text\":\"x\"}}\n"
        )
    };
    let good = line(1, "a", 0);
    for (wrong, fault) in [
        ("{\n".to_owned(), "EOF"),
        ("{\"gap\":{}}\n".to_owned(), "a gap, and not a message"),
        ("{\"sequence\":2,\"text\":\"\"}\n".to_owned(), "`topic` is missing"),
        (line(2, "a", 0).replace("\"text\"", "\"ttl\":\"1s\",\"text\""), "for publishing"),
        (line(1, "a", 0), "sequences rise"),
        (line(2, "a b", 0), "the topic contains ' '"),
        (line(2, "a.*", 0), "wildcard"),
        (line(0, "a", 0), "1 or more"),
        (line(2, "a", 0).replace("\"text\"", "\"data\""), "not base64"),
        (line(2, "a", 0).replace("\"text\"", "\"data\":\"\",\"text\""), "either"),
        (line(2, "a", 0).replace("\"x\"", &format!("\"{}\"", "x".repeat(2 << 20))), "at most"),
    ] {
        let error = import(&log, format!("{good}\n{wrong}").as_bytes(), &config()).unwrap_err().to_string();
        assert!(error.contains("line 3: ") && error.contains(fault), "{fault}: {error:.200}");
        assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
    }
    let error = import(&log, "x\n".repeat(15).as_bytes(), &config()).unwrap_err().to_string();
    assert!(error.ends_with("and 5 more"), "{error}");
    let empty = import(&log, "".as_bytes(), &config()).unwrap();
    assert_eq!(empty.messages, 0);
    assert_eq!(found(&log).0.damage, 0);
    let earlier = line(2, "a", 0).replace("03:36", "03:35");
    let imported = import(&log, format!("{good}{earlier}").as_bytes(), &config()).unwrap();
    assert_eq!((imported.messages, found(&log).0.damage), (2, 0), "the clock was set back");
}
