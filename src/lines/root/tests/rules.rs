//! What the operator allows and denies, and what links make of it.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_glob_holds_at_any_depth_from_the_root_on_or_for_all_below() {
    for (glob, holding, others) in [
        (
            "*.log",
            &["a.log", "x/a.log", "x/y/.log", "a.log/b"][..],
            &["a.logs", "a.log.1", "log", "A.LOG"][..],
        ),
        ("/*.log", &["a.log", "a.log/b"], &["x/a.log"]),
        ("nginx/*.log", &["nginx/a.log"], &["a.log", "nginx/x/a.log", "x/nginx/a.log"]),
        ("nginx", &["nginx/a", "nginx/x/a", "x/nginx/a", "nginx"], &["nginx2/a"]),
        ("nginx/", &["nginx/a", "nginx/x/a"], &["nginx2/a"]),
        ("app/**", &["app/a", "app/x/y"], &["x/app/a", "apps"]),
        ("**/tmp/*.txt", &["tmp/a.txt", "x/tmp/a.txt"], &["tmp/x/a.txt"]),
        ("**", &["a", "x/y"], &[]),
        ("[ab]?.{log,txt}", &["ax.log", "by.txt", "x/by.txt"], &["cx.log", "a/.log"]),
        ("a\\*", &["a*"], &["ab"]),
        ("*", &["a", "x/a", "a\nb", "ü"], &[]),
    ] {
        let ready = Globs::new(&allow(&[glob])).unwrap();
        for path in holding {
            assert!(ready.allow(Path::new(path)), "{glob} {path}");
        }
        for path in others {
            assert!(!ready.allow(Path::new(path)), "{glob} {path}");
        }
    }
}

#[test]
fn a_glob_reaches_the_directories_that_can_hold_what_it_matches_and_few_others() {
    let paths = |glob: &str| rule::Paths::new(&globs(&[glob])).unwrap();
    for (glob, reached, others) in [
        (
            "nginx/*.log",
            &["", "nginx", "nginx/a.log", "nginx/a.log/x"][..],
            &["app", "nginx/x", "x/nginx"][..],
        ),
        ("/*.log", &["", "a.log"], &["x"]),
        ("a/*/c/d", &["", "a", "a/b", "a/b/c", "a/b/c/d/e"], &["b", "a/b/d", "a/b/c/x"]),
        ("app/**/x.log", &["", "app", "app/y", "app/y/z"], &["apps", "y/app"]),
        ("*.log", &["", "x", "x/y"], &[]),
        ("{a/b,c}/d", &["", "a", "a/b", "c"], &[]),
        ("x/{a/b,c}/d", &["", "x", "x/a"], &["y"]),
        ("x/[ab]/d", &["x/a"], &["x/c"]),
    ] {
        let paths = paths(glob);
        assert!(reached.iter().all(|path| paths.reach(Path::new(path))), "{glob}");
        assert!(!others.iter().any(|path| paths.reach(Path::new(path))), "{glob}");
    }
    // Every directory on the way to a path that a glob holds for.
    let parts = ["a", "b", "*", "?", "**", "[ab]", "{a,b}", "{a/b,b}", "a*", "/"];
    for _ in 0..1_500 {
        let glob = (0..fastrand::usize(1..5)).map(|_| fastrand::choice(parts).unwrap());
        let glob = glob.collect::<Vec<_>>().join(fastrand::choice(["/", "/", ""]).unwrap());
        let Ok(parsed) = glob.parse::<rule::Glob>() else { continue };
        let paths = rule::Paths::new([&parsed]).unwrap();
        let path = (0..fastrand::usize(1..6)).map(|_| fastrand::choice(["a", "b", "ab"]).unwrap());
        let path = path.collect::<Vec<_>>().join("/");
        if paths.hold(Path::new(&path)) {
            let above = Path::new(&path).ancestors();
            assert!(above.clone().all(|directory| paths.reach(directory)), "{glob} {path}");
        }
    }
}

