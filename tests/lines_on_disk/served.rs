//! Start and open, where the point is a process: what a server of another user may read, and what it takes to wait.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use perennial::proto::{
    OnGap, ReadLinesRequest, ReadLinesResponse, line_service_client::LineServiceClient,
    line_stream_event::Event, read_lines_request::Start,
};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    bed::{LIMIT, append, shown},
    harness::{Server, server_command, soon},
};

/// A user that owns no file.
const NOBODY: u32 = 65534;

/// The unit of a process's times in /proc: a hundredth of a second, whatever the kernel's own clock.
const TICK_MILLIS: u64 = 10;

/// A server that permission bits mean something to.
struct Unprivileged {
    child: Child,
    lines: LineServiceClient<Channel>,
    directory: tempfile::TempDir,
}

impl Unprivileged {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for part in ["", "logs", "data"] {
            fs::create_dir_all(directory.path().join(part)).unwrap();
            fs::set_permissions(directory.path().join(part), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = server_command(directory.path(), "127.0.0.1:0");
        if rustix::process::geteuid().is_root() {
            as_nobody(&mut command, directory.path());
        }
        let mut child = loop {
            match command.stderr(Stdio::piped()).spawn() {
                // Another test's child was made while the program was copied, and holds it open until it runs its own.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                spawned => break spawned.unwrap(),
            }
        };
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = stderr.lines().map_while(Result::ok);
        let url = said
            .find_map(|line| {
                line.split_once("http://").map(|(_, address)| format!("http://{}", address.trim()))
            })
            .expect("the server prints its address");
        std::thread::spawn(move || said.for_each(drop));
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let lines = LineServiceClient::new(channel);
        Self { child, lines, directory }
    }

