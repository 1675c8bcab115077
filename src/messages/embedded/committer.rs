//! The one thread that writes: group commit.
//!
//! It takes all requests that wait, gives each message its sequence, and writes them as blocks with one write and one
//! fdatasync; then readers see them and publishers are answered. While it syncs, further requests gather, so the
//! more publishers there are, the more a sync is worth. A write that finds no room is taken back, and the log goes on
//! when there is room. After any other failure the log takes nothing more: what the page cache shows after a failed
//! sync proves nothing, so only a restart, which reads the tail back, goes on.

use std::{collections::HashMap, fs::File, io, path::PathBuf, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Shared,
    block::{self, Block, Entry},
    dedupe::Dedupe,
    nanos, segment_name, time_of,
};
use crate::{
    messages::{Content, Error, NewMessage, Published},
    wire::message,
};

/// A block is closed when its body has so many bytes: a reader reads a block as a whole.
const BLOCK_BYTES: usize = 64 * 1024;

/// A commit takes no further request when it has so many bytes: more would only delay the answers.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// How often ids that are out of the window are forgotten in topics that are quiet.
const SWEEP_NANOS: u64 = 60_000_000_000;

/// Messages to publish, checked.
#[derive(Debug)]
pub struct Request {
    /// In order.
    pub messages: Vec<NewMessage>,
    /// All or none.
    pub is_atomic: bool,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Outcome>,
    /// The room that the request takes in the queue; free again when it is answered.
    pub room: OwnedSemaphorePermit,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Each message's own.
    Each(Vec<Result<Published, Error>>),
    /// An atomic request was not published, because of this one of its messages.
    None(usize, Error),
}

/// Writes the log. It runs until all senders are gone, and commits what they left.
#[derive(Debug)]
pub struct Committer {
    /// What readers see.
    pub shared: Arc<Shared>,
    /// Where segments are.
    pub directory: PathBuf,
    /// The segment being written.
    pub file: Arc<File>,
    /// Where its next block goes.
    pub offset: u64,
    /// Of the next message.
    pub next_sequence: u64,
    /// Of the newest message.
    pub last_time: u64,
    /// Ids published lately.
    pub dedupe: Dedupe,
    /// When [`Dedupe::sweep`] was last called.
    pub last_sweep: u64,
}

/// Requests and what became of them, not yet on disk.
struct Commit {
    time: u64,
    blocks: Vec<Block>,
    draft: Draft,
    bytes: usize,
    answers: Vec<(oneshot::Sender<Outcome>, Outcome, OwnedSemaphorePermit)>,
}

/// A block that is being filled.
#[derive(Default)]
struct Draft {
    first_sequence: u64,
    topics: Vec<Arc<str>>,
    /// The topic's place in the list, and its last sequence.
    by_topic: HashMap<Arc<str>, (usize, u64)>,
    by_id: HashMap<(usize, Box<str>), u64>,
    entries: Vec<Entry>,
    body: Vec<u8>,
}