#[test]
fn an_error_of_a_text_that_is_no_glob_says_what_is_wrong_and_what_would_work() {
    for glob in ["", "/", "//", "a//b", "../a", "a/..", "./a", "[a", "{a", "a{b,{c", "a\\"] {
        let error = glob.parse::<rule::Glob>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{glob}` is no glob: ")) && error.contains("*.log"), "{error}");
    }
}

#[test]
fn denying_wins_over_allowing_and_ignores_case() {
    let house = House::new();
    house.write("secrets/a.log", "x");
    house.write("b.KEY", "x");
    house.write("b.txt", "x");
    house.write("x/y/b.log", "fine");
    let rules = RootRules { allow: globs(&["*.log", "*.KEY"]), ..deny(&["secrets", "*.key"]) };
    let roots = house.roots(rules);
    assert_eq!(listed(&roots), ["r/app.log", "r/x/y/b.log"]);
    assert_eq!(read(&roots, "r/x/y/b.log").unwrap(), "fine");
    for path in ["r/secrets/a.log", "r/b.KEY", "r/b.txt", "r/none.log", "r/none.key"] {
        assert_missing(&roots, path);
    }
    assert!(matches!(list(&roots, Some("r/secrets"), 9, None), Err(Error::NotFound { .. })));
    assert_eq!(list(&roots, Some("r/x"), 9, None).unwrap().files.len(), 1);
}

/// Ignoring case, `[!a]` matches no `A`.
#[test]
fn ignoring_case_takes_nothing_from_what_a_class_denies() {
    let house = House::new();
    for name in ["d/A.LOG", "d/a.log", "d/b.log", "d/B.LOG"] {
        house.write(name, "x");
    }
    let roots = house.roots(deny(&["d/[!a]*"]));
    assert_eq!(listed(&roots), ["r/app.log", "r/d/a.log"]);
    let roots = house.roots(deny(&["d/[a]*", "d/[^b]*"]));
    assert_eq!(listed(&roots), ["r/app.log", "r/d/b.log"]);
}

#[test]
fn what_a_link_leads_to_is_judged_as_well_as_the_link() {
    let house = House::new();
    house.write("secret.key", "secret");
    house.write("secrets/a.log", "secret");
    house.write("plain.txt", "plain");
    house.link("ok.log", "secret.key");
    house.link("chain.log", "ok.log");
    house.link("directory", "secrets");
    house.link("by_directory.log", "directory/a.log");
    house.link("txt.log", "plain.txt");
    house.link("fine.log", "app.log");
    house.link("not_asked.txt", "app.log");
    let roots = house.roots(deny(&["*.key", "/secrets"]));
    for path in ["ok.log", "chain.log", "directory/a.log", "by_directory.log", "secret.key", "secrets/a.log"]
    {
        assert_missing(&roots, &format!("r/{path}"));
    }
    assert!(matches!(list(&roots, Some("r/directory"), 9, None), Err(Error::NotFound { .. })));
    let expected = ["r/app.log", "r/fine.log", "r/not_asked.txt", "r/plain.txt", "r/txt.log"];
    assert_eq!(listed(&roots), expected);
    let roots = house.roots(RootRules { deny: globs(&["*.key", "/secrets"]), ..allow(&["*.log"]) });
    assert_eq!(listed(&roots), ["r/app.log", "r/fine.log"]);
    for path in ["txt.log", "not_asked.txt", "plain.txt"] {
        assert_missing(&roots, &format!("r/{path}"));
    }
    assert_eq!(read(&roots, "r/fine.log").unwrap(), "good");
}

#[test]
fn a_second_name_is_refused_where_the_operator_says_so() {
    let house = House::new();
    fs::hard_link(house.directory.path().join("secret.txt"), house.path("hard")).unwrap();
    house.link("soft", "hard");
    let roots = house.roots(RootRules::default());
    assert_eq!(read(&roots, "r/hard").unwrap(), "secret");
    let roots = house.roots(RootRules { hard_links: false, ..RootRules::default() });
    assert_missing(&roots, "r/hard");
    assert_missing(&roots, "r/soft");
    assert_eq!(listed(&roots), ["r/app.log"]);
    fs::remove_file(house.directory.path().join("secret.txt")).unwrap();
    assert_eq!(read(&roots, "r/hard").unwrap(), "secret");
}

#[test]
fn absolute_links_are_followed_only_by_option_and_only_within_their_root() {
    let house = House::new();
    house.write("pods/a.log", "pod");
    house.write("secret.key", "secret");
    house.link("../alias", "root");
    house.link("file", house.path("pods/a.log"));
    house.link("directory", house.path("pods"));
    house.link("chain", house.path("directory/a.log"));
    house.link("roundabout", house.path("pods/../pods/./a.log"));
    house.link("by_alias", house.directory.path().join("alias/pods/a.log"));
    house.link("denied", house.path("secret.key"));
    let outside = house.directory.path().join("secret.txt");
    house.link("outside", &outside);
    house.link("above", house.path("../secret.txt"));
    house.link("like", house.directory.path().join("root2/pods/a.log"));
    house.write("../root2/pods/a.log", "secret");
    let inside = ["r/file", "r/directory/a.log", "r/chain", "r/roundabout"];
    let never = ["r/denied", "r/outside", "r/above", "r/like"];
    let roots = house.roots(deny(&["*.key"]));
    for path in inside.iter().chain(&never).chain(&["r/by_alias"]) {
        assert_missing(&roots, path);
    }
    let rules = || RootRules { absolute_links: true, ..deny(&["*.key"]) };
    let by_alias = Root { rules: rules(), ..Root::new("r", house.directory.path().join("alias")) };
    for roots in [house.roots(rules()), Roots::open(vec![by_alias]).unwrap()] {
        for path in inside {
            assert_eq!(read(&roots, path).unwrap(), "pod", "{path}");
        }
        for path in never {
            assert_missing(&roots, path);
        }
    }
    // As the root is called: by its own name, or by the one that it was given.
    assert_missing(&house.roots(rules()), "r/by_alias");
    let by_alias = Root { rules: rules(), ..Root::new("r", house.directory.path().join("alias")) };
    assert_eq!(read(&Roots::open(vec![by_alias]).unwrap(), "r/by_alias").unwrap(), "pod");
}

/// The files of a directory that can be opened as history, of those whose names begin so.
fn siblings(parent: &Parent, start: &str) -> Vec<String> {
    let place = parent.place();
    let names = place.names().unwrap().into_iter().filter(|name| name.starts_with(start));
    let mut names = names.filter(|name| place.sibling(name).is_some()).collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn rotated_files_are_the_history_of_an_allowed_one_and_need_not_be_allowed_themselves() {
    let house = House::new();
    house.write("secret.key", "secret");
    for name in ["app.log.1", "app.log.2.gz", "app.log-20261123", "app.log.bak", "app.logs", "app.log.9"] {
        house.write(name, "x");
    }
    house.link("app.log.3", "app.log.bak");
    house.link("app.log.4", "secret.key");
    house.link("app.log.5", "app.log");
    let siblings_by = |rules| {
        let roots = house.roots(rules);
        let parent = roots.parent(&FilePath::parse("r/app.log").unwrap()).unwrap();
        siblings(&parent, "app.log")
    };
    let rules = || RootRules { deny: globs(&["*.9", "*.key"]), ..allow(&["*.log"]) };
    assert_eq!(
        siblings_by(rules()),
        ["app.log", "app.log-20261123", "app.log.1", "app.log.2.gz", "app.log.5"]
    );
    // Only through the file that was asked for.
    assert_missing(&house.roots(rules()), "r/app.log.1");
    assert_eq!(listed(&house.roots(rules())), ["r/app.log"]);
    // Where it is not allowed itself, it has no history.
    assert!(siblings_by(allow(&["*.txt"])).is_empty());
    assert!(siblings_by(deny(&["app.log"])).iter().all(|name| name != "app.log"));
}

#[test]
fn a_rotation_of_what_is_denied_is_denied_wherever_its_marks_stand_and_is_not_listed() {
    let house = House::new();
    house.write("keys/a.key", "secret");
    house.write("20", "fine");
    house.write("node10", "fine");
    let names = [
        "a.key.1",
        "a.key.old",
        "A.KEY-20261123",
        "a.key.2.gz",
        "a.1.key",
        "a-20261123.key",
        "20261123-a.key",
    ];
    for name in names {
        house.write(name, "secret");
        house.write(&format!("keys/{name}"), "secret");
    }
    house.write("private.log.1", "secret");
    house.link("link.log", "a.key.1");
    let roots = house.roots(deny(&["*.key", "/private.log", "/keys", "/node1"]));
    for name in names.into_iter().chain(["private.log.1", "link.log"]) {
        assert_missing(&roots, &format!("r/{name}"));
        assert_missing(&roots, &format!("r/keys/{name}"));
    }
    assert_eq!(listed(&roots), ["r/20", "r/app.log", "r/node10"]);
    // Not by itself, and not as the history of a file that is allowed.
    let parent = roots.parent(&FilePath::parse("r/a").unwrap()).unwrap();
    assert_eq!(siblings(&parent, "a"), ["app.log"]);
}

#[test]
fn a_file_whose_name_only_begins_like_that_of_an_allowed_one_is_judged_by_its_own_name() {
    let house = House::new();
    let names = ["node1", "node1.1", "node10", "node1-20", "node1.log", "node1.1.2", "node12.old"];
    for name in names {
        house.write(name, "x");
    }
    let roots = house.roots(allow(&["/node1"]));
    let parent = roots.parent(&FilePath::parse("r/node1").unwrap()).unwrap();
    let can_be_read = names.iter().filter(|name| parent.open(name).is_ok()).collect::<Vec<_>>();
    assert_eq!(can_be_read, [&"node1", &"node1.1"]);
}

#[test]
fn inspecting_a_file_obeys_the_same_rules_as_reading_it() {
    let house = House::new();
    house.write("secret.key", "secret");
    house.link("key.log", "secret.key");
    house.link("out.log", "../secret.txt");
    house.link("link.log", "app.log");
    let roots = house.roots(RootRules { deny: globs(&["*.key"]), ..allow(&["*.log"]) });
    let parent = roots.parent(&FilePath::parse("r/app.log").unwrap()).unwrap();
    for name in ["secret.key", "key.log", "out.log", "none.log", "..", "../secret.txt"] {
        assert!(parent.stat(name).is_none(), "{name}");
    }
    // What may not be read is still there: its reader waits for the permission to come back.
    fs::set_permissions(house.path("app.log"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(parent.open("link.log").is_err() || rustix::process::geteuid().is_root());
    let (app, link) = (parent.stat("app.log").unwrap(), parent.stat("link.log").unwrap());
    assert_eq!(app.identity, link.identity);
    assert_eq!((app.is_elsewhere, link.is_elsewhere), (false, true));
}

#[test]
fn an_archive_that_the_operator_names_is_searched_for_history_and_nothing_else_of_it_is_read() {
    let house = House::new();
    for name in ["archive/app.log.1", "archive/2026/app-20261123.log", "archive/a.key", "other/app.log.1"] {
        fs::create_dir_all(house.root().join(name).parent().unwrap()).unwrap();
        house.write(name, "x");
    }
    house.link("archive/link", "../other/app.log.1");
    let rules =
        RootRules { history: globs(&["archive/**"]), deny: globs(&["*.key"]), ..allow(&["/app.log"]) };
    let roots = house.roots(rules);
    let path = FilePath::parse("r/app.log").unwrap();
    let places = roots.places(&path);
    let found = places.iter().flat_map(|place| {
        let names = place.names().unwrap();
        names.into_iter().filter(|name| place.sibling(name).is_some()).collect::<Vec<_>>()
    });
    let mut found = found.collect::<Vec<_>>();
    found.sort();
    assert_eq!(found, ["app-20261123.log", "app.log", "app.log.1"]);
    assert_eq!(listed(&roots), ["r/app.log"]);
    assert_missing(&roots, "r/archive/app.log.1");
    // A glob that names one file, and one that names a directory.
    for (glob, count) in [("/archive/app.log.1", 2), ("/archive/2026", 2), ("*.log", 2), ("nothing/**", 1)] {
        let roots = house.roots(RootRules { history: globs(&[glob]), ..allow(&["/app.log"]) });
        let places = roots.places(&path);
        // The log's own directory may be an archive, too.
        let names = |place: &std::sync::Arc<places::Place>| {
            let names = place.names().unwrap().into_iter();
            names.filter(|name| place.sibling(name).is_some()).collect::<Vec<_>>()
        };
        let found = places.iter().flat_map(names).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(found.len(), count, "{glob}: {found:?}");
    }
}
