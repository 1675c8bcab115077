//! The formats of compressed files, and their decompression.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::Arc,
};

use flate2::bufread::GzDecoder;
use zstd::stream::raw::{DParameter, Operation, Status};

use super::Fault;
use crate::lines::content::pread::read_at;

/// How much of the file is read at once.
const STORED_BYTES: usize = 64 * 1024;

/// The largest window of zstd, as a power of two: 8 MiB, which every level without `--ultra` and `--long` keeps.
const MAX_WINDOW_LOG: u32 = 23;

/// The start of a member of gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08";

/// How other formats begin.
const OTHERS: [(&[u8], &str); 7] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh91AY&SY", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"LZIP\x01", "lzip"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
];

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Gzip,
    Zstd,
    /// It cannot be decompressed here.
    Other(&'static str),
}

impl Format {
    /// By the first bytes of a file; `None` if it is not compressed.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; 16];
        let read = read_at(file, &mut head, 0)?;
        let head = head.get(..read).unwrap_or_default();
        let is_skippable =
            head.get(1..4) == Some(b"\x2a\x4d\x18") && head.first().is_some_and(|it| it >> 4 == 5);
        Ok(if head.starts_with(GZIP) {
            Some(Self::Gzip)
        } else if head.starts_with(b"\x28\xb5\x2f\xfd") || is_skippable {
            Some(Self::Zstd)
        } else {
            OTHERS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| Self::Other(name))
        })
    }
}

/// Decompresses a file from its start to its end: its members, which zstd calls frames, one after another.
pub struct Decoder {
    kind: Kind,
    /// How many bytes were decompressed.
    content: u64,
    /// How many of them are in members that were read to their end, where their checksum was compared.
    confirmed: u64,
}

enum Kind {
    Gzip(Box<GzDecoder<Stored>>),
    /// A member of gzip has ended.
    Between(Stored),
    Zstd(Box<Frames>),
    /// It ended, after this many bytes of the file.
    Ended(u64),
}

/// The frames of a file of zstd.
struct Frames {
    decoder: zstd::stream::raw::Decoder<'static>,
    stored: Stored,
    /// A frame has ended.
    is_between: bool,
}

/// The result of a step.
enum Step {
    /// This many bytes, and perhaps the end of their member.
    Bytes {
        read: usize,
        is_member_end: bool,
    },
    End,
}

/// The bytes of the file.
type Stored = BufReader<At>;

/// A file and an offset in it: others read the same file.
struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = read_at(&*self.file, buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("stored", &self.stored()).finish_non_exhaustive()
    }
}

impl Decoder {
    pub fn new(file: Arc<File>, format: Format) -> io::Result<Self> {
        let stored = BufReader::with_capacity(STORED_BYTES, At { file, offset: 0 });
        let kind = match format {
            Format::Gzip => Kind::Gzip(Box::new(GzDecoder::new(stored))),
            Format::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
                Kind::Zstd(Box::new(Frames { decoder, stored, is_between: false }))
            }
            Format::Other(_) => Kind::Ended(0),
        };
        Ok(Self { kind, content: 0, confirmed: 0 })
    }

    /// How many bytes of the file were read.
    pub fn stored(&self) -> u64 {
        match &self.kind {
            Kind::Gzip(member) => member.get_ref().get_ref().offset,
            Kind::Between(stored) => stored.get_ref().offset,
            Kind::Zstd(frames) => frames.stored.get_ref().offset,
            Kind::Ended(stored) => *stored,
        }
    }

    /// How many bytes of the content were confirmed by their checksums.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Decompresses some bytes, perhaps none; `None` at the end. The fault of the archive, or the error of the file.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, io::Result<Fault>> {
        let step = match &mut self.kind {
            Kind::Gzip(member) => {
                let read = member.read(buffer);
                read.map(|read| Step::Bytes { read, is_member_end: read == 0 })
            }
            Kind::Between(stored) => at_member(stored),
            Kind::Zstd(frames) => frames.read(buffer),
            Kind::Ended(_) => Ok(Step::End),
        };
        let Step::Bytes { read, is_member_end } = step.map_err(fault)? else {
            self.kind = Kind::Ended(self.stored());
            return Ok(None);
        };
        self.content += read as u64;
        if is_member_end {
            self.confirmed = self.content;
        }
        // Both steps between two members of gzip have no bytes.
        if read == 0 && is_member_end {
            let kind = std::mem::replace(&mut self.kind, Kind::Ended(0));
            self.kind = match kind {
                Kind::Gzip(member) => Kind::Between(member.into_inner()),
                Kind::Between(stored) => Kind::Gzip(Box::new(GzDecoder::new(stored))),
                kind @ (Kind::Zstd(_) | Kind::Ended(_)) => kind,
            };
        }
        Ok(Some(read))
    }
}

/// The start of the content of a file, compressed or not, as far as it can be read.
pub fn head(file: &Arc<File>, most: usize) -> io::Result<Vec<u8>> {
    let (mut head, mut bytes) = (vec![0; most], 0);
    let mut decoder = Format::of(file)?.map(|format| Decoder::new(file.clone(), format)).transpose()?;
    while let Some(rest) = head.get_mut(bytes..).filter(|rest| !rest.is_empty()) {
        let read = match &mut decoder {
            None => Some(read_at(&**file, rest, bytes as u64)?).filter(|read| *read > 0),
            Some(decoder) => match decoder.read(rest) {
                Ok(read) => read,
                Err(fault) => {
                    fault?;
                    None
                }
            },
        };
        let Some(read) = read else { break };
        bytes += read;
    }
    head.truncate(bytes);
    Ok(head)
}

/// Looks for the next member of gzip, and says that the step between two members ends there. Zeros pad a file; other bytes
/// are a member whose start is damaged.
fn at_member(stored: &mut Stored) -> io::Result<Step> {
    let next = stored.fill_buf()?;
    if next.is_empty() {
        return Ok(Step::End);
    }
    let padding = next.iter().take_while(|byte| **byte == 0).count();
    let is_padding = padding == next.len();
    stored.consume(padding);
    if is_padding {
        return Ok(Step::Bytes { read: 0, is_member_end: false });
    }
    // It may be the start of a member that is being written.
    let is_member = stored.buffer().iter().zip(GZIP).all(|(one, other)| one == other);
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    if is_member { Ok(Step::Bytes { read: 0, is_member_end: true }) } else { Err(damaged()) }
}

impl Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        let input = self.stored.fill_buf()?;
        let is_end = input.is_empty();
        if self.is_between {
            if is_end {
                return Ok(Step::End);
            }
            let padding = input.iter().take_while(|byte| **byte == 0).count();
            if padding > 0 {
                self.stored.consume(padding);
                return Ok(Step::Bytes { read: 0, is_member_end: false });
            }
            self.decoder.reinit()?;
        }
        let Status { remaining, bytes_read, bytes_written } = self.decoder.run_on_buffers(input, buffer)?;
        self.stored.consume(bytes_read);
        self.is_between = remaining == 0;
        if is_end && bytes_written == 0 && !self.is_between {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Step::Bytes { read: bytes_written, is_member_end: self.is_between })
    }
}

/// The archive is at fault, not the file system.
fn is_fault(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// The fault of an archive. An error if it is the file system's.
fn fault(error: io::Error) -> io::Result<Fault> {
    if !is_fault(&error) {
        return Err(error);
    }
    Ok(match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Incomplete,
        _ if error.to_string().contains("too much memory") => Fault::Memory,
        _ => Fault::Corrupt,
    })
}