impl Committer {
    /// Runs on a thread of its own.
    pub fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.blocking_recv() {
            let mut commit = self.begin();
            self.take(&mut commit, request);
            while commit.bytes < COMMIT_BYTES
                && let Ok(request) = requests.try_recv()
            {
                self.take(&mut commit, request);
            }
            self.finish(commit);
        }
    }

    fn begin(&self) -> Commit {
        // A wall clock that was set back does not take the log with it.
        let time = nanos(SystemTime::now()).max(self.last_time);
        let draft = Draft { first_sequence: self.next_sequence, ..Draft::default() };
        Commit { time, blocks: Vec::new(), draft, bytes: 0, answers: Vec::new() }
    }

    fn take(&self, commit: &mut Commit, request: Request) {
        let Request { messages, is_atomic, reply, room } = request;
        let mut results = Vec::with_capacity(messages.len());
        let mark = (commit.draft.entries.len(), commit.draft.body.len());
        for (index, message) in messages.iter().enumerate() {
            let result = self.place(commit, message);
            match result {
                Err(error) if is_atomic => {
                    commit.draft.roll_back(mark);
                    commit.answers.push((reply, Outcome::None(index, error), room));
                    return;
                }
                result => results.push(result),
            }
            if !is_atomic {
                commit.close_block(BLOCK_BYTES);
            }
        }
        commit.close_block(BLOCK_BYTES);
        commit.answers.push((reply, Outcome::Each(results), room));
    }

    /// Gives a message its place in the commit, or finds that it has one.
    fn place(&self, commit: &mut Commit, new: &NewMessage) -> Result<Published, Error> {
        let (time, options) = (commit.time, &self.shared.options);
        let state = self.shared.state();
        let known = state.index.topic(&new.topic).map(|topic| topic.last.0);
        let in_blocks = commit.blocks.iter().rev().find_map(|block| last_in(block, &new.topic));
        let in_draft = commit.draft.by_topic.get(new.topic.as_str()).copied();
        if let Some(id) = &new.message_id {
            let earlier = in_draft
                .and_then(|(topic, _)| commit.draft.by_id.get(&(topic, id.as_str().into())).copied())
                .or_else(|| commit.blocks.iter().rev().find_map(|block| id_in(block, &new.topic, id)))
                .map(|sequence| (sequence, time))
                .or_else(|| self.dedupe.find(&new.topic, id, time));
            if let Some((sequence, time)) = earlier {
                return Ok(Published { sequence, time: time_of(time), duplicate: true });
            }
        }
        let current = in_draft.map(|(_, last)| last).or(in_blocks).or(known);
        if let Some(expected) = new.expected_sequence
            && expected != current.unwrap_or(0)
        {
            return Err(Error::SequenceMismatch { expected, current: current.unwrap_or(0) });
        }
        let is_new = current.is_none();
        if is_new && state.index.topic_count() + commit.new_topics() >= options.max_topics {
            return Err(Error::TooManyTopics { limit: options.max_topics });
        }
        drop(state);
        let sequence = commit.draft.push(new, time);
        Ok(Published { sequence, time: time_of(time), duplicate: false })
    }

    /// Writes a commit and answers its requests.
    fn finish(&mut self, mut commit: Commit) {
        commit.close_block(1);
        let result = if self.shared.has_failed() { Err(Error::Failed) } else { self.write(&commit.blocks) };
        if result.is_ok()
            && let Some(last) = commit.blocks.last()
        {
            self.next_sequence = last.last_sequence() + 1;
            self.last_time = commit.time;
            commit.blocks.iter().for_each(|block| self.dedupe.add(block));
            self.shared.head.send_replace(last.last_sequence());
        }
        if commit.time.saturating_sub(self.last_sweep) > SWEEP_NANOS {
            self.dedupe.sweep(commit.time);
            self.last_sweep = commit.time;
        }
        for (reply, outcome, room) in commit.answers {
            let outcome = match (&result, outcome) {
                (Err(error), Outcome::Each(each)) => {
                    // A message that was wrong in itself is told so, whatever became of the others.
                    Outcome::Each(each.into_iter().map(|one| one.and(Err(error.repeat()))).collect())
                }
                (_, outcome) => outcome,
            };
            // Who is gone does not hear it; what was published stays.
            let _ = reply.send(outcome);
            drop(room);
        }
    }

    fn write(&mut self, blocks: &[Block]) -> Result<(), Error> {
        if blocks.is_empty() {
            return Ok(());
        }
        if self.offset >= self.shared.options.segment_bytes {
            self.roll().map_err(|error| self.failure(&error))?;
        }
        let parts = blocks.iter().map(Block::to_bytes).collect::<Vec<_>>();
        let bytes = parts.concat();
        let disk = &self.shared.options.disk;
        match disk.write(&self.file, &bytes, self.offset) {
            Ok(()) => disk.sync(&self.file).map_err(|error| self.fail(&error))?,
            Err(error) => {
                // What was written of it must not be there when there is room again.
                self.file.set_len(self.offset).map_err(|error| self.fail(&error))?;
                return Err(self.failure(&error));
            }
        }
        let mut state = self.shared.state_mut();
        for (block, part) in blocks.iter().zip(&parts) {
            let end = self.offset + part.len() as u64;
            state.index.add(block, self.offset, end);
            state.recent.push(block.clone());
            self.offset = end;
        }
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        let path = self.directory.join(segment_name(self.next_sequence));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let header = block::segment_header(self.shared.id, self.next_sequence);
        let disk = &self.shared.options.disk;
        let written = disk.write(&file, &header, 0).and_then(|()| disk.sync(&file));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()?;
        self.file = Arc::new(file);
        self.offset = header.len() as u64;
        self.shared.state_mut().index.add_segment(self.file.clone());
        Ok(())
    }

    /// No room is no failure.
    fn failure(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                tracing::warn!(%error, "no room for messages: publishing is refused, reading goes on");
                Error::Full
            }
            _ => self.fail(error),
        }
    }

    fn fail(&self, error: &io::Error) -> Error {
        tracing::error!(%error, "the log cannot be written: publishing is refused until a restart, reading goes on");
        self.shared.failed.send_replace(true);
        Error::Failed
    }
}

