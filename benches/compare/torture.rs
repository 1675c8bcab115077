//! What readers lose, get twice or get torn while a log is rotated under them.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use crate::{
    Plan, Result, directory,
    follower::{Follower, Reader, SILENCE, Sink},
    measure::{head, row},
    process::{Kind, Server},
    writer::{Story, Way, Writer},
};

/// How often each scenario runs.
const RUNS: usize = 10;
const QUICK_RUNS: usize = 2;

/// When all lines were seen, how long to wait for some that come again: longer than a server's check each second.
const LINGER: Duration = Duration::from_millis(1_500);

/// Both readers see each of these by itself before the writer starts in earnest: the first may have been there when
/// they opened the file, the second shows that they follow it.
const WARM_UP: usize = 2;

struct Scenario {
    name: &'static str,
    title: &'static str,
    lines: usize,
    width: usize,
    way: Way,
    readers: &'static [Reader],
}

const BOTH: &[Reader] = &[Reader::Perennial, Reader::Tail];

const RENAMES: Way = Way::Renames { count: 50, apart: Duration::from_millis(20), late: 6 };

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "renames",
        title: "50 renames 20 ms apart, 6 late lines each to the old file",
        lines: 10_300,
        width: 96,
        way: RENAMES,
        readers: BOTH,
    },
    Scenario {
        name: "halves",
        title: "each line in two writes",
        lines: 20_000,
        width: 96,
        way: Way::Halves { apart: Duration::from_micros(50) },
        readers: BOTH,
    },
    Scenario {
        name: "9kb",
        title: "lines of 9 KB, one write each",
        lines: 4_000,
        width: 9_000,
        way: Way::Whole { apart: Duration::from_micros(250) },
        readers: BOTH,
    },
    Scenario {
        name: "copytruncate",
        title: "50 copytruncates, each 50 ms after the last write",
        lines: 10_000,
        width: 96,
        // The writer goes on at full speed, so that the file is soon as large as it was.
        way: Way::CopyTruncates { count: 50, after: Duration::from_millis(50) },
        readers: BOTH,
    },
    Scenario {
        name: "storm",
        title: "200 renames 1 ms apart, 6 late lines each to the old file",
        lines: 11_200,
        width: 96,
        way: Way::Renames { count: 200, apart: Duration::from_millis(1), late: 6 },
        readers: BOTH,
    },
    Scenario {
        name: "cut",
        title: "50 renames 20 ms apart, the connection cut every 20–200 ms",
        lines: 10_300,
        width: 96,
        way: RENAMES,
        readers: &[Reader::PerennialCut],
    },
];

/// What a reader got of a story.
struct Tally {
    story: Story,
    /// How often each line came.
    seen: Vec<u32>,
    distinct: usize,
    torn: usize,
    /// How many different lines to wait for.
    target: usize,
    /// When the last line came.
    last: Option<Instant>,
    /// How long that was after the last write.
    lag: Duration,
    /// Why its stream ended, if it did.
    fault: Option<String>,
}

impl Sink for Tally {
    fn take(&mut self, line: &[u8]) {
        self.last = Some(Instant::now());
        let number = self.story.number(line);
        let Some(seen) = number.and_then(|number| self.seen.get_mut(number)) else {
            self.torn += 1;
            return;
        };
        *seen += 1;
        self.distinct += usize::from(*seen == 1);
    }

    fn is_full(&self) -> bool {
        self.distinct >= self.target
    }
}

impl Tally {
    fn new(story: Story) -> Self {
        let seen = vec![0; story.lines];
        Self { story, seen, distinct: 0, torn: 0, target: 0, last: None, lag: Duration::ZERO, fault: None }
    }

    fn lost(&self) -> usize {
        self.seen.iter().filter(|seen| **seen == 0).count()
    }

    fn twice(&self) -> usize {
        self.seen.iter().map(|seen| usize::try_from(seen.saturating_sub(1)).unwrap_or(usize::MAX)).sum()
    }

    fn is_right(&self) -> bool {
        self.lost() == 0 && self.twice() == 0 && self.torn == 0
    }
}

