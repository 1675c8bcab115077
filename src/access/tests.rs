#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use prometheus_client::encoding::text::encode;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{blocking::Pool, watched::Asked};

const RULES: &str = "[[rule]]\nwho = ['token:a', 'role:r', 'uid:7']\nmay = ['publish']\ntopics = ['a.>']\n";

struct House {
    directory: TempDir,
    registry: Registry,
    access: Arc<Access>,
    token: String,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files {
            rules: directory.path().join("access.toml"),
            tokens: Some(directory.path().join("tokens.toml")),
        };
        fs::write(&files.rules, RULES).unwrap();
        let token = tokens::add(files.tokens.as_deref().unwrap(), "a", Vec::new(), None).unwrap();
        let mut registry = Registry::default();
        let access = Access::open(files, Vec::new(), &mut registry).unwrap();
        Self { directory, registry, access, token: token.expose().to_owned() }
    }

    fn caller(&self, headers: &[&str]) -> Result<Caller, Refused> {
        self.access.caller(&Arc::default(), headers.iter().map(|header| header.as_bytes()))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn may(&self, caller: &Caller) -> bool {
        let caller = self.access.again(caller).unwrap();
        caller.rights().allow_one(Verb::Publish, Kind::Topic, "a.b")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().any(|known| known == line)
    }
}

#[test]
fn a_caller_is_known_by_its_token_and_by_its_connection() {
    let house = House::new();
    let caller = house.caller(&[&house.bearer()]).unwrap();
    assert!(caller.is_known() && house.may(&caller));
    assert_eq!(caller.to_string(), "token:a");
    let lower = house.caller(&[&house.bearer().replace("Bearer", "bearer")]).unwrap();
    assert!(house.may(&lower));
    let stranger = house.caller(&[]).unwrap();
    assert!(!stranger.is_known() && !house.may(&stranger) && !stranger.rights().are_any());
    let of_connection = [Identity::Uid(7), Identity::Gid(1)].into();
    let local = house.access.caller(&of_connection, []).unwrap();
    assert!(local.is_known() && house.may(&local));
    assert_eq!(local.to_string(), "uid:7");
    // A wrong token is refused, whatever the connection has.
    let refused = house.access.caller(&of_connection, [&b"Bearer perennial_"[..]]);
    assert_eq!(refused.map(drop), Err(Refused::Unknown));
}

#[test]
fn the_name_of_a_caller_is_shown_in_one_word_and_cut() {
    let house = House::new();
    let name = |subject: &str| {
        let identities = [Identity::Jwt(subject.into())].into();
        house.access.caller(&identities, []).unwrap().to_string()
    };
    assert_eq!(name("https://id|é"), "jwt:https://id|é");
    assert_eq!(name("a\nb\u{1b} c\u{2028}"), "jwt:a\\u{a}b\\u{1b}\\u{20}c\\u{2028}");
    assert_eq!(name(&"x".repeat(12_000)), format!("jwt:{}…", "x".repeat(196)));
}

#[test]
fn credentials_that_are_not_accepted_are_refused_and_counted() {
    let house = House::new();
    let unknown = format!("Bearer {}{}", tokens::PREFIX, "0".repeat(64));
    let large = format!("Bearer {}", "a".repeat(1024 * 1024));
    for (headers, refused) in [
        (&["Bearer"][..], Refused::Malformed),
        (&[""], Refused::Malformed),
        (&["Basic YTpi"], Refused::Malformed),
        (&[&house.bearer(), &house.bearer()], Refused::Malformed),
        (&[&unknown], Refused::Unknown),
        (&["Bearer x"], Refused::Unknown),
        (&[&large], Refused::Unknown),
    ] {
        assert_eq!(house.caller(headers).map(drop), Err(refused), "{:.100}", headers.concat());
    }
    assert!(house.metric("access_credentials_refused_total{reason=\"UNKNOWN\"} 3"));
    let path = house.file("tokens.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("created", "expires = \"2020-01-01T00:00:00Z\"\ncreated")).unwrap();
    house
        .access
        .replace(house.access.policy(Contents::read(&house.access.files, &house.access.etc))(), false)
        .unwrap();
    assert_eq!(house.caller(&[&house.bearer()]).map(drop), Err(Refused::Expired));
    tokens::revoke(&path, "a").unwrap();
    house
        .access
        .replace(house.access.policy(Contents::read(&house.access.files, &house.access.etc))(), false)
        .unwrap();
    assert_eq!(house.caller(&[&house.bearer()]).map(drop), Err(Refused::Revoked));
}

