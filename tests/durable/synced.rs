//! The order of system calls, by `strace`: a message is written, then synced, and only then acknowledged and served; the
//! names of directories and files are synced before anything relies on them.

use std::{collections::BTreeSet, fs, ops::Range, path::Path};

use super::{Server, everything, text};
use crate::harness::{PATIENCE, until};

/// The system calls that are traced: those that change a file or a name, sync, or send.
const CALLS: &str = "trace=mkdir,mkdirat,openat,rename,renameat,renameat2,unlink,unlinkat,pwrite64,fsync,fdatasync,\
    write,writev,sendto,sendmsg";

/// How many messages are published one by one.
const MESSAGES: usize = 40;

/// A system call.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    /// Everything between the parentheses.
    arguments: String,
    /// The lines of the trace at which it began and ended.
    lines: Range<usize>,
}

impl Call {
    /// The strings among the arguments, one after another.
    fn bytes(&self) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), self.arguments.as_str());
        while let Some(start) = rest.find('"') {
            rest = &rest[start + 1..];
            while let Some(next) = rest.chars().next().filter(|next| *next != '"') {
                let escape = |skip| rest[skip..].chars().take_while(char::is_ascii_hexdigit).take(2);
                let (byte, length) = match rest.as_bytes().get(1).filter(|_| next == '\\') {
                    Some(b'x') => (u8::from_str_radix(&escape(2).collect::<String>(), 16).unwrap(), 4),
                    Some(b'n') => (b'\n', 2),
                    Some(b't') => (b'\t', 2),
                    Some(b'r') => (b'\r', 2),
                    Some(other) => (*other, 2),
                    None => (rest.as_bytes()[0], 1),
                };
                bytes.push(byte);
                rest = &rest[length..];
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        bytes
    }

    /// Whether it is about a file, by its descriptor or by its name as the last one.
    fn is_of(&self, path: &str) -> bool {
        let is_descriptor = self
            .arguments
            .split_once('<')
            .is_some_and(|(_, rest)| rest.split_once('>').is_some_and(|(of, _)| of == path));
        is_descriptor || self.is_named() && self.paths().last().is_some_and(|last| last == path)
    }

    fn is_named(&self) -> bool {
        ["mkdir", "rename", "unlink", "openat"].iter().any(|name| self.name.starts_with(name))
    }

    fn paths(&self) -> Vec<String> {
        let quoted = self.arguments.split('"').skip(1).step_by(2);
        quoted.map(ToOwned::to_owned).collect()
    }

    /// Whether it sends a response or a part of one: frames of the types DATA and HEADERS.
    fn responds(&self) -> bool {
        let bytes = self.bytes();
        let mut rest = bytes.as_slice();
        let is_sent = ["write", "writev", "sendto", "sendmsg"].contains(&self.name.as_str());
        while let Some((head, after)) = rest.split_first_chunk::<9>().filter(|_| is_sent) {
            if head[3] <= 1 && u32::from_be_bytes([head[5], head[6], head[7], head[8]]) > 0 {
                return true;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            rest = after.get(usize::try_from(length).unwrap()..).unwrap_or_default();
        }
        false
    }
}

fn is_segment(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "log")
}

/// The calls of a trace, in the order in which they began.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls = Vec::<Call>::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some((_, after)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let waiting =
                calls.iter_mut().rev().find(|call| call.lines.end == 0 && call.name.starts_with(process));
            let Some(call) = waiting else { continue };
            call.name = call.name[process.len() + 1..].to_owned();
            call.arguments.push_str(after);
            call.lines.end = at;
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let unfinished = arguments.strip_suffix(" <unfinished ...>");
            let name = if unfinished.is_some() { format!("{process} {name}") } else { name.to_owned() };
            let end = if unfinished.is_some() { 0 } else { at };
            let arguments = unfinished.unwrap_or(arguments).to_owned();
            calls.push(Call { name, arguments, lines: at..end });
        }
    }
    calls.retain(|call| call.lines.end > 0);
    calls
}

