//! What may happen to two logs and their readers.

use proptest::{collection::vec, prelude::*};

/// How logs are handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// Rotated by one scheme of names, and copied; nothing is ever destroyed. No loss may be reported.
    Gentle,
    /// In any way: truncated, saved, replaced, deleted, moved out of sight.
    Rough,
    /// The same, where the path is a link.
    Linked,
}

/// How a rotation names the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Naming {
    /// The newest is `.1`, and all others move up.
    Numbers,
    /// The newest has the highest number.
    Upward,
    /// `-20261101`, `-20261102`, …
    Dates,
}

/// Where a file is moved to.
#[derive(Clone, Copy, Debug)]
pub enum Away {
    /// By the naming of the story.
    Rotated,
    /// Its mark is before the extension, or in front.
    Marked,
    /// It has another extension.
    Extension,
    /// To another directory.
    Directory,
    /// To any other name.
    Elsewhere,
}

/// What a file is replaced by that is renamed onto its path.
#[derive(Clone, Copy, Debug)]
pub enum Replacement {
    /// All of it, and this many new lines: `rsync`.
    Longer(usize),
    /// Its last lines: `tail -n N f > g && mv g f`.
    Tail(usize),
    /// Without each third line: `sed -i /…/d`.
    Thinned,
}

/// Something that happens to a log or to its reader.
#[derive(Clone, Copy, Debug)]
pub enum Happens {
    /// Lines are written, with this much padding each.
    Append { lines: usize, padding: usize },
    /// A line is written in two writes, and read in between.
    InParts,
    /// Lines are written to the file that the writer has left.
    Late { lines: usize },
    /// The file is renamed; the writer opens a new one at once, or only with its next line.
    Rotate { away: Away, reopens: bool },
    /// The writer opens its path.
    Reopen,
    /// The file that was moved away last comes back, if none is at the path.
    Back,
    /// A copy is put beside it.
    Copy,
    /// It is copied to where a rotation would put it, and truncated.
    CopyTruncate,
    /// It is emptied.
    Truncate,
    /// Half of its lines are cut off.
    Shorten,
    /// It is written again in place; `edits` changes a line.
    Save { edits: bool, more: usize },
    /// Another file is renamed onto it.
    Replace(Replacement),
    /// It is deleted.
    Delete { reopens: bool },
    /// The link is pointed elsewhere.
    Retarget(usize),
    /// The next file that is created was born before all others.
    ClockStep,
    /// The reader reads for this long.
    Read { millis: u64 },
    /// The reader reads until it has everything that it can have.
    CatchUp,
    /// The reader is cut.
    Cut,
    /// It continues, on a server that was restarted or on the same.
    Resume { restarts: bool },
}

/// Two logs, and what happens to either.
#[derive(Clone, Debug)]
pub struct Story {
    pub manner: Manner,
    pub names: (&'static str, &'static str),
    pub naming: Naming,
    pub in_memory: bool,
    pub happens: Vec<(bool, Happens)>,
}

/// How many files a link may be pointed to.
pub const TARGETS: usize = 3;

const NAMES: [(&str, &str); 6] = [
    ("node1", "node10"),
    ("task.stdout.1", "task.stdout.10"),
    ("access", "access-20"),
    ("app.log", "app.log.2"),
    ("app.log.1234", "app.log.12345"),
    ("app.log", "app-1.log"),
];

/// All stories of a manner.
pub fn stories(manner: Manner) -> impl Strategy<Value = Story> {
    let naming = prop_oneof![Just(Naming::Numbers), Just(Naming::Upward), Just(Naming::Dates)];
    let happens = vec((prop::bool::weighted(0.3), happens(manner)), 3..40);
    (prop::sample::select(&NAMES[..]), naming, any::<bool>(), happens).prop_map(
        move |(names, naming, in_memory, happens)| {
            // Numbers would give one of these names to a rotation of the other log.
            let naming = if names.1 == "app.log.2" { Naming::Dates } else { naming };
            Story { manner, names, naming, in_memory, happens }
        },
    )
}

fn happens(manner: Manner) -> BoxedStrategy<Happens> {
    use Happens::*;
    let small = || 0..3_usize;
    let anywhere = prop_oneof![
        4 => Just(Away::Rotated),
        1 => Just(Away::Marked),
        1 => Just(Away::Extension),
        1 => Just(Away::Directory),
        1 => Just(Away::Elsewhere),
    ];
    let away = if manner == Manner::Gentle { Just(Away::Rotated).boxed() } else { anywhere.boxed() };
    let gentle = prop_oneof![
        6 => (1..6_usize, 0..200_usize).prop_map(|(lines, padding)| Append { lines, padding }),
        1 => (10..40_usize, 100..300_usize).prop_map(|(lines, padding)| Append { lines, padding }),
        1 => Just(InParts),
        2 => (1..4_usize).prop_map(|lines| Late { lines }),
        4 => (away, any::<bool>()).prop_map(|(away, reopens)| Rotate { away, reopens }),
        1 => Just(Reopen),
        1 => Just(Copy),
        1 => Just(ClockStep),
        4 => (0..30_u64).prop_map(|millis| Read { millis }),
        1 => (60..150_u64).prop_map(|millis| Read { millis }),
        2 => Just(CatchUp),
        2 => Just(Cut),
        2 => any::<bool>().prop_map(|restarts| Resume { restarts }),
    ];
    let rough = prop_oneof![
        1 => Just(Back),
        1 => Just(CopyTruncate),
        1 => Just(Truncate),
        1 => Just(Shorten),
        2 => (any::<bool>(), small()).prop_map(|(edits, more)| Save { edits, more }),
        1 => small().prop_map(|more| Replace(Replacement::Longer(more))),
        1 => (1..30_usize).prop_map(|lines| Replace(Replacement::Tail(lines))),
        1 => Just(Replace(Replacement::Thinned)),
        1 => any::<bool>().prop_map(|reopens| Delete { reopens }),
    ];
    let linked = (0..TARGETS).prop_map(Retarget);
    match manner {
        Manner::Gentle => gentle.boxed(),
        Manner::Rough => prop_oneof![3 => gentle, 1 => rough].boxed(),
        Manner::Linked => prop_oneof![12 => gentle, 1 => rough, 3 => linked].boxed(),
    }
}
