//! Floods of frames. Each is held in one of two ways: the server ends the connection, or it goes on and still answers.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the tests and the benches use a part of it each"
)]

use std::iter;

use crate::wire::{
    CHECK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_BYTES, GOAWAY, HEADERS, PING, PREFACE,
    PRIORITY, PUSH, RESET, SETTINGS, WINDOW, call, frame, header, open, whole,
};

/// How a flood is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// The server ends the connection.
    Cut,
    /// The connection still serves a call.
    Served,
}

/// A flood: one write a round.
pub struct Flood {
    pub name: &'static str,
    pub held: Held,
    /// Sent first.
    pub first: Vec<u8>,
    pub round: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
    /// The calls of a round that are answered before the next round.
    pub answered: usize,
}

/// The streams of a round.
pub const STREAMS: u32 = 100;

/// The first stream that no flood of `rounds` rounds uses.
pub fn unused_stream(rounds: u32) -> u32 {
    2 * STREAMS * (rounds + 1) + 1
}

fn flood(name: &'static str, held: Held, round: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Flood {
    Flood { name, held, first: Vec::new(), round: Box::new(round), answered: 0 }
}

/// A flood of streams: a round opens many.
fn streams(name: &'static str, held: Held, of: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Flood {
    flood(name, held, move |round| {
        (0..STREAMS).flat_map(|n| of(2 * (round * STREAMS + n) + 1)).collect::<Vec<_>>()
    })
}

/// A flood of calls that are answered.
fn calls(name: &'static str, of: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Flood {
    Flood { answered: STREAMS as usize, ..streams(name, Held::Served, of) }
}

fn many(count: usize, bytes: &[u8]) -> Vec<u8> {
    bytes.repeat(count)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &8_u32.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW, 0, stream, &more.to_be_bytes())
}

/// A stream with more headers.
fn with_headers(stream: u32, more: &[u8]) -> Vec<u8> {
    let mut block = call(CHECK);
    block.extend(more);
    let mut frames = Vec::new();
    let mut parts = block.chunks(FRAME_BYTES).peekable();
    let mut kind = (HEADERS, END_STREAM);
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frames.extend(frame(kind.0, kind.1 | end, stream, part));
        kind = (CONTINUATION, 0);
    }
    frames
}

/// Streams that the client makes the server reset (CVE-2025-8671).
fn made_resets() -> Vec<Flood> {
    vec![
        streams("made resets: a window that grows by 0", Held::Cut, |it| {
            [open(it, CHECK), window(it, 0)].concat()
        }),
        streams("made resets: a window that overflows", Held::Cut, |it| {
            [open(it, CHECK), window(it, 0x7fff_ffff)].concat()
        }),
        streams("made resets: data after the end", Held::Cut, |it| {
            [whole(it, CHECK), frame(DATA, 0, it, &[0; 5])].concat()
        }),
        streams("made resets: headers after the end", Held::Cut, |it| {
            [whole(it, CHECK), frame(HEADERS, END_HEADERS | END_STREAM, it, &header("a", "b"))].concat()
        }),
        streams("made resets: a priority of 4 bytes", Held::Cut, |it| {
            [open(it, CHECK), frame(PRIORITY, 0, it, &[0; 4])].concat()
        }),
        streams("made resets: a stream that depends on itself", Held::Cut, |it| {
            [open(it, CHECK), frame(PRIORITY, 0, it, &[&it.to_be_bytes()[..], &[0]].concat())].concat()
        }),
        streams("made resets: a length that is not kept", Held::Cut, |it| {
            let block = [call(CHECK), header("content-length", "9")].concat();
            [frame(HEADERS, END_HEADERS, it, &block), frame(DATA, END_STREAM, it, &[0; 5])].concat()
        }),
    ]
}