/// One run of a scenario, with one reader, in a directory of its own.
async fn run(scenario: &Scenario, reader: Reader, run: usize) -> Result<Tally> {
    let root = directory()?;
    let server = if reader.is_ours() { Some(Server::start(Kind::Perennial, root.path())?) } else { None };
    let Scenario { name, lines, width, way, .. } = *scenario;
    let story = Story { name, run, lines, width };
    let mut writer = Writer::create(root.path(), &story)?;
    let mut tally = Tally::new(story);
    writer.line()?;
    let mut follower = Follower::open(reader, root.path(), server.as_ref()).await?;
    for warm in 1..=WARM_UP {
        tally.target = warm;
        if !follower.fill(&mut tally, SILENCE).await? {
            return Err(format!("{}: {} is not live", name, reader.name()).into());
        }
        if warm < WARM_UP {
            writer.line()?;
        }
    }
    let writing = tokio::task::spawn_blocking(move || writer.finish(way).map(|()| Instant::now()));
    if let Err(error) = watch(&mut follower, &mut tally).await {
        tally.fault = Some(error.to_string());
    }
    let written = writing.await??;
    tally.lag = tally.last.map_or(Duration::ZERO, |last| last - written);
    Ok(tally)
}

/// Reads until all lines were seen and none comes again, or until nothing comes any more.
async fn watch(follower: &mut Follower<'_>, tally: &mut Tally) -> Result<()> {
    tally.target = tally.story.lines;
    if follower.fill(tally, SILENCE).await? {
        tally.target = usize::MAX;
        follower.fill(tally, LINGER).await?;
    }
    Ok(())
}

/// The least and the most of some counts.
fn range(counts: impl Iterator<Item = usize> + Clone) -> String {
    let (least, most) = (counts.clone().min().unwrap_or_default(), counts.max().unwrap_or_default());
    if least == most { most.to_string() } else { format!("{least}–{most}") }
}

fn show(scenario: &Scenario, reader: Reader, tallies: &[Tally]) {
    let counts: [fn(&Tally) -> usize; 3] = [Tally::lost, Tally::twice, |tally| tally.torn];
    let mut cells = vec![scenario.title.into(), scenario.lines.to_string(), reader.name().into()];
    cells.extend(counts.map(|count| range(tallies.iter().map(count))));
    cells.push(counts.map(|count| tallies.iter().map(count).sum::<usize>().to_string()).join(" / "));
    let lag = tallies.iter().map(|tally| tally.lag).max().unwrap_or_default();
    cells.push(format!("{:.1} ms", lag.as_secs_f64() * 1e3));
    row(&cells);
}

const COLUMNS: [&str; 8] = [
    "scenario",
    "lines",
    "reader",
    "lost",
    "twice",
    "torn",
    "lost / twice / torn, in all",
    "behind the writer, at most",
];

/// Prints what readers lose, get twice and get torn; an error if ours does any of it.
pub async fn torture(plan: Plan) -> Result<()> {
    let runs = plan.runs(RUNS, QUICK_RUNS);
    head(
        &format!(
            "Following a log that is rotated and written in pieces: {runs} runs each, least–most of a run"
        ),
        &COLUMNS,
    );
    let mut wrong = String::new();
    for scenario in &SCENARIOS {
        let mut tallies: Vec<Vec<Tally>> = scenario.readers.iter().map(|_| Vec::new()).collect();
        for number in 0..runs {
            for (reader, tallies) in scenario.readers.iter().zip(&mut tallies) {
                tallies.push(run(scenario, *reader, number).await?);
            }
        }
        for (reader, tallies) in scenario.readers.iter().zip(&tallies) {
            show(scenario, *reader, tallies);
            let bad = tallies.iter().filter(|tally| reader.is_ours() && !tally.is_right()).count();
            if bad > 0 {
                write!(wrong, "\n{}: {}: wrong in {bad} of {runs} runs", scenario.name, reader.name())?;
            }
            for fault in tallies.iter().filter_map(|tally| tally.fault.as_ref()) {
                write!(wrong, "\n{}: {}: {fault}", scenario.name, reader.name())?;
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}
