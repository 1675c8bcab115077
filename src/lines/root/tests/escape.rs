//! Every way out of a root, and every kind of entry that is not a file.

use std::os::{fd::AsRawFd, unix::net::UnixListener};

use proptest::prelude::*;
use rustix::fs::{CWD, makedev, mkfifoat, mknodat};

use super::*;

#[test]
fn a_path_with_dots_empty_parts_or_a_nul_is_invalid_wherever_it_leads() {
    let house = House::new();
    let roots = house.roots(RootRules::default());
    let long = format!("r/{}", "a".repeat(MAX_PATH_BYTES));
    for path in [
        "",
        "r",
        "r/",
        "/",
        "//",
        "/etc/passwd",
        "r//app.log",
        "/r/app.log",
        "r/app.log/",
        "r/../secret.txt",
        "r/..",
        "r/.",
        "r/./app.log",
        "r/a/../../secret.txt",
        "../root/app.log",
        "r/app.log\0",
        "r/\0",
        &long,
    ] {
        assert!(matches!(read(&roots, path), Err(Error::PathInvalid { .. })), "{path:?}");
    }
    for path in ["r/..", "r/../..", ".", "..", "r/", "/", "r//", "r/\0", &long] {
        assert!(matches!(list(&roots, Some(path), 9, None), Err(Error::PathInvalid { .. })), "{path:?}");
    }
}

#[test]
fn a_name_that_is_too_long_for_the_file_system_is_not_there() {
    let house = House::new();
    let roots = house.roots(RootRules::default());
    assert_missing(&roots, &format!("r/{}", "a".repeat(256)));
    assert_missing(&roots, &format!("r/{}/a", "a".repeat(256)));
    assert_missing(&roots, &format!("r/{}a", "a/".repeat(2000)));
}

#[test]
fn a_tree_that_is_deeper_than_any_log_directory_takes_no_more_descriptors_than_64() {
    let house = House::new();
    let deep = "d/".repeat(64);
    house.write(&format!("{deep}a.log"), "deep");
    house.write(&format!("{deep}d/a.log"), "deeper");
    let roots = house.roots(RootRules::default());
    assert_eq!(read(&roots, &format!("r/{deep}a.log")).unwrap(), "deep");
    assert_missing(&roots, &format!("r/{deep}d/a.log"));
    assert_eq!(listed(&roots), ["r/app.log".into(), format!("r/{deep}a.log")]);
    let page = list(&roots, Some(&format!("r/{deep}d")), 9, None);
    assert!(matches!(page, Err(Error::NotFound { .. })));
}

#[test]
fn a_name_that_is_a_path_opens_nothing_in_a_directory() {
    let house = House::new();
    house.write("dir/a.log", "good");
    let roots = house.roots(RootRules::default());
    let parent = roots.parent(&FilePath::parse("r/dir/a.log").unwrap()).unwrap();
    assert!(parent.open("a.log").is_ok());
    for name in ["", ".", "..", "/", "../app.log", "./a.log", "a.log/", "a.log/.", "/etc/passwd", "a.log\0"] {
        assert!(parent.open(name).is_err(), "{name:?}");
    }
}

#[test]
fn every_link_out_of_a_root_leads_to_nothing() {
    let house = House::new();
    let secret = house.directory.path().join("secret.txt");
    house.link("absolute", &secret);
    house.link("up", "../secret.txt");
    house.link("far/up", "../../secret.txt");
    house.link("high", "../../../../../../../../etc/passwd");
    house.link("chain1", "chain2");
    house.link("chain2", "far/../chain3");
    house.link("chain3", "../secret.txt");
    house.link("parent", "..");
    house.link("slash", "/");
    house.link("out_and_back", "../root/app.log");
    house.link("through", "parent/secret.txt");
    let roots = house.roots(RootRules { absolute_links: true, ..RootRules::default() });
    for path in [
        "absolute",
        "up",
        "far/up",
        "high",
        "chain1",
        "parent/secret.txt",
        "slash/etc/passwd",
        "through",
        "out_and_back",
        "parent/root/app.log",
        "app.log/app.log",
        "none",
        "none/none",
    ] {
        assert_missing(&roots, &format!("r/{path}"));
    }
    assert_missing(&roots, "none/app.log");
    assert!(matches!(list(&roots, Some("r/parent"), 9, None), Err(Error::NotFound { .. })));
    assert!(matches!(list(&roots, Some("r/slash/etc"), 9, None), Err(Error::NotFound { .. })));
    assert_eq!(listed(&roots), ["r/app.log"]);
}