/// The calls, and where the log is.
struct Judge<'a> {
    calls: &'a [Call],
    directory: &'a str,
}

impl Judge<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}/data/messages/{name}", self.directory)
    }

    /// A sync of a file or a directory that began after a line and ended before another one.
    fn is_synced(&self, path: &str, between: Range<usize>) -> bool {
        self.calls.iter().any(|call| {
            ["fsync", "fdatasync"].contains(&call.name.as_str())
                && call.is_of(path)
                && call.lines.start > between.start
                && call.lines.end < between.end
        })
    }

    fn of<'b>(&'b self, name: &'b str) -> impl DoubleEndedIterator<Item = &'b Call> {
        self.calls.iter().filter(move |call| call.name.starts_with(name))
    }

    /// The segments that got their names, and the calls.
    fn segments(&self) -> Vec<(&Call, String)> {
        let is_segment = |path: &String| is_segment(path);
        let named = self.of("rename").filter_map(|call| Some((call, call.paths().pop().filter(is_segment)?)));
        named.collect()
    }

    /// The first broken rule.
    fn check(&self) -> Result<(), String> {
        let writes = self.messages();
        if writes.len() < MESSAGES {
            return Err(format!("{} writes", writes.len()));
        }
        self.check_acknowledgements(&writes)?;
        self.check_directories(writes[0].lines.start)?;
        self.check_segments(&writes)?;
        self.check_removals()
    }

    /// The writes of messages.
    fn messages(&self) -> Vec<&Call> {
        let is_block = |call: &&Call| {
            let bytes = call.bytes();
            call.arguments.contains(".log>") && (bytes.starts_with(b"PBLK") || bytes.starts_with(b"PINC"))
        };
        self.of("pwrite64").filter(is_block).collect()
    }

    /// Nothing is answered, and no message is served, while its write is not on disk.
    fn check_acknowledgements(&self, writes: &[&Call]) -> Result<(), String> {
        let responses = self.calls.iter().filter(|call| call.responds()).collect::<Vec<_>>();
        for (place, write) in writes.iter().enumerate() {
            let next = writes.get(place + 1).map_or(usize::MAX, |next| next.lines.start);
            let path = write.arguments.split(['<', '>']).nth(1).unwrap();
            let answer =
                responses.iter().find(|call| call.lines.end > write.lines.start && call.lines.start < next);
            let Some(answer) = answer else { return Err(format!("write {place} has no answer")) };
            if !self.is_synced(path, write.lines.end..answer.lines.start) {
                return Err(format!("write {place} is answered before it is synced: {answer:?}"));
            }
        }
        Ok(())
    }

    /// The names of new directories are on disk before the first message is written.
    fn check_directories(&self, first_write: usize) -> Result<(), String> {
        for (made, parent) in [("/data", ""), ("/data/messages", "/data")] {
            let [made, parent] = [made, parent].map(|name| format!("{}{name}", self.directory));
            let call = self.of("mkdir").find(|call| call.is_of(&made));
            let Some(call) = call else { return Err(format!("{made} is not made")) };
            if !self.is_synced(&parent, call.lines.end..first_write) {
                return Err(format!("{parent} is not synced after {made} is made"));
            }
        }
        Ok(())
    }

    /// The name of a segment, and its place in both copies of the manifest, are on disk before its first message.
    fn check_segments(&self, writes: &[&Call]) -> Result<(), String> {
        let segments = self.segments();
        if segments.len() < 2 {
            return Err("there is one segment".into());
        }
        for (named, path) in segments {
            let Some(first) = writes.iter().find(|write| write.is_of(&path)) else { continue };
            let between = named.lines.end..first.lines.start;
            if !self.is_synced(&path, 0..named.lines.start + 1)
                && !self.is_synced(&self.path("next.segment"), 0..named.lines.start)
            {
                return Err(format!("the header of {path} is not synced"));
            }
            for synced in ["", "manifest.0", "manifest.1"] {
                let synced = self.path(synced);
                let synced = synced.trim_end_matches('/');
                if !self.is_synced(synced, between.clone()) {
                    return Err(format!(
                        "{synced} is not synced between the name and the first message of {path}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Both copies of the manifest are changed and synced before a segment is removed, and the directory afterwards.
    fn check_removals(&self) -> Result<(), String> {
        let removed =
            self.of("unlink").filter(|call| call.paths().last().is_some_and(|path| is_segment(path)));
        let (mut count, mut since) = (0, 0);
        for call in removed {
            count += 1;
            for copy in ["manifest.0", "manifest.1"].map(|name| self.path(name)) {
                let writes = self.of("pwrite64").filter(|write| write.is_of(&copy));
                let written =
                    { writes }.rfind(|write| (since..call.lines.start).contains(&write.lines.start));
                let is_synced = |write: &Call| self.is_synced(&copy, write.lines.end..call.lines.start);
                if !written.is_some_and(is_synced) {
                    return Err(format!("{copy} is not changed before {call:?}"));
                }
            }
            if !self.is_synced(&format!("{}/data/messages", self.directory), call.lines.end..usize::MAX) {
                return Err(format!("the directory is not synced after {call:?}"));
            }
            since = call.lines.end;
        }
        if count == 0 { Err("no segment is removed".into()) } else { Ok(()) }
    }
}

/// A server publishes some segments, removes the oldest ones, and ends. Returns its directory, and the trace.
async fn trace(file: &Path) -> (String, String) {
    let script = format!(
        "exec strace -D -f -y -x -s 1000000 -o '{}' -e {CALLS} \"$@\" --segment 1MiB --retention-interval 1s",
        file.display()
    );
    let mut server = Server::start_by(&["sh", "-c", &script, "sh"]);
    let mut client = server.messages().await;
    for n in 0..MESSAGES {
        let long = if n % 4 == 0 { 300_000 } else { 10 };
        client.publish(text("a", &format!("{n} {}", "x".repeat(long)))).await.unwrap();
    }
    let segments = || {
        let names = fs::read_dir(server.directory().join("data/messages")).unwrap();
        let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
        names.filter(|name| is_segment(name)).collect::<BTreeSet<_>>()
    };
    let before = segments();
    let request = perennial::proto::PurgeTopicRequest { topic: "a".into(), ..Default::default() };
    client.purge_topic(request).await.unwrap();
    until("a segment is removed", async || !before.is_subset(&segments())).await;
    client.publish(text("a", "last")).await.unwrap();
    assert_eq!(everything(&server).await.len(), 1);
    server.terminate();
    server.wait();
    let is_over = || fs::read_to_string(file).is_ok_and(|trace| trace.trim_end().ends_with("+++"));
    tokio::time::timeout(PATIENCE, async {
        while !is_over() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("strace ends");
    let directory = server.directory().canonicalize().unwrap();
    (directory.to_str().unwrap().to_owned(), fs::read_to_string(file).unwrap())
}

#[tokio::test]
#[ignore = "needs strace"]
async fn messages_and_names_are_synced_before_they_are_relied_on() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (directory, trace) = trace(file.path()).await;
    let calls = calls(&trace);
    let check = |calls: &[Call]| Judge { calls, directory: &directory }.check();
    check(&calls).unwrap_or_else(|broken| panic!("{broken}"));
    // Without any of the syncs, the rules are broken: the judge looks at each.
    let messages = format!("{directory}/data/messages");
    let log = format!("{messages}/00000000000000000001.log");
    let [one, other] = ["manifest.0", "manifest.1"].map(|name| format!("{messages}/{name}"));
    for path in [directory.clone(), format!("{directory}/data"), messages, log, one, other] {
        let is_other = |call: &&Call| !(call.name.ends_with("sync") && call.is_of(&path));
        let without = calls.iter().filter(is_other).cloned().collect::<Vec<_>>();
        assert!(without.len() < calls.len() && check(&without).is_err(), "{path} is synced in vain");
    }
}
