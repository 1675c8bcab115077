//! Forged cursors never yield a byte of a file that the rules of the root refuse.
//!
//! A forgery takes parts of positions in the secret files and of random numbers, in every version of a cursor: the type of a
//! position is private, so it is taken apart as JSON.

use std::{fs, os::unix::fs::symlink};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt;
use perennial::{
    cursor,
    lines::{Files, MayRead, OnGap, Options, Position, Query, Root, RootRules, Start},
    stream::Batching,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Duration, timeout};

use crate::bed::{Bed, ROOT, query_of};

/// How many forgeries are tried in an ordinary run.
const FORGERIES: usize = 800;

/// How many where there is time for it.
const MANY_FORGERIES: usize = 5_000;

/// How many are tried without rules.
const CONTROLS: usize = 150;

/// How many are tried at once: a server searches for a file for a while.
const AT_ONCE: usize = 64;

/// The allowed log.
const OWN: &str = "node1";

/// Files that the rules refuse: some begin with all of the log's lines, and could pass for it by their content.
const SECRETS: [&str; 16] = [
    "node10",
    "node1-20",
    "node1.log",
    "node1x.old",
    "node1.1.2",
    "node1.3",
    "node1-20261101",
    "node1.key",
    "node1.key.1",
    "node1.1.key",
    "20261123-node1",
    "20261123-node1.key",
    "private/node1",
    "private/node1.1",
    "other/node1",
    "../outside",
];

/// Those whose names say that they are rotations of the log.
const ROTATIONS: [&str; 3] = ["node1.3", "node1-20261101", "20261123-node1"];

/// The cursor of version 1, as it was made before version 2.
#[derive(Deserialize, Serialize)]
struct First {
    path: u32,
    identity: FirstIdentity,
    checkpoint: FirstCheckpoint,
    skip_to: Option<u64>,
    deleted: bool,
    resume_at: Option<(FirstIdentity, FirstCheckpoint)>,
}

#[derive(Deserialize, Serialize)]
struct FirstIdentity {
    device: u64,
    inode: u64,
    birth: u64,
}

#[derive(Deserialize, Serialize)]
struct FirstCheckpoint {
    line: FirstLine,
    before: FirstFingerprint,
    head: FirstFingerprint,
}

#[derive(Deserialize, Serialize)]
struct FirstLine {
    offset: u64,
    number: Option<u64>,
    within: FirstWithin,
}

#[derive(Deserialize, Serialize)]
enum FirstWithin {
    Start,
    Continued,
    Dropped,
}

#[derive(Deserialize, Serialize)]
struct FirstFingerprint {
    bytes: u64,
    checksum: u32,
}

/// The text of a cursor of version 1. `None` if it cannot hold these fields.
fn first(position: &Value) -> Option<String> {
    let first = serde_json::from_value::<First>(position.clone()).ok()?;
    let mut bytes = postcard::to_extend(&first, vec![1, b'l']).ok()?;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The text of a cursor of version 2, which lacks the last two fields, of which each has one byte here.
fn second(position: &Position) -> Option<String> {
    let mut value = serde_json::to_value(position).ok()?;
    (value["written"], value["is_copy"]) = (Value::Null, false.into());
    let newest = cursor::encode(&serde_json::from_value::<Position>(value).ok()?);
    let mut bytes = URL_SAFE_NO_PAD.decode(newest).ok()?;
    bytes.truncate(bytes.len() - 2 - size_of::<u32>());
    *bytes.first_mut()? = 2;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The numbers and flags within a value.
fn leaves<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| leaves(value, found)),
        Value::Array(values) => values.iter_mut().for_each(|value| leaves(value, found)),
        leaf => found.push(leaf),
    }
}

/// Files, and what their reader may read of them.
struct Served {
    files: Files,
    may_read: MayRead,
}

impl Served {
    /// For a reader that may read everything that the rules allow.
    fn new(files: Files) -> Self {
        Self { files, may_read: MayRead::default() }
    }
}

struct Forger {
    random: fastrand::Rng,
    own: Vec<Value>,
    secret: Vec<Value>,
}

impl Forger {
    fn any<'a>(random: &mut fastrand::Rng, of: &'a [Value]) -> &'a Value {
        &of[random.usize(..of.len())]
    }

    /// Fields of a position in the log, and of positions in secrets.
    fn forge(&mut self) -> Value {
        let Self { random, own, secret } = self;
        let mut forged = Self::any(random, own).clone();
        let fields = forged.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let other = Self::any(random, secret);
        for field in fields.iter().filter(|field| *field != "path") {
            if random.bool() {
                forged[field] = other[field].clone();
            }
        }
        if random.u8(..3) == 0 {
            let identity = Self::any(random, secret)["identity"].clone();
            let checkpoint = Self::any(random, secret)["checkpoint"].clone();
            forged["resume_at"] = Value::Array(vec![identity, checkpoint]);
        }
        for _ in 0..random.u8(..3) {
            let mut all = Vec::new();
            // Not the path: with another one it is refused at once.
            let values = forged.as_object_mut().unwrap().iter_mut().filter(|(field, _)| *field != "path");
            values.for_each(|(_, value)| leaves(value, &mut all));
            let at = random.usize(..all.len());
            *all[at] = match (&*all[at], random.u8(..4)) {
                (Value::Bool(flag), _) => Value::Bool(!flag),
                (Value::Number(number), 0) => (number.as_u64().unwrap_or(0) / 2).into(),
                (Value::Number(number), 1) => (number.as_u64().unwrap_or(0) + 1).into(),
                (Value::Number(_), 2) => u64::from(random.u16(..)).into(),
                (Value::Number(_), _) => 0.into(),
                (other, _) => other.clone(),
            };
        }
        forged
    }
}