#[test]
fn links_that_stay_in_the_root_lead_where_they_say() {
    let house = House::new();
    house.write("a/b/deep.log", "deep");
    house.link("dir", "a/b");
    house.link("a/up", "../app.log");
    house.link("a/b/self", "../../a/./b//deep.log");
    house.link("chain", "dir/self");
    let roots = house.roots(RootRules::default());
    for (path, text) in [
        ("r/dir/deep.log", "deep"),
        ("r/a/up", "good"),
        ("r/a/b/self", "deep"),
        ("r/dir/self", "deep"),
        ("r/chain", "deep"),
    ] {
        assert_eq!(read(&roots, path).unwrap(), text, "{path}");
    }
}

#[test]
fn links_in_circles_and_chains_longer_than_forty_lead_to_nothing() {
    let house = House::new();
    house.link("one", "two");
    house.link("two", "one");
    house.link("self", "self");
    house.link("a/circle", "../a");
    house.link("0", "app.log");
    for n in 1..=40 {
        house.link(&n.to_string(), (n - 1).to_string());
    }
    let roots = house.roots(RootRules::default());
    for path in ["r/one", "r/two/x", "r/self", "r/a/circle", "r/40"] {
        assert_missing(&roots, path);
    }
    assert_eq!(read(&roots, "r/39").unwrap(), "good");
    assert_missing(&roots, &format!("r/a{}/app.log", "/circle".repeat(50)));
}

#[test]
fn the_magic_links_of_proc_are_links_like_any_other() {
    let house = House::new();
    house.link("magic", "/proc/self/root");
    let open = File::open(house.directory.path().join("secret.txt")).unwrap();
    let descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
    house.link("descriptor", descriptor);
    let process = Root::new("p", "/proc/self");
    let processes =
        Root { rules: RootRules { absolute_links: true, ..RootRules::default() }, ..Root::new("q", "/proc") };
    let root = Root {
        rules: RootRules { absolute_links: true, ..RootRules::default() },
        ..Root::new("r", house.root())
    };
    let roots = Roots::open(vec![process, processes, root]).unwrap();
    for path in [
        "r/magic/etc/passwd",
        "r/descriptor",
        "p/root/etc/passwd",
        "p/cwd/Cargo.toml",
        "p/exe",
        "q/self/root/etc/passwd",
        &format!("p/fd/{}", open.as_raw_fd()),
        &format!("q/self/fd/{}", open.as_raw_fd()),
    ] {
        assert_missing(&roots, path);
    }
    assert!(read(&roots, "p/status").unwrap().contains("Name:"));
}

#[test]
fn other_than_regular_files_are_missing_and_do_not_block() {
    let house = House::new();
    fs::create_dir(house.path("directory")).unwrap();
    mkfifoat(CWD, house.path("fifo"), Mode::RWXU).unwrap();
    house.link("to_fifo", "fifo");
    house.link("zero", "/dev/zero");
    let _socket = UnixListener::bind(house.path("socket")).unwrap();
    // Only root may make one.
    let device = mknodat(CWD, house.path("device"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 5));
    let devices = Root::new("dev", "/dev");
    let roots = Roots::open(vec![Root::new("r", house.root()), devices]).unwrap();
    for path in
        ["r/directory", "r/fifo", "r/to_fifo", "r/zero", "r/socket", "dev/zero", "dev/tty", "dev/ptmx"]
    {
        assert_missing(&roots, path);
    }
    if device.is_ok() {
        assert_missing(&roots, "r/device");
    }
    let page = list(&roots, Some("r"), 9, None).unwrap();
    assert_eq!(page.files.iter().map(|file| &file.path).collect::<Vec<_>>(), ["r/app.log"]);
}

