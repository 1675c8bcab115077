//! Plays a story: two logs on a disk, each with a reader.

use std::{pin::pin, time::Duration};

use perennial::lines::{Error, Files, OnGap, Position, Query, Root, Start};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    disk::Disk,
    story::{Happens, Manner, Naming, Story},
};
use crate::bed::{Bed, ROOT, Reading, options, query_of};

/// How many turns a reader may be idle before it counts as having got all that it will get. Only a reader that missed a line
/// is waited for that long. A machine that gives this process no time for seconds makes a turn longer, and does not use
/// up turns.
const IDLE_TURNS: u32 = 400;

/// The time of a turn on a machine that has time.
const TURN: Duration = Duration::from_millis(20);

/// The same where the loss of each line that did not come was reported, as far as can be seen.
const SETTLED: Duration = Duration::from_millis(300);

/// How long to wait for lines that come again, when all came.
const AFTER: Duration = Duration::from_millis(30);

/// A log and its reader.
struct Log {
    disk: Disk,
    name: &'static str,
    files: Files,
    reading: Option<Reading>,
    position: Option<Position>,
}

/// Plays a story to its end; the first thing that is wrong.
pub async fn play(story: &Story) -> Result<(), String> {
    let bed = if story.in_memory { Bed::in_memory() } else { Bed::on_disk() };
    let (one, two) = story.names;
    let is_linked = story.manner == Manner::Linked;
    let is_step = |(_, happens): &(bool, Happens)| matches!(happens, Happens::ClockStep);
    // Numbers do not show which way they go.
    let is_ordered_by_times = story.naming == Naming::Upward && story.happens.iter().any(is_step);
    let log = |name, taken| Log {
        disk: Disk::new(&bed.path(""), name, story.naming, taken, is_linked),
        name,
        files: bed.files.clone(),
        reading: None,
        position: None,
    };
    let mut logs = [log(one, two), log(two, one)];
    for log in &mut logs {
        log.disk.is_ordered_by_times = is_ordered_by_times;
        log.disk.append(1, 0);
        log.resume(None).await?;
        log.catch_up().await?;
    }
    for (is_second, happens) in &story.happens {
        let log = &mut logs[usize::from(*is_second)];
        log.happens(&bed, *happens).await?;
    }
    for log in &mut logs {
        log.end(&bed, must_report_nothing(story)).await?;
    }
    Ok(())
}

/// Where the clock was set back, the times of files contradict their names; and where numbers go upward, a line that was
/// written late does. Then only the content shows the order, and an empty file has none.
fn must_report_nothing(story: &Story) -> bool {
    let is_late = |(_, happens): &(bool, Happens)| matches!(happens, Happens::Late { .. });
    let is_step = |(_, happens): &(bool, Happens)| matches!(happens, Happens::ClockStep);
    let is_late_upward = story.naming == Naming::Upward && story.happens.iter().any(is_late);
    let is_doubtful = is_late_upward || story.happens.iter().any(is_step);
    story.manner == Manner::Gentle && !is_doubtful
}

fn server(bed: &Bed) -> Files {
    Files::new(vec![Root::new(ROOT, bed.path(""))], options()).unwrap()
}

/// Ends when all turns are used up. A turn passes through a blocking thread, as a reader does.
async fn turns() {
    for _ in 0..IDLE_TURNS {
        sleep(TURN).await;
        tokio::task::spawn_blocking(|| {}).await.unwrap();
    }
}