impl Commit {
    /// Closes the block being filled, if it has so many bytes.
    fn close_block(&mut self, bytes: usize) {
        if self.draft.body.len() < bytes {
            return;
        }
        let next = self.draft.first_sequence + self.draft.entries.len() as u64;
        let Draft { first_sequence, topics, entries, body, .. } =
            std::mem::replace(&mut self.draft, Draft { first_sequence: next, ..Draft::default() });
        self.bytes += body.len();
        self.blocks.push(Block { first_sequence, time: self.time, topics, entries, body: Bytes::from(body) });
    }

    /// At most so many topics are new in this commit.
    fn new_topics(&self) -> usize {
        self.draft.topics.len() + self.blocks.iter().map(|block| block.topics.len()).sum::<usize>()
    }
}

impl Draft {
    fn push(&mut self, new: &NewMessage, time: u64) -> u64 {
        let sequence = self.first_sequence + self.entries.len() as u64;
        let place = if let Some((place, last)) = self.by_topic.get_mut(new.topic.as_str()) {
            *last = sequence;
            *place
        } else {
            let name = Arc::<str>::from(new.topic.as_str());
            self.topics.push(name.clone());
            self.by_topic.insert(name, (self.topics.len() - 1, sequence));
            self.topics.len() - 1
        };
        if let Some(id) = &new.message_id {
            self.by_id.insert((place, id.as_str().into()), sequence);
        }
        let (content, is_text) = match &new.content {
            Content::Text(text) => (text.as_bytes(), true),
            Content::Data(data) => (data.as_ref(), false),
        };
        let start = self.body.len();
        message::put(
            &mut self.body,
            &message::Message {
                sequence,
                topic: &new.topic,
                time: time_of(time),
                key: new.key.as_deref(),
                headers: &new.headers,
                content,
                is_text,
                message_id: new.message_id.as_deref(),
            },
        );
        let range = start..self.body.len();
        let checksum = crc32c::crc32c(self.body.get(range.clone()).unwrap_or_default());
        let message_id = new.message_id.as_deref().map(Into::into);
        self.entries.push(Entry { topic: place, range, checksum, message_id });
        sequence
    }

    /// Forgets what came behind a mark.
    fn roll_back(&mut self, (entries, body): (usize, usize)) {
        self.entries.truncate(entries);
        self.body.truncate(body);
        let next = self.first_sequence + entries as u64;
        self.by_id.retain(|_, sequence| *sequence < next);
        let used = self.entries.iter().map(|entry| entry.topic + 1).max().unwrap_or(0);
        self.topics.truncate(used);
        self.by_topic.clear();
        for (place, name) in self.topics.iter().enumerate() {
            let last = self.entries.iter().rposition(|entry| entry.topic == place).unwrap_or(0);
            self.by_topic.insert(name.clone(), (place, self.first_sequence + last as u64));
        }
    }
}

/// The last sequence of a topic in a block.
fn last_in(block: &Block, topic: &str) -> Option<u64> {
    let place = block.topics.iter().position(|name| name.as_ref() == topic)?;
    let last = block.entries.iter().rposition(|entry| entry.topic == place)?;
    Some(block.first_sequence + last as u64)
}

/// The sequence of a message with an id in a block.
fn id_in(block: &Block, topic: &str, id: &str) -> Option<u64> {
    let place = block.topics.iter().position(|name| name.as_ref() == topic)?;
    let is_it = |entry: &Entry| entry.topic == place && entry.message_id.as_deref() == Some(id);
    Some(block.first_sequence + block.entries.iter().position(is_it)? as u64)
}
