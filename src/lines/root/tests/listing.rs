//! Which files are listed, in which order, and with which facts.

use std::{ffi::OsStr, time::Duration};

use super::*;

#[test]
fn a_listed_file_tells_its_size_its_times_and_whether_it_grows() {
    let house = House::new();
    house.write("old.log", "12345");
    let old = SystemTime::now() - Duration::from_secs(61);
    File::options().write(true).open(house.path("old.log")).unwrap().set_modified(old).unwrap();
    let files = list(&house.roots(RootRules::default()), None, 9, None).unwrap().files;
    let [app, old_log] = &files[..] else { panic!("{files:?}") };
    assert!(app.growing && app.size == 4 && app.path == "r/app.log");
    assert!(!old_log.growing && old_log.size == 5 && old_log.modified == old);
    let made = fs::metadata(house.path("old.log")).unwrap().created().ok();
    assert_eq!(old_log.created, made);
}

#[test]
fn names_that_are_not_utf8_are_left_out_and_names_with_newlines_can_be_read() {
    let house = House::new();
    fs::write(house.root().join(OsStr::from_bytes(b"bad\xff.log")), "x").unwrap();
    house.write("a\nb.log", "newline");
    house.write(" ", "space");
    let roots = house.roots(RootRules::default());
    assert_eq!(listed(&roots), ["r/ ", "r/a\nb.log", "r/app.log"]);
    assert_eq!(read(&roots, "r/a\nb.log").unwrap(), "newline");
    assert_eq!(read(&roots, "r/ ").unwrap(), "space");
}

#[test]
fn all_that_is_listed_can_be_read_and_links_to_directories_are_not_followed() {
    let house = House::new();
    house.write("a/b/c.log", "x");
    house.link("a/b/up", "../..");
    house.link("dir", "a");
    house.link("to_file", "a/b/c.log");
    house.link("a/up", "../app.log");
    house.link("dangling", "none");
    house.link("outside", "../secret.txt");
    let roots = house.roots(RootRules::default());
    assert_eq!(listed(&roots), ["r/a/b/c.log", "r/a/up", "r/app.log", "r/to_file"]);
    for path in listed(&roots) {
        read(&roots, &path).unwrap();
    }
    // A caller that names the link gets the files below it.
    let page = list(&roots, Some("r/dir"), 9, None).unwrap();
    assert_eq!(page.files.iter().map(|file| &file.path).collect::<Vec<_>>(), ["r/dir/b/c.log", "r/dir/up"]);
}

#[test]
fn pages_of_any_size_give_each_file_once_in_the_order_of_the_paths() {
    let house = House::new();
    let other = House::new();
    // `-` and `.` come before `/`, letters after it.
    let names = ["a/1", "a/2/3", "a-b", "a.log", "a-c/1", "ab", "b/1", "b0", "z/z/z/z"];
    for name in names {
        house.write(name, "x");
        other.write(name, "x");
    }
    let roots = Roots::open(vec![Root::new("r", house.root()), Root::new("r-2", other.root())]).unwrap();
    let all = listed(&roots);
    assert!(all.is_sorted() && all.len() == 2 * names.len() + 2, "{all:?}");
    for most in 1..=all.len() {
        let (mut paths, mut after) = (Vec::new(), None);
        loop {
            let page = list(&roots, None, most, after.as_deref()).unwrap();
            assert!(page.files.len() <= most);
            paths.extend(page.files.into_iter().map(|file| file.path));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paths, all, "{most}");
    }
}

#[test]
fn a_directory_with_more_names_than_are_held_at_once_is_listed_whole_though_most_are_no_files() {
    let house = House::new();
    for n in 0..10_000 {
        house.link(&format!("{n:05}"), if n % 2_500 == 0 { "app.log" } else { "none" });
    }
    let roots = house.roots(RootRules::default());
    assert_eq!(listed(&roots), ["r/00000", "r/02500", "r/05000", "r/07500", "r/app.log"]);
    let page = list(&roots, None, 2, Some("r/00000")).unwrap();
    assert_eq!(page.next.as_deref(), Some("r/05000"));
}

#[test]
fn a_directory_of_which_nothing_can_be_shown_is_not_read() {
    let house = House::new();
    for path in ["shown/a.log", "shown/deep/b.log", "hidden/deep/c.log"] {
        house.write(path, "x");
    }
    let roots = house.roots(RootRules::default());
    let ask = |path: Option<&str>| {
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let of_files = asked.clone();
        let shows = list::Shows {
            file: Box::new(move |path| {
                of_files.lock().unwrap().push(path.to_owned());
                true
            }),
            below: Box::new(|path| "r/shown/".starts_with(path) || path.starts_with("r/shown")),
        };
        let gone = tokio_util::sync::CancellationToken::new();
        let range = list::Range { most: 99, after: None, now: SystemTime::now(), gone, shows };
        let listed = roots.list(path, range);
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        (listed.map(|page| page.files.len()), asked)
    };
    let (listed, asked) = ask(None);
    assert_eq!(listed.unwrap(), 3);
    // The names in a directory are asked for when it is read.
    assert!(!asked.is_empty() && !asked.iter().any(|path| path.starts_with("r/hidden/")), "{asked:?}");
    for path in ["r/hidden", "r/hidden/deep", "r/none"] {
        let (listed, asked) = ask(Some(path));
        assert!(matches!(listed, Err(Error::NotFound { .. })) && asked.is_empty(), "{path}: {asked:?}");
    }
    assert_eq!(ask(Some("r/shown/deep")).0.unwrap(), 1);
}

#[test]
fn a_list_whose_caller_is_gone_ends() {
    let house = House::new();
    let gone = tokio_util::sync::CancellationToken::new();
    gone.cancel();
    let range =
        list::Range { most: 9, after: None, now: SystemTime::now(), gone, shows: list::Shows::default() };
    assert!(house.roots(RootRules::default()).list(None, range).unwrap().files.is_empty());
}

#[test]
fn a_list_is_not_short_for_want_of_descriptors() {
    let listed_after = |error: Errno| list::vanished::<Vec<()>>(Err(error.into()), "r/app.log");
    for servers_own in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO] {
        assert!(matches!(listed_after(servers_own), Err(Error::Io(_))), "{servers_own}");
    }
    for files_own in [Errno::NOENT, Errno::ACCESS, Errno::LOOP, Errno::XDEV, Errno::NOTDIR] {
        assert!(listed_after(files_own).is_ok(), "{files_own}");
    }
}

/// Root may read anything, so there is nothing to see.
#[test]
fn what_may_not_be_read_is_not_listed() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    house.write("closed.log", "x");
    house.write("closed/a.log", "x");
    for path in ["closed.log", "closed"] {
        fs::set_permissions(house.path(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if !rustix::process::geteuid().is_root() {
        let roots = house.roots(RootRules::default());
        assert_eq!(listed(&roots), ["r/app.log"]);
        assert_missing(&roots, "r/closed.log");
        assert_missing(&roots, "r/closed/a.log");
    }
    fs::set_permissions(house.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}