#[test]
fn a_writer_that_waits_at_a_fifo_is_not_woken() {
    let house = House::new();
    mkfifoat(CWD, house.path("fifo"), Mode::RWXU).unwrap();
    let roots = house.roots(RootRules::default());
    let path = house.path("fifo");
    let (sender, woken) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(());
        let _ = File::options().write(true).open(path);
        let _ = sender.send(());
    });
    woken.recv().unwrap();
    for _ in 0..100 {
        assert_missing(&roots, "r/fifo");
        assert_eq!(listed(&roots), ["r/app.log"]);
    }
    assert!(woken.try_recv().is_err());
    // Lets it go.
    let _reader = File::open(house.path("fifo")).unwrap();
    woken.recv().unwrap();
}

#[test]
fn a_root_may_be_a_link_or_lie_in_another_root() {
    let house = House::new();
    house.write("inner/a.log", "inner");
    house.link("../link", "root");
    let outer = Root { rules: deny(&["inner"]), ..Root::new("outer", house.directory.path().join("link")) };
    let roots = Roots::open(vec![outer, Root::new("inner", house.path("inner"))]).unwrap();
    assert_eq!(read(&roots, "outer/app.log").unwrap(), "good");
    assert_missing(&roots, "outer/inner/a.log");
    assert_eq!(read(&roots, "inner/a.log").unwrap(), "inner");
}

#[test]
fn a_root_that_is_renamed_is_still_served_and_one_that_is_removed_is_empty() {
    let house = House::new();
    let roots = house.roots(RootRules::default());
    let renamed = house.directory.path().join("renamed");
    fs::rename(house.root(), &renamed).unwrap();
    symlink("/etc", house.root()).unwrap();
    assert_eq!(read(&roots, "r/app.log").unwrap(), "good");
    assert_missing(&roots, "r/passwd");
    fs::remove_dir_all(renamed).unwrap();
    assert_missing(&roots, "r/app.log");
    assert_missing(&roots, "r/passwd");
    assert!(listed(&roots).is_empty());
}

#[test]
fn a_root_that_is_no_directory_is_an_error_when_the_server_starts() {
    let house = House::new();
    for (name, path) in [("r", house.path("app.log")), ("r", house.path("none"))] {
        let error = Roots::open(vec![Root::new(name, &path)]).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let twice = vec![Root::new("r", house.root()), Root::new("r", house.root())];
    assert!(matches!(Roots::open(twice), Err(RootError::Twice { .. })));
    assert!(matches!(Roots::open(vec![Root::new("a/b", house.root())]), Err(RootError::Name { .. })));
}

proptest! {
    #[test]
    fn a_path_that_parses_prints_the_same_and_has_no_part_that_could_lead_elsewhere(
        path in "([a-z./\\PC\0]|\\.\\.|/){0,24}",
    ) {
        if let Ok(parsed) = FilePath::parse(&path) {
            prop_assert_eq!(parsed.to_string(), path.clone());
            prop_assert!(path.split('/').count() >= 2);
            prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            prop_assert!(!path.contains('\0'));
            prop_assert!(!parsed.name.contains('/'));
            prop_assert!(parsed.directory.is_relative());
        }
    }

    #[test]
    fn a_path_of_plain_parts_parses(parts in proptest::collection::vec("[a-z\n ][a-z.\n ]{0,8}", 2..6)) {
        let path = parts.join("/");
        prop_assert_eq!(FilePath::parse(&path).unwrap().to_string(), path);
    }
}