#[tokio::test]
async fn files_that_change_are_used_and_bad_ones_leave_the_previous_ones_in_use() {
    let house = House::new();
    let (access, asked) = (house.access.clone(), Arc::new(Asked::default()));
    let (of_task, mut changes) = (asked.clone(), house.access.changes());
    let follow =
        tokio::spawn(
            async move { access.follow(Duration::from_millis(1), &of_task, &Pool::default()).await },
        );
    let caller = house.caller(&[&house.bearer()]).unwrap();
    fs::write(house.file("access.toml"), RULES.replace("a.>", "b.>")).unwrap();
    changes.changed().await.unwrap();
    assert!(!house.may(&caller));
    asked.ask().await;
    assert!(house.metric("access_reloads_total{outcome=\"used\"} 1"), "nothing has changed since");
    changes.borrow_and_update();
    for wrong in ["", "[[rule]]\nwho = ['x']"] {
        fs::write(house.file("access.toml"), wrong).unwrap();
        while !house.metric("access_files_refused 1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!changes.has_changed().unwrap());
        fs::write(house.file("access.toml"), RULES).unwrap();
        changes.changed().await.unwrap();
        assert!(house.may(&caller) && house.metric("access_files_refused 0"));
    }
    fs::set_permissions(house.file("tokens.toml"), PermissionsExt::from_mode(0o644)).unwrap();
    while !house.metric("access_files_refused 1") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(house.may(&caller));
    follow.abort();
}

#[tokio::test]
async fn rules_that_name_an_account_that_is_absent_are_used_when_it_was_added() {
    let house = House::new();
    fs::write(house.file("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let mut registry = Registry::default();
    let etc = house.directory.path().to_owned();
    let access = Access::open_with(house.access.files.clone(), etc, Vec::new(), &mut registry).unwrap();
    let mut changes = access.changes();
    let task = access.clone();
    let follow = tokio::spawn(async move {
        task.follow(Duration::from_millis(1), &Asked::default(), &Pool::default()).await;
    });
    let metric = |value: u32| {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.contains(&format!("access_files_refused {value}\n"))
    };
    let may = |uid: u32| {
        let caller = access.caller(&Arc::from([Identity::Uid(uid)]), []).unwrap();
        caller.rights().allow_one(Verb::Publish, Kind::Topic, "a.b")
    };
    fs::write(house.file("access.toml"), RULES.replace("uid:7", "user:alice")).unwrap();
    while !metric(1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!changes.has_changed().unwrap());
    fs::write(house.file("passwd"), "root:x:0:0::/:/bin/sh\nalice:x:8:8::/:/bin/sh\n").unwrap();
    changes.changed().await.unwrap();
    assert!(may(8) && !may(7) && metric(0));
    // The same name is another account.
    fs::write(house.file("passwd"), "alice:x:9:9::/:/bin/sh\n").unwrap();
    changes.changed().await.unwrap();
    assert!(may(9) && !may(8));
    follow.abort();
}

proptest! {
    #[test]
    fn any_header_is_refused_or_of_a_known_token(
        header in proptest::collection::vec(any::<u8>(), 0..100), is_bearer in any::<bool>(),
    ) {
        let house = HOUSE.with(Arc::clone);
        let header = if is_bearer { [b"Bearer ", &header[..]].concat() } else { header };
        prop_assert!(house.access.caller(&Arc::default(), [&header[..]]).is_err());
    }
}

thread_local! {
    static HOUSE: Arc<House> = Arc::new(House::new());
}