impl Log {
    async fn happens(&mut self, bed: &Bed, happens: Happens) -> Result<(), String> {
        let disk = &mut self.disk;
        match happens {
            Happens::Append { lines, padding } => disk.append(lines, padding),
            Happens::InParts => {
                let rest = disk.first_part();
                self.read(Duration::from_millis(5)).await?;
                self.disk.second_part(&rest);
            }
            Happens::Late { .. } if disk.is_ordered_by_times => {}
            Happens::Late { lines } => disk.late(lines),
            Happens::Rotate { away, reopens } => disk.rotate(away, reopens),
            Happens::Reopen => disk.reopen(),
            Happens::Back => disk.back(),
            Happens::Copy => disk.copy(),
            Happens::CopyTruncate => disk.copy_truncate(),
            Happens::Truncate => disk.truncate(),
            Happens::Shorten => disk.shorten(),
            Happens::Save { edits, more } => disk.save(edits, more),
            Happens::Replace(by) => disk.replace(by),
            Happens::Delete { reopens } => disk.delete(reopens),
            Happens::Retarget(to) => disk.retarget(to),
            Happens::ClockStep => disk.is_early = true,
            Happens::Read { millis } => self.read(Duration::from_millis(millis)).await?,
            Happens::CatchUp => self.catch_up().await?,
            Happens::Cut => self.cut(),
            Happens::Resume { restarts } => self.resume(restarts.then_some(bed)).await?,
        }
        Ok(())
    }

    fn cut(&mut self) {
        self.reading = None;
        self.disk.cut();
    }

    /// Opens the reader again, if it was cut.
    async fn resume(&mut self, restarts: Option<&Bed>) -> Result<(), String> {
        if self.reading.is_some() {
            return Ok(());
        }
        if let Some(bed) = restarts {
            self.files = server(bed);
        }
        let start = self.position.clone().map_or(Start::Head, Start::Resume);
        let query = Query { follow: true, wait_for_create: true, ..query_of(self.name, start) };
        let reading = match Bed::try_open_on(&self.files, query.clone()).await {
            Err(Error::Expired) => {
                self.disk.ledger.take_expired();
                let query = Query { on_gap: OnGap::Skip, ..query };
                Bed::try_open_on(&self.files, query).await
            }
            opened => opened,
        };
        self.reading = Some(reading.map_err(|error| format!("{}: {error:?}", self.name))?);
        self.disk.is_away = false;
        // A server knows of the reader from here on.
        self.read(Duration::from_millis(1)).await
    }

    /// One batch that is no heartbeat, before the other future ends; false if none came.
    async fn batch(&mut self, until: impl Future<Output = ()>) -> Result<bool, String> {
        let Some(reading) = &mut self.reading else { return Ok(false) };
        let mut until = pin!(until);
        let mut events = Vec::new();
        while events.is_empty() && reading.texts().is_empty() {
            let batch = tokio::select! {
                biased;
                batch = reading.batch() => batch,
                () = &mut until => return Ok(false),
            };
            batch.ok_or("the stream ended")?;
            self.position.clone_from(&reading.position);
            events = reading.take_events();
        }
        for event in events {
            self.disk.ledger.take_event(event);
        }
        if let Some(odd) =
            reading.shown().into_iter().zip(reading.texts()).find(|(shown, text)| shown != text)
        {
            return Err(format!(
                "{}: a whole line came as {:?}\n{}",
                self.name,
                odd.0,
                self.disk.ledger.story()
            ));
        }
        for text in reading.take_texts() {
            self.disk.ledger.take_line(&text);
        }
        Ok(true)
    }

    async fn read(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while self.batch(sleep_until(until)).await? {}
        Ok(())
    }

    /// Reads until nothing is missing, or nothing comes any more.
    async fn catch_up(&mut self) -> Result<(), String> {
        while self.reading.is_some() && !self.disk.ledger.is_complete() {
            let misses = self.disk.ledger.missing().is_some();
            let has_come =
                if misses { self.batch(turns()).await? } else { self.batch(sleep(SETTLED)).await? };
            if !has_come {
                break;
            }
        }
        Ok(())
    }

    async fn end(&mut self, bed: &Bed, is_lossless: bool) -> Result<(), String> {
        self.resume(Some(bed).filter(|_| false)).await?;
        self.disk.reopen();
        self.disk.append(1, 0);
        self.catch_up().await?;
        self.read(AFTER).await?;
        self.disk.ledger.verdict()?;
        if is_lossless && self.disk.ledger.has_loss() {
            return Err(format!(
                "{}: a loss was reported, but there is none\n{}",
                self.name,
                self.disk.ledger.story()
            ));
        }
        Ok(())
    }
}
