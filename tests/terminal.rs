//! `perennial` on a terminal: questions, and the display of a countdown.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at its first surprise")]

mod harness;

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use harness::{PATIENCE, Server, output::printed, signal, wait};
use rustix::{
    fs::{Mode, OFlags, open},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    controller: OwnedFd,
    written: mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let user = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let copy = || Stdio::from(user.try_clone().unwrap());
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm").env("NO_COLOR", "1");
        let mut output = File::from(controller.try_clone().unwrap());
        let (sender, written) = mpsc::channel();
        resize(&controller, 80, 24);
        let child = command.spawn().unwrap();
        drop((command, user));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user has gone ends with an error.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                if sender.send(bytes.to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, controller, written, text: String::new() }
    }

    /// Waits until the terminal was sent a text, and returns all that it was sent up to then.
    fn until(&mut self, wanted: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while !self.text.contains(wanted) {
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self.written.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
        std::mem::take(&mut self.text)
    }

    /// Waits for the command to end: its exit code, and all that the terminal was sent since.
    fn end(&mut self) -> (Option<i32>, String) {
        let code = wait(&mut self.child).code();
        while let Ok(bytes) = self.written.recv_timeout(PATIENCE) {
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, std::mem::take(&mut self.text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(controller: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(controller, size).unwrap();
}

#[test]
fn ctrl_c_at_a_question_ends_its_line() {
    let server = Server::start();
    printed(&server, &["publish", "a", "text"]);
    let mut terminal = Terminal::start(server.client(&["purge", "a"]));
    let asked = terminal.until("[y/N] ");
    assert!(asked.ends_with("Remove all 1 messages of a, for good? [y/N] "), "{asked:?}");
    signal(&terminal.child, Signal::INT);
    assert_eq!(terminal.end(), (Some(130), "\r\n".into()));
    assert!(printed(&server, &["topics"]).contains(" a"));
}

#[test]
fn an_answered_question_leaves_no_empty_line() {
    let server = Server::start();
    printed(&server, &["publish", "a", "text"]);
    let mut terminal = Terminal::start(server.client(&["purge", "a"]));
    terminal.until("[y/N] ");
    rustix::io::write(&terminal.controller, b"y\n").unwrap();
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("y\r\n") && !text.starts_with("y\r\n\r\n"), "{text:?}");
}

#[test]
fn a_countdown_is_drawn_again_when_the_terminal_is_resized_and_leaves_one_line() {
    let server = Server::start();
    let mut terminal = Terminal::start(server.client(&["countdown", "3600"]));
    let large = terminal.until("running");
    assert!(large.contains("██"), "{large:?}");
    for (rows, is_large) in [(6, false), (24, true)] {
        resize(&terminal.controller, 80, rows);
        signal(&terminal.child, Signal::WINCH);
        // Frames of the old size may still be under way.
        loop {
            let frames = terminal.until("\u{1b}[?7h");
            let last = frames.rsplit("\u{1b}[?7l").next().unwrap();
            if last.contains('\n') == is_large {
                break;
            }
        }
    }
    signal(&terminal.child, Signal::INT);
    let (code, text) = terminal.end();
    assert_eq!(code, Some(130));
    let (_, left) = text.rsplit_once("\u{1b}[J\u{1b}[?25h").unwrap();
    let lines = left.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{left:?}");
    assert!(left.starts_with("countdown is running, ") && left.contains("--cursor"), "{left:?}");
}

#[test]
fn no_control_character_of_a_line_a_payload_a_name_or_an_error_reaches_a_terminal() {
    // Codes that clear the screen and set its title, in one byte and in two, the ends of lines, and no UTF-8.
    const HOSTILE: &[u8] = b"\x1b[2J\x1b]0;t\x07\x9b31m\xff\xc2\x9b1m\xc2\x85\x7f\x08\x00x";
    let (server, name) = (Server::start(), "\u{1b}[2J\u{9b}1m.log");
    std::fs::write(server.log_file("app.log"), [HOSTILE, b"\n"].concat()).unwrap();
    std::fs::write(server.log_file(name), [HOSTILE, b"\n"].concat()).unwrap();
    let payload = server.directory().join("payload");
    std::fs::write(&payload, HOSTILE).unwrap();
    printed(&server, &["publish", "a", "--file", payload.to_str().unwrap()]);
    let hostile = "\u{1b}[2J\u{9b}1m\r\nx";
    printed(&server, &["publish", "a", hostile, "--key", hostile, "--header", &format!("h={hostile}")]);
    let (named, unknown) = (format!("logs/{name}"), format!("logs/{hostile}"));
    let all = ["messages", "a", "--from", "earliest", "--until-caught-up"];
    for format in ["text", "json", "ndjson"] {
        for command in [
            &["lines", "logs/app.log"][..],
            &["lines", "logs/app.log", &named],
            &["files"],
            &["topics"],
            &all,
            &["lines", &unknown],
            &["messages", hostile],
            &["messages", "a", "--cursor", hostile],
            &["countdown", "--create", hostile, "10s"],
            &["health", hostile],
        ] {
            check_terminal(&server, &[&["-o", format], command].concat());
        }
    }
    check_terminal(&server, &[&all[..], &["--format", "{key} {text} {headers} {header.h}"]].concat());
    check_terminal(&server, &["lines", "--no-such-option", hostile]);
}

/// A command without colours sends a terminal text, tabs and the ends of lines.
fn check_terminal(server: &Server, arguments: &[&str]) {
    let (_, text) = Terminal::start(server.client(arguments)).end();
    let found = text.chars().find(|char| char.is_control() && !"\t\r\n".contains(*char));
    assert_eq!(found, None, "{arguments:?}: {text:?}");
    assert!(!text.is_empty(), "{arguments:?}");
}
