#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
};

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
fn saved_cursors_are_read_back() {
    let directory = directory();
    let path = directory.path().join("place");
    let asked = paths(&["logs/a b.log", "logs/ü.log", "logs/new.log"]);
    let (mut file, entries) = CursorFile::open(&path, &asked, false).unwrap();
    assert_eq!(entries, []);
    file.save([("logs/a b.log", "C1"), ("logs/ü.log", "C2")].into_iter()).unwrap();
    drop(file);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "perennial cursor 2 lines\nC1 logs/a b.log\nC2 logs/ü.log\nend\n"
    );
    let (_file, entries) = CursorFile::open(&path, &asked, false).unwrap();
    assert_eq!(entries, [entry("logs/a b.log", "C1"), entry("logs/ü.log", "C2")]);
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_file_is_replaced_and_never_changed() {
    let directory = directory();
    let path = directory.path().join("place");
    let (mut file, _) = CursorFile::open(&path, &paths(&["a/b"]), false).unwrap();
    file.save([("a/b", "C1")].into_iter()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut before = File::open(&path).unwrap();
    // As a killed run leaves it.
    fs::write(directory.path().join(".place.perennial-new"), "perennial cur").unwrap();
    file.save([("a/b", "C2")].into_iter()).unwrap();
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "perennial cursor 2 lines\nC1 a/b\nend\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "perennial cursor 2 lines\nC2 a/b\nend\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_symbolic_link_stays_one() {
    let directory = directory();
    let (path, link) = (directory.path().join("place"), directory.path().join("link"));
    drop(CursorFile::open(&path, &paths(&["a/b"]), false).unwrap());
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (mut file, _) = CursorFile::open(&link, &paths(&["a/b"]), false).unwrap();
    file.save([("a/b", "C")].into_iter()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&path).unwrap().contains("C a/b"));
}

/// The error for a file with this content, which must stay as it is.
fn refused(content: impl AsRef<[u8]>, wanted: &[&str]) -> Error {
    let directory = directory();
    let path = directory.path().join("place");
    fs::write(&path, &content).unwrap();
    let error = CursorFile::open(&path, &paths(wanted), false).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), content.as_ref());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    error
}

