//! Inputs that are like those of a corpus: one of it with some changes, which a failure reduces to a few.

use proptest::{collection::vec, prelude::*, sample::Index};

/// Up to this many changes of one input.
const MAX_CHANGES: usize = 8;

/// Up to this many bytes without a corpus.
const MAX_RANDOM: usize = 300;

/// An input does not grow beyond this by changes that repeat a part of it.
const MAX_BYTES: usize = 256 * 1024;

/// Numbers at which programs go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// An input, as it is made.
#[derive(Clone, Debug)]
pub struct Made {
    from: Option<Index>,
    random: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Replace(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Truncate(Index),
    /// Copies a part of the input to another place, by insertion or over the bytes there.
    Copy {
        part: Part,
        to: Index,
        replaces: bool,
    },
    /// The same with a part of another input.
    Splice {
        other: Index,
        part: Part,
        to: Index,
        replaces: bool,
    },
    Number {
        at: Index,
        number: Index,
        width: Width,
        is_big_endian: bool,
    },
    /// A number in the varints of protobuf and postcard.
    Varint(Index, Index),
    Word(Index, Index),
}

/// Where a part begins, and how long it is at most.
type Part = (Index, u16);

#[derive(Clone, Copy, Debug)]
enum Width {
    Two,
    Four,
    Eight,
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    // Most parts are short.
    let part = || (at(), prop_oneof![4 => 1..32_u16, 1 => 1..5_000_u16]);
    let width = prop_oneof![Just(Width::Two), Just(Width::Four), Just(Width::Eight)];
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        4 => (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Change::Replace(at, bytes)),
        4 => (at(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        3 => (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => at().prop_map(Change::Truncate),
        3 => (part(), at(), any::<bool>()).prop_map(|(part, to, replaces)| Change::Copy { part, to, replaces }),
        3 => (at(), part(), at(), any::<bool>())
            .prop_map(|(other, part, to, replaces)| Change::Splice { other, part, to, replaces }),
        3 => (at(), at(), width, any::<bool>())
            .prop_map(|(at, number, width, is_big_endian)| Change::Number { at, number, width, is_big_endian }),
        3 => (at(), at()).prop_map(|(at, number)| Change::Varint(at, number)),
        5 => (at(), at()).prop_map(|(at, word)| Change::Word(at, word)),
    ]
}

/// Inputs of a corpus with changes, and a few of random bytes.
pub fn made() -> impl Strategy<Value = Made> {
    let random =
        vec(any::<u8>(), 0..MAX_RANDOM).prop_map(|random| Made { from: None, random, changes: Vec::new() });
    let changed = (any::<Index>(), vec(change(), 0..MAX_CHANGES)).prop_map(|(from, changes)| Made {
        from: Some(from),
        random: Vec::new(),
        changes,
    });
    prop_oneof![1 => random, 30 => changed]
}

impl Made {
    /// The bytes of the input.
    pub fn bytes(&self, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let Some(from) = &self.from else { return self.random.clone() };
        let mut bytes = from.get(corpus).clone();
        for change in &self.changes {
            change.apply(&mut bytes, corpus, words);
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
        // A place may also be the end.
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let cut = |(at, length): &Part, bytes: &[u8]| {
            let from = at.index(bytes.len() + 1);
            bytes[from..(from + usize::from(*length)).min(bytes.len())].to_vec()
        };
        let number = |number: &Index| *number.get(&NUMBERS);
        match self {
            Self::Flip(at, bit) => {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
            }
            Self::Replace(at, new) => put(bytes, place(at, bytes), new, true),
            Self::Insert(at, new) => put(bytes, place(at, bytes), new, false),
            Self::Remove(from, to) => {
                let (from, to) = (place(from, bytes), place(to, bytes));
                // Often a little, and at times a half.
                let to = if (from ^ to).is_multiple_of(4) { to } else { from + to % 8 };
                let (first, last) = (from.min(to), from.max(to).min(bytes.len()));
                bytes.drain(first..last);
            }
            Self::Truncate(at) => bytes.truncate(place(at, bytes)),
            Self::Copy { part, to, replaces } => {
                let part = cut(part, bytes);
                put(bytes, place(to, bytes), &part, *replaces);
            }
            Self::Splice { other, part, to, replaces } => {
                let other: &Vec<u8> = other.get(corpus);
                let part = cut(part, other);
                put(bytes, place(to, bytes), &part, *replaces);
            }
            Self::Number { at, number: index, width, is_big_endian } => {
                let number = number(index);
                let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                let width = match width {
                    Width::Two => 2,
                    Width::Four => 4,
                    Width::Eight => 8,
                };
                let new = if *is_big_endian { &big[8 - width..] } else { &little[..width] };
                put(bytes, place(at, bytes), new, true);
            }
            Self::Varint(at, index) => {
                let (mut number, mut new) = (number(index), Vec::new());
                while number >= 0x80 {
                    new.push(number.to_le_bytes()[0] | 0x80);
                    number >>= 7;
                }
                new.push(number.to_le_bytes()[0]);
                put(bytes, place(at, bytes), &new, true);
            }
            Self::Word(at, index) => {
                if !words.is_empty() {
                    put(bytes, place(at, bytes), index.get(words).as_bytes(), false);
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8], replaces: bool) {
    let end = if replaces { (at + new.len()).min(bytes.len()) } else { at };
    if bytes.len() + new.len() <= MAX_BYTES {
        bytes.splice(at..end, new.iter().copied());
    }
}