    fn permit(&self, mode: u32) {
        fs::set_permissions(self.log(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("logs/app.log")
    }

    /// Rotates the log, and creates the next one with these permissions and this content.
    fn rotate(&self, mode: u32, text: &str) {
        let numbered = |number: usize| self.log().with_extension(format!("log.{number}"));
        let _ = fs::rename(numbered(1), numbered(2));
        fs::rename(self.log(), numbered(1)).unwrap();
        let mut new =
            fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(self.log()).unwrap();
        new.write_all(text.as_bytes()).unwrap();
    }

    async fn open(
        &mut self,
        request: &ReadLinesRequest,
    ) -> Result<Streaming<ReadLinesResponse>, tonic::Status> {
        soon("an answer", self.lines.read_lines(request.clone())).await.map(tonic::Response::into_inner)
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program is copied to where everybody may come.
fn as_nobody(command: &mut Command, directory: &std::path::Path) {
    let program = directory.join("perenniald");
    fs::copy(command.get_program(), &program).unwrap();
    let arguments = command.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
    *command = Command::new(program);
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null());
    command.uid(NOBODY).gid(NOBODY);
}

fn follow(start: Option<Start>) -> ReadLinesRequest {
    ReadLinesRequest { path: "logs/app.log".into(), start, follow: true, ..Default::default() }
}

/// Reads until a line; the lines and events up to there, and the cursor.
async fn read_until(
    stream: &mut Streaming<ReadLinesResponse>,
    wanted: &str,
) -> (Vec<String>, Vec<Event>, String) {
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    loop {
        let response = tokio::time::timeout(LIMIT, stream.message()).await;
        let response = response.unwrap_or_else(|_| panic!("{wanted:?}, but {lines:?} {events:?}"));
        let response = response.unwrap().expect("the stream goes on");
        events.extend(response.events.into_iter().filter_map(|event| event.event));
        lines.extend(response.lines.iter().map(shown));
        if lines.iter().any(|line| line == wanted) {
            return (lines, events, response.cursor);
        }
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_for_a_while_goes_on_without_replay() {
    let mut server = Unprivileged::start().await;
    append(&server.log(), "1\n");
    server.permit(0o644);
    let mut stream = server.open(&follow(None)).await.unwrap();
    let (lines, _, cursor) = read_until(&mut stream, "1").await;
    assert_eq!(lines, ["1"]);
    // A reader that has it open reads on; for a new one it looks like a file that is missing.
    server.permit(0o000);
    append(&server.log(), "2\n");
    let (lines, events, _) = read_until(&mut stream, "2").await;
    assert_eq!((lines, events), (vec!["2".to_string()], vec![]));
    let error = server.open(&ReadLinesRequest { path: "logs/app.log".into(), ..Default::default() }).await;
    assert_eq!(error.unwrap_err().code(), Code::NotFound);
    // It may be read again, and its reader was cut meanwhile.
    server.permit(0o644);
    append(&server.log(), "3\n");
    let (lines, events, _) = read_until(&mut stream, "3").await;
    assert_eq!((lines, events), (vec!["3".to_string()], vec![]));
    let mut resumed = server.open(&ReadLinesRequest { cursor: Some(cursor), ..follow(None) }).await.unwrap();
    let (lines, events, _) = read_until(&mut resumed, "3").await;
    assert_eq!(lines, ["2", "3"]);
    assert!(matches!(events[..], [Event::Resumed(_)]), "{events:?}");
}

#[tokio::test]
async fn a_new_file_that_may_not_be_read_yet_is_read_when_it_may_be() {
    let mut server = Unprivileged::start().await;
    append(&server.log(), "1\n");
    server.permit(0o644);
    let mut stream = server.open(&follow(None)).await.unwrap();
    read_until(&mut stream, "1").await;
    let new = server.log().with_extension("new");
    append(&new, "2\n");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o000)).unwrap();
    fs::rename(server.log(), server.log().with_extension("log.1")).unwrap();
    fs::rename(new, server.log()).unwrap();
    append(&server.log(), "3\n");
    let waiting = ReadLinesRequest { wait_for_create: true, ..follow(None) };
    let mut waits = server.open(&waiting).await.unwrap();
    assert!(soon("the first response", waits.message()).await.unwrap().unwrap().lines.is_empty());
    server.permit(0o644);
    for stream in [&mut stream, &mut waits] {
        let (lines, _, _) = read_until(stream, "3").await;
        assert_eq!(lines, ["2", "3"]);
    }
}

#[tokio::test]
async fn a_generation_that_may_not_be_read_is_a_gap_live_and_after_a_resume() {
    for is_away in [false, true] {
        let mut server = Unprivileged::start().await;
        append(&server.log(), "1\n");
        server.permit(0o644);
        let mut stream = server.open(&follow(None)).await.unwrap();
        let (_, _, cursor) = read_until(&mut stream, "1").await;
        if is_away {
            drop(stream);
            server.rotate(0o000, "2\n");
            server.rotate(0o644, "3\n");
            stream = server.open(&ReadLinesRequest { cursor: Some(cursor), ..follow(None) }).await.unwrap();
        } else {
            server.rotate(0o000, "2\n");
            server.rotate(0o644, "3\n");
        }
        let (lines, events, _) = read_until(&mut stream, "3").await;
        assert_eq!(lines, ["3"], "{is_away}");
        assert!(events.iter().any(|event| matches!(event, Event::Gap(_))), "{is_away}: {events:?}");
    }
}

#[tokio::test]
async fn the_file_of_a_cursor_that_may_not_be_read_any_more_is_a_gap() {
    let mut server = Unprivileged::start().await;
    append(&server.log(), "1\n");
    server.permit(0o644);
    let mut stream = server.open(&follow(None)).await.unwrap();
    let (_, _, cursor) = read_until(&mut stream, "1").await;
    drop(stream);
    append(&server.log(), "2\n");
    server.permit(0o000);
    // At the path, it is not gone: the cursor stays good, whatever the request says about gaps.
    for on_gap in [OnGap::Fail, OnGap::Skip] {
        let resume = ReadLinesRequest { cursor: Some(cursor.clone()), on_gap: on_gap.into(), ..follow(None) };
        let refused = async {
            loop {
                // The server may have the file open still.
                match server.open(&resume).await {
                    Ok(stream) => drop(stream),
                    Err(error) => break error,
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        assert_eq!(soon("a refusal", Box::pin(refused)).await.code(), Code::NotFound);
    }
    server.rotate(0o644, "3\n");
    let resume = ReadLinesRequest { cursor: Some(cursor), on_gap: OnGap::Skip.into(), ..follow(None) };
    let (lines, events, _) = read_until(&mut server.open(&resume).await.unwrap(), "3").await;
    // The server may have the file open still.
    if lines != ["2", "3"] {
        assert_eq!(lines, ["3"]);
        assert!(events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
    }
}

/// How much time of a processor a process has used.
fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may hold any byte, the twelfth and thirteenth field are the user's and the system's time.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
    Duration::from_millis(ticks * TICK_MILLIS)
}

#[tokio::test]
async fn a_waiting_reader_does_not_spin() {
    const EACH: usize = 5;
    let server = Server::start();
    let mut client = server.lines().await;
    let logs = server.log_file("");
    append(&logs.join("whole"), "1\n2\n");
    append(&logs.join("part"), "1\npart");
    append(&logs.join("empty"), "");
    append(&logs.join("gone"), "1\n");
    append(&logs.join("rotated"), "1\n");
    fs::File::create(logs.join("reserved")).unwrap().set_len(1 << 30).unwrap();
    let of = |name: &str, start| ReadLinesRequest { path: format!("logs/{name}"), ..follow(start) };
    let flush = Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 });
    let mut streams = Vec::new();
    for request in [
        of("whole", Some(Start::Last(0))),
        of("whole", Some(Start::FromLine(100))),
        of("part", Some(Start::Last(0))),
        of("part", None),
        of("part", Some(Start::FromLine(2))),
        ReadLinesRequest { partial_flush: flush, ..of("part", None) },
        of("empty", Some(Start::Last(0))),
        of("empty", None),
        of("gone", None),
        of("rotated", None),
        of("reserved", None),
        of("reserved", Some(Start::Last(0))),
        ReadLinesRequest { wait_for_create: true, ..of("none", None) },
        ReadLinesRequest { wait_for_create: true, ..of("none/none", None) },
    ] {
        for _ in 0..EACH {
            let mut stream = client.read_lines(request.clone()).await.unwrap().into_inner();
            soon("the first response", stream.message()).await.unwrap().unwrap();
            streams.push((request.path.clone(), stream));
        }
    }
    fs::remove_file(logs.join("gone")).unwrap();
    fs::rename(logs.join("rotated"), logs.join("rotated.1")).unwrap();
    for (_, stream) in streams.iter_mut().filter(|(path, _)| path == "logs/gone" || path == "logs/rotated") {
        let reported = soon("deleted", stream.message()).await.unwrap().unwrap();
        assert!(matches!(reported.events[0].event, Some(Event::Deleted(_))), "{reported:?}");
    }
    let before = cpu(server.id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = cpu(server.id()).saturating_sub(before);
    assert!(used < Duration::from_millis(250), "{} waiting streams took {used:?} in a second", streams.len());
}
