#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::HashSet, os::unix::fs::chown, thread};

use proptest::prelude::*;

use super::*;

fn at(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("tokens.toml")
}

fn read(path: &Path) -> Tokens {
    Tokens::parse(path, &pem::read_private(path).unwrap()).unwrap()
}

#[test]
fn a_token_is_made_found_by_its_hash_and_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let path = at(&directory);
    let later = Timestamp::from_second(now().as_second() + 60).unwrap();
    let first = add(&path, "billing", vec!["reader".into()], None).unwrap();
    let second = add(&path, "billing", Vec::new(), Some(later)).unwrap();
    let other = add(&path, "ops@example", Vec::new(), None).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    for secret in [&first, &second, &other] {
        let digits = secret.expose().strip_prefix(PREFIX).unwrap();
        assert!(digits.len() == 64 && !text.contains(digits) && !format!("{secret:?}").contains(digits));
    }
    let tokens = read(&path);
    let entry = |secret: &Secret| tokens.get(&Hash::of(secret.expose()).unwrap()).unwrap();
    assert_eq!(
        (entry(&first).name.as_str(), &entry(&first).roles[..]),
        ("billing", &["reader".to_owned()][..])
    );
    assert_eq!((entry(&second).expires, tokens.count()), (Some(later), 3));

    let id = list(&path).unwrap()[0].id().to_owned();
    assert_eq!(revoke(&path, &id).unwrap(), 1);
    assert!(read(&path).get(&Hash::of(first.expose()).unwrap()).unwrap().revoked.is_some());
    assert_eq!(revoke(&path, "billing").unwrap(), 1);
    assert!(matches!(revoke(&path, "billing"), Err(Error::Unknown(_))));
    assert_eq!(read(&path).count(), 1);
}

/// A server of another account reads the file of root as its group. Without that a revoked token would stay in use.
#[test]
fn a_change_keeps_the_permissions_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = at(&directory);
    let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
    add(&path, "billing", Vec::new(), None).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    add(&path, "shop", Vec::new(), None).unwrap();
    assert_eq!(mode(), 0o400);
    if !rustix::process::getuid().is_root() {
        return;
    }
    chown(&path, Some(0), Some(7)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(revoke(&path, "billing").unwrap(), 1);
    assert_eq!((mode(), fs::metadata(&path).unwrap().gid()), (0o640, 7));
    // The first file in a directory as the package makes it.
    fs::remove_file(&path).unwrap();
    chown(directory.path(), Some(0), Some(7)).unwrap();
    add(&path, "billing", Vec::new(), None).unwrap();
    assert_eq!((mode(), fs::metadata(&path).unwrap().gid()), (0o640, 7));
    // The account of the server needs no group.
    fs::remove_file(&path).unwrap();
    chown(directory.path(), Some(7), Some(7)).unwrap();
    add(&path, "billing", Vec::new(), None).unwrap();
    assert_eq!((mode(), fs::metadata(&path).unwrap().uid()), (0o600, 7));
    // It also changes the tokens, and so takes the lock.
    let lock = fs::metadata(path.with_file_name("tokens.toml.lock")).unwrap();
    assert_eq!((lock.uid(), lock.gid()), (7, 7));
}

#[test]
fn tokens_that_are_made_at_once_are_all_kept_and_none_is_like_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = at(&directory);
    let make = |number: usize| {
        let path = path.clone();
        thread::spawn(move || {
            add(&path, &format!("t{number}"), Vec::new(), None).unwrap().expose().to_owned()
        })
    };
    let made = (0..16).map(make).collect::<Vec<_>>();
    let made = made.into_iter().map(|made| made.join().unwrap()).collect::<HashSet<_>>();
    assert_eq!((made.len(), read(&path).count()), (16, 16));
}

#[test]
fn each_fault_of_the_file_says_what_to_do_and_repeats_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = at(&directory);
    assert!(list(&path).unwrap_err().to_string().contains("No such file"));
    add(&path, "a", Vec::new(), None).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for mode in [0o644, 0o660, 0o604] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for error in [list(&path).unwrap_err(), revoke(&path, "a").unwrap_err()] {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for wrong in [
        good.replace("blake3:", "sha256:"),
        good.replace("name = \"a\"", "name = \"a b\""),
        good.replace("created = ", "crated = "),
        good.replace("[[token]]", "[[token"),
        good.replace("name = \"a\"", &format!("{PREFIX}{}", "5e".repeat(32))),
    ] {
        fs::write(&path, &wrong).unwrap();
        let error = list(&path).unwrap_err().to_string();
        assert!(error.contains("perenniald token") && !error.contains("5e5e"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
    }
    for name in ["", "a b", "a\n", "\u{fc}", &"n".repeat(129)] {
        assert!(matches!(add(&path, name, Vec::new(), None), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(add(&path, "a", vec![name.into()], None), Err(Error::Name(_))), "{name:?}");
    }
    assert!(matches!(add(&path, "a", Vec::new(), Some(Timestamp::UNIX_EPOCH)), Err(Error::Past(_))));
}

#[test]
fn a_link_in_the_place_of_the_lock_leads_to_no_other_file() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other");
    fs::write(&other, "content").unwrap();
    std::os::unix::fs::symlink(&other, directory.path().join("tokens.toml.lock")).unwrap();
    let path = directory.path().join("tokens.toml");
    assert!(matches!(add(&path, "a", Vec::new(), None), Err(Error::Write { .. })));
    assert_eq!(fs::read_to_string(other).unwrap(), "content");
}

proptest! {
    #[test]
    fn only_a_text_of_the_form_of_a_token_has_a_hash(text in "(perennial_)?[0-9a-fA-Fgx_]{62,66}") {
        let digits = text.strip_prefix(PREFIX).unwrap_or_default();
        let is_token = digits.len() == 64 && digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        prop_assert_eq!(Hash::of(&text).is_some(), is_token);
    }

    #[test]
    fn a_file_of_any_bytes_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Tokens::parse(Path::new("f"), &bytes);
    }
}
