#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn paths(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn entry(path: &str, cursor: &str) -> Entry {
    (path.to_owned(), cursor.to_owned())
}

#[test]
fn what_is_saved_is_read_back() {
    let directory = directory();
    let path = directory.path().join("place");
    let asked = paths(&["logs/a b.log", "logs/ü.log", "logs/new.log"]);
    let (mut file, entries) = CursorFile::open(&path, &asked).unwrap();
    assert_eq!(entries, []);
    file.save([("logs/a b.log", "C1"), ("logs/ü.log", "C2")].into_iter()).unwrap();
    drop(file);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "perennial cursor 1 lines\nC1 logs/a b.log\nC2 logs/ü.log\n"
    );
    let (_file, entries) = CursorFile::open(&path, &asked).unwrap();
    assert_eq!(entries, [entry("logs/a b.log", "C1"), entry("logs/ü.log", "C2")]);
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_file_is_replaced_and_never_changed() {
    let directory = directory();
    let path = directory.path().join("place");
    let (mut file, _) = CursorFile::open(&path, &paths(&["a/b"])).unwrap();
    file.save([("a/b", "C1")].into_iter()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut before = File::open(&path).unwrap();
    // As a killed run leaves it.
    fs::write(directory.path().join(".place.perennial-new"), "perennial cur").unwrap();
    file.save([("a/b", "C2")].into_iter()).unwrap();
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "perennial cursor 1 lines\nC1 a/b\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "perennial cursor 1 lines\nC2 a/b\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_link_stays_one() {
    let directory = directory();
    let (path, link) = (directory.path().join("place"), directory.path().join("link"));
    fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (mut file, _) = CursorFile::open(&link, &paths(&["a/b"])).unwrap();
    file.save([("a/b", "C")].into_iter()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&path).unwrap().contains("C a/b"));
}

#[test]
fn what_is_somebody_elses_is_left_as_it_is() {
    let directory = directory();
    let path = directory.path().join("notes");
    for content in [&b"buy milk\n"[..], b"\xff\xfe", b"perennial cursor 2 lines\nC a/b\n", b"\n"] {
        fs::write(&path, content).unwrap();
        let error = CursorFile::open(&path, &paths(&["a/b"])).unwrap_err();
        assert!(matches!(error, Error::Foreign(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let error = CursorFile::open(directory.path(), &paths(&["a/b"])).unwrap_err();
    assert!(matches!(error, Error::Foreign(_)), "{error}");
    let error = CursorFile::open(&directory.path().join("no/place"), &paths(&["a/b"])).unwrap_err();
    assert!(matches!(error, Error::Io { what: "opened", .. }), "{error}");
    fs::write(&path, "perennial cursor 1 lines\nC a/b\nC\n").unwrap();
    let error = CursorFile::open(&path, &paths(&["a/b"])).unwrap_err();
    assert!(matches!(error, Error::Damaged { line: 3, .. }), "{error}");
}

#[test]
fn the_place_in_another_file_is_not_thrown_away() {
    let directory = directory();
    let path = directory.path().join("place");
    let kept = "perennial cursor 1 lines\nC a/b\n";
    fs::write(&path, kept).unwrap();
    let error = CursorFile::open(&path, &paths(&["c/d"])).unwrap_err();
    assert!(matches!(&error, Error::OtherPath { path, .. } if path == "a/b"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    let (_file, entries) = CursorFile::open(&path, &paths(&["c/d", "a/b"])).unwrap();
    assert_eq!(entries, [entry("a/b", "C")]);
    let error = CursorFile::open(&directory.path().join("new"), &paths(&["a\nb"])).unwrap_err();
    assert!(matches!(error, Error::Path(_)), "{error}");
}

#[test]
fn only_one_has_it_at_a_time() {
    let directory = directory();
    let path = directory.path().join("place");
    let asked = paths(&["a/b"]);
    let (mut file, _) = CursorFile::open(&path, &asked).unwrap();
    for cursor in ["C1", "C2"] {
        let error = CursorFile::open(&path, &asked).unwrap_err();
        assert!(matches!(error, Error::Taken(_)), "{error}");
        // The lock goes over to the file that replaces it.
        file.save([("a/b", cursor)].into_iter()).unwrap();
    }
    drop(file);
    assert!(CursorFile::open(&path, &asked).is_ok());
}

#[test]
fn a_link_stays_one_though_there_is_nothing_yet_where_it_leads() {
    let directory = directory();
    let (path, target) = (directory.path().join("link"), directory.path().join("place"));
    std::os::unix::fs::symlink("place", &path).unwrap();
    CursorFile::open(&path, &paths(&["a/b"])).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().starts_with(HEADER));
}