fn of_headers() -> Vec<Flood> {
    let endless = |name, part: Vec<u8>| Flood {
        first: frame(HEADERS, 0, 1, &call(CHECK)),
        ..flood(name, Held::Cut, move |_| many(10, &frame(CONTINUATION, 0, 1, &part)))
    };
    let long = header(&"n".repeat(100), &"v".repeat(3_900));
    // An entry of the table of headers, and many references to it: it has the number 62.
    let entry = [&[0x40][..], &long[1..]].concat();
    let bomb = [entry, vec![0xbe; 8_000]].concat();
    vec![
        endless("CONTINUATION without end", many(4, &long)),
        endless("CONTINUATION without bytes", Vec::new()),
        streams("an HPACK bomb", Held::Cut, move |it| with_headers(it, &bomb)),
        streams("a list of headers of 64 KiB", Held::Cut, {
            let list = many(16, &long);
            move |it| with_headers(it, &list)
        }),
        streams("a header without a name", Held::Cut, |it| with_headers(it, &header("", "v"))),
        streams("a header in upper case", Held::Cut, |it| with_headers(it, &header("UPPER", "v"))),
        flood("changes of the size of the table of headers", Held::Served, |round| {
            // More than the two changes that a block may begin with.
            let block = [many(1_000, &[0x20]), call(CHECK)].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * round + 1, &block)
        }),
    ]
}

fn of_data() -> Vec<Flood> {
    let opened = |name, held, round: Vec<u8>| Flood {
        first: open(1, CHECK),
        ..flood(name, held, move |_| many(1_000, &round))
    };
    vec![
        opened("DATA without bytes", Held::Cut, frame(DATA, 0, 1, &[])),
        opened("DATA of padding only", Held::Cut, frame(DATA, 8, 1, &[&[99][..], &[0; 99]].concat())),
        calls("messages that are marked as compressed", |it| {
            let message = [&[1, 0, 0, 0, 100][..], &[0x1f; 100]].concat();
            [open(it, CHECK), frame(DATA, END_STREAM, it, &message)].concat()
        }),
        calls("trailers in requests", |it| {
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, it, &header("a", "b"));
            [open(it, CHECK), frame(DATA, 0, it, &[0; 5]), trailers].concat()
        }),
    ]
}

fn of_control() -> Vec<Flood> {
    vec![
        flood("PING", Held::Served, |_| many(1_000, &frame(PING, 0, 0, &[7; 8]))),
        flood("SETTINGS", Held::Served, |_| {
            many(1_000, &frame(SETTINGS, 0, 0, &[&[0, 4][..], &65_535_u32.to_be_bytes()].concat()))
        }),
        flood("PRIORITY of streams that were never opened", Held::Served, |round| {
            let of = |n: u32| frame(PRIORITY, 0, 2 * (round * 1_000 + n) + 1, &[0, 0, 0, 0, 7]);
            (0..1_000).flat_map(of).collect()
        }),
        flood("frames of an unknown kind", Held::Served, |_| many(1_000, &frame(0xee, 0xff, 0, &[9; 100]))),
        flood("GOAWAY", Held::Cut, |_| many(1_000, &frame(GOAWAY, 0, 0, &[0; 8]))),
        flood("a window of the connection that overflows", Held::Cut, |_| many(10, &window(0, 0x7fff_ffff))),
        flood("PUSH_PROMISE", Held::Cut, |_| frame(PUSH, END_HEADERS, 1, &[0, 0, 0, 2])),
        flood("frames that are too long", Held::Cut, |_| frame(DATA, 0, 1, &vec![0; FRAME_BYTES + 1])),
        flood("numbers of streams that are even", Held::Cut, |_| open(2, CHECK)),
    ]
}

/// All floods.
pub fn all() -> Vec<Flood> {
    let streams_of = vec![
        streams("rapid reset", Held::Cut, |it| [open(it, CHECK), reset(it)].concat()),
        streams("rapid reset of whole calls", Held::Cut, |it| [whole(it, CHECK), reset(it)].concat()),
        streams("streams above the limit of a connection", Held::Cut, |it| open(it, CHECK)),
    ];
    iter::empty()
        .chain(streams_of)
        .chain(made_resets())
        .chain(of_headers())
        .chain(of_data())
        .chain(of_control())
        .map(|flood| Flood { first: [PREFACE, &frame(SETTINGS, 0, 0, &[]), &flood.first].concat(), ..flood })
        .collect()
}