#[test]
fn an_empty_file_is_an_error_and_no_fresh_start() {
    for content in ["", "\n", " \n\n"] {
        let error = refused(content, &["a/b"]);
        assert!(matches!(error, Error::Empty(_)), "{content:?}: {error}");
        assert!(error.to_string().contains("is empty") && error.to_string().contains("delete it"), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    for whole in ["perennial cursor 2 lines\nC a/b\nD a/b c\nend\n", "perennial cursor 2 lines\nend\n"] {
        // Without its last line break it is still whole.
        for end in 1..whole.len() - 1 {
            let error = refused(&whole[..end], &["a/b", "a/b c", "a/b "]);
            assert!(matches!(error, Error::Truncated(_)), "{end}: {error}");
        }
    }
    for cut in ["perennial cursor 1 lines\nC a/b", "perennial cursor 1 lines", "perennial cursor 1 lines\nC"]
    {
        let error = refused(cut, &["a/b"]);
        assert!(matches!(error, Error::Truncated(_)), "{cut}: {error}");
    }
}

#[test]
fn a_file_of_the_version_before_is_read_and_one_that_an_editor_saved() {
    for content in [
        "perennial cursor 1 lines\nC a/b\n",
        "perennial cursor 2 lines\nC a/b\nend\n",
        "perennial cursor 2 lines\nC a/b\nend",
        "perennial cursor 2 lines\nC a/b\nend\n\n  \n",
    ] {
        let directory = directory();
        let path = directory.path().join("place");
        fs::write(&path, content).unwrap();
        let (_file, entries) = CursorFile::open(&path, &paths(&["a/b"]), false).unwrap();
        assert_eq!(entries, [entry("a/b", "C")], "{content:?}");
    }
}

#[test]
fn a_file_that_holds_something_else_is_an_error() {
    for content in
        [&b"buy milk\n"[..], b"\xff\xfe", b"CURSOR", b"perennial\n", b"\nperennial cursor 2 lines\nend\n"]
    {
        let error = refused(content, &["a/b"]);
        assert!(matches!(error, Error::Foreign(_)), "{error}");
    }
    for content in ["perennial cursor 3 lines\nC a/b\nend\n", "perennial cursor 2 messages\nC a\nend\n"] {
        let error = refused(content, &["a/b"]);
        assert!(matches!(error, Error::OtherVersion { .. }), "{error}");
    }
    let error = refused(vec![b'x'; usize::try_from(MAX_BYTES).unwrap() + 1], &["a/b"]);
    assert!(matches!(error, Error::Foreign(_)), "{error}");
}

#[test]
fn a_line_that_is_damaged_or_comes_twice_is_an_error() {
    for (content, line) in [
        ("perennial cursor 2 lines\nC a/b\nC\nend\n", 3),
        ("perennial cursor 2 lines\n a/b\nend\n", 2),
        ("perennial cursor 2 lines\nC a/b\r\nend\n", 2),
        ("perennial cursor 1 lines\nC a/b\nC\n", 3),
    ] {
        let error = refused(content, &["a/b"]);
        assert!(matches!(error, Error::Damaged { line: found, .. } if found == line), "{content:?}: {error}");
    }
    let error = refused("perennial cursor 2 lines\nC a/b\nD a/b\nend\n", &["a/b"]);
    assert!(matches!(&error, Error::Twice { path, .. } if path == "a/b"), "{error}");
    // Two files in one, as `cat` makes them.
    let one = "perennial cursor 2 lines\nC a/b\nend\n";
    let error = refused(format!("{one}{one}"), &["a/b"]);
    assert!(
        matches!(error, Error::Damaged { .. } | Error::Twice { .. } | Error::OtherPath { .. }),
        "{error}"
    );
}

#[test]
fn something_that_is_no_regular_file_is_an_error() {
    let directory = directory();
    let error = CursorFile::open(directory.path(), &paths(&["a/b"]), false).unwrap_err();
    assert!(matches!(error, Error::NotAFile { what: "a directory", .. }), "{error}");
    let error = CursorFile::open(Path::new("/dev/null"), &paths(&["a/b"]), false).unwrap_err();
    assert!(matches!(error, Error::NotAFile { what: "not a regular file", .. }), "{error}");
    let error = CursorFile::open(&directory.path().join("no/place"), &paths(&["a/b"]), false).unwrap_err();
    assert!(matches!(error, Error::Io { what: "created", .. }), "{error}");
}

#[test]
fn a_file_that_cannot_be_replaced_is_an_error_at_once_and_keeps_its_cursors() {
    let directory = directory();
    let path = directory.path().join("place");
    let content = "perennial cursor 2 lines\nC a/b\nend\n";
    fs::write(&path, content).unwrap();
    // No file can be created where there is a directory.
    fs::create_dir(directory.path().join(".place.perennial-new")).unwrap();
    let error = CursorFile::open(&path, &paths(&["a/b"]), false).unwrap_err();
    assert!(matches!(error, Error::Io { what: "written", .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[test]
fn the_cursor_of_another_path_is_not_thrown_away() {
    let directory = directory();
    let path = directory.path().join("place");
    let kept = "perennial cursor 2 lines\nC a/b\nend\n";
    fs::write(&path, kept).unwrap();
    let error = CursorFile::open(&path, &paths(&["c/d"]), false).unwrap_err();
    assert!(matches!(&error, Error::OtherPath { path, .. } if path == "a/b"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    let (_file, entries) = CursorFile::open(&path, &paths(&["c/d", "a/b"]), false).unwrap();
    assert_eq!(entries, [entry("a/b", "C")]);
    let error = CursorFile::open(&directory.path().join("new"), &paths(&["a\nb"]), false).unwrap_err();
    assert!(matches!(error, Error::Path(_)), "{error}");
}

#[test]
fn one_process_has_the_file_at_a_time() {
    let directory = directory();
    let path = directory.path().join("place");
    let asked = paths(&["a/b"]);
    let (mut file, _) = CursorFile::open(&path, &asked, false).unwrap();
    for cursor in ["C1", "C2"] {
        let error = CursorFile::open(&path, &asked, false).unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error}");
        // The lock goes over to the file that replaces it.
        file.save([("a/b", cursor)].into_iter()).unwrap();
    }
    drop(file);
    assert!(CursorFile::open(&path, &asked, false).is_ok());
}

#[test]
fn a_symbolic_link_stays_one_even_if_its_target_does_not_exist_yet() {
    let directory = directory();
    let (path, target) = (directory.path().join("link"), directory.path().join("place"));
    std::os::unix::fs::symlink("place", &path).unwrap();
    CursorFile::open(&path, &paths(&["a/b"]), false).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().starts_with(HEADER));
}