/// Positions after each of the first lines of a file, which is read without rules.
async fn positions(files: &Files, name: &str) -> Vec<Value> {
    let batching = Batching { max_items: 1, ..Batching::default() };
    let query = Query { batching, ..query_of(name, Start::Head) };
    let mut reading = Bed::try_open_on(files, query).await.unwrap();
    let mut positions = Vec::new();
    while reading.batch().await.is_some() {
        positions.push(serde_json::to_value(reading.position.clone().unwrap()).unwrap());
    }
    positions
}

/// Reads with a forged position, and returns what came.
async fn read(served: &Served, position: Position, random: &mut fastrand::Rng) -> Vec<String> {
    let on_gap = if random.bool() { OnGap::Skip } else { OnGap::Fail };
    let follow = random.u8(..8) == 0;
    let may_read = served.may_read.clone();
    let query = Query { on_gap, follow, may_read, ..query_of(OWN, Start::Resume(position)) };
    let Ok(mut reading) = Bed::try_open_on(&served.files, query).await else { return Vec::new() };
    if follow {
        let _ = timeout(Duration::from_millis(100), async {
            loop {
                reading.batch().await;
            }
        })
        .await;
    } else {
        reading.read_to_end().await;
    }
    reading.texts()
}

async fn try_forgeries(count: usize) {
    let bed = Bed::on_disk();
    for directory in ["logs", "logs/private", "logs/other"] {
        fs::create_dir(bed.path(directory)).unwrap();
    }
    let lines = (0..100).map(|n| format!("own {n}\n")).collect::<String>();
    fs::write(bed.path("logs/node1"), &lines).unwrap();
    for (number, name) in SECRETS.into_iter().enumerate() {
        let secret = (0..50).map(|n| format!("secret {n} of {name}\n")).collect::<String>();
        let before = if number % 2 == 0 { lines.as_str() } else { "" };
        fs::write(bed.path("logs").join(name), before.to_owned() + &secret).unwrap();
    }
    symlink("private/node1", bed.path("logs/node1.4")).unwrap();
    symlink("../outside", bed.path("logs/node1.5")).unwrap();
    let glob = |glob: &str| glob.parse().unwrap();
    let rules = RootRules {
        allow: vec![glob("/node1"), glob("*.key*"), glob("private/*")],
        deny: vec![glob("*.key"), glob("/private/**"), glob("node1.3"), glob("*-20261101")],
        ..RootRules::default()
    };
    let path = bed.path("logs");
    let open = |root| Files::new(vec![root], Options::default()).unwrap();
    let served = Served::new(open(Root { rules, ..Root::new(ROOT, &path) }));
    let (all, outside) = (open(Root::new(ROOT, &path)), open(Root::new(ROOT, bed.path(""))));
    let mut forger = Forger { random: fastrand::Rng::with_seed(1), own: Vec::new(), secret: Vec::new() };
    forger.own = positions(&all, OWN).await;
    for name in SECRETS {
        let (files, name) = name.strip_prefix("../").map_or((&all, name), |name| (&outside, name));
        forger.secret.extend(positions(files, name).await);
    }
    let (accepted, lines) = try_all(&mut forger, &served, count).await;
    let found = lines.iter().find(|(_, line)| line.contains("secret"));
    assert!(found.is_none(), "{found:?}");
    assert!(accepted > count && lines.len() > count, "{accepted} {}", lines.len());
    // Without the rules such cursors do yield secrets, or the forgeries would prove nothing.
    let (_, lines) = try_all(&mut forger, &Served::new(all), CONTROLS).await;
    assert!(lines.iter().any(|(_, line)| line.contains("secret")));
    // A caller that may read only the log gets its rotations besides, whatever the rules of the root say.
    let may_read = MayRead::only(|path| path == format!("{ROOT}/{OWN}"));
    let served = Served { files: open(Root::new(ROOT, &path)), may_read };
    let (_, lines) = try_all(&mut forger, &served, count).await;
    let is_rotation = |line: &str| ROTATIONS.iter().any(|name| line.ends_with(&format!(" of {name}")));
    let found = lines.iter().find(|(_, line)| line.contains("secret") && !is_rotation(line));
    assert!(found.is_none(), "{found:?}");
    assert!(lines.iter().any(|(_, line)| is_rotation(line)) && lines.len() > count, "{}", lines.len());
}

/// How many forgeries could be decoded, and each line that came with its cursor.
async fn try_all(forger: &mut Forger, served: &Served, count: usize) -> (usize, Vec<(String, String)>) {
    let mut texts = Vec::new();
    for _ in 0..count {
        let forged = forger.forge();
        texts.extend(first(&forged));
        if let Ok(position) = serde_json::from_value::<Position>(forged) {
            texts.extend(second(&position));
            texts.push(cursor::encode(&position));
        }
    }
    let mut random = forger.random.fork();
    let tried = texts.into_iter().filter_map(|text| {
        let position = cursor::decode::<Position>(&text).ok()?;
        let mut random = random.fork();
        Some(async move {
            let lines = read(served, position, &mut random).await;
            lines.into_iter().map(|line| (text.clone(), line)).collect::<Vec<_>>()
        })
    });
    let tried = futures::stream::iter(tried).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    (tried.len(), tried.into_iter().flatten().collect())
}

#[tokio::test]
async fn a_forged_cursor_of_any_version_never_yields_a_byte_of_a_refused_file() {
    try_forgeries(FORGERIES).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn many_forged_cursors_never_yield_a_byte_of_a_refused_file() {
    try_forgeries(MANY_FORGERIES).await;
}
