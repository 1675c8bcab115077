//! Compares Perennial with what one would write without it. `docs/benchmarks.md` says what is measured, and how.
//!
//! `cargo bench` runs all; `cargo bench -- lines` one; `--quick` makes it short, `--runs N` sets how often each runs,
//! `--gib N` how large a log `feed` opens, `--part NAME` which part of `feed`, `countdown`, `follow` or `messages` to run.
//! `BENCH_PERENNIALD` in the environment names another build of our server to measure.

use std::num::{NonZeroU64, NonZeroUsize};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

mod control;
mod countdown;
mod crowd;
mod feed;
mod follow;
mod follower;
mod lines;
mod measure;
mod messages;
mod peer;
mod places;
mod process;
mod situations;
mod torture;
mod writer;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be asked for, in the order in which all are run.
const SCENARIOS: [&str; 9] =
    ["lines", "messages", "feed", "countdown", "stalled", "follow", "places", "torture", "situations"];

/// How long, and how often, to measure.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    quick: bool,
    runs: Option<usize>,
    /// How large the log is that is opened.
    gib: Option<u64>,
    /// The one part of `feed`, `countdown`, `follow` or `messages` to run.
    part: Option<&'static str>,
}

impl Plan {
    /// The number of runs: as asked, or this default.
    fn runs(self, full: usize, quick: usize) -> usize {
        self.runs.unwrap_or(if self.quick { quick } else { full })
    }
}

/// A directory for a log, on the disk of the build: `/tmp` may be memory.
fn directory() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

fn main() -> Result<()> {
    // Cargo itself adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new()?;
    if arguments.first().is_some_and(|argument| argument == "peer") {
        return runtime.block_on(peer::serve());
    }
    let (plan, asked) = understand(arguments)?;
    raise_descriptors()?;
    let mut failed = Vec::new();
    for scenario in SCENARIOS.into_iter().filter(|name| asked.is_empty() || asked.iter().any(|a| a == name)) {
        // What goes wrong in one says nothing of the others.
        if let Err(error) = runtime.block_on(run(scenario, plan)) {
            eprintln!("\n{scenario}: {error}");
            failed.push(scenario);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("went wrong: {}", failed.join(", ")).into()) }
}

async fn run(scenario: &str, plan: Plan) -> Result<()> {
    match scenario {
        "lines" => lines::bulk(plan).await,
        "messages" => messages::run(plan).await,
        "feed" => feed::run(plan).await,
        "countdown" => countdown::run(plan).await,
        "stalled" => lines::stalled(plan).await,
        "follow" => follow::run(plan).await,
        "places" => places::run(plan).await,
        "torture" => torture::torture(plan).await,
        "situations" => situations::run(plan).await,
        _ => Err("there is no such scenario".into()),
    }
}

/// How to measure, and the scenarios that were asked for.
fn understand(arguments: Vec<String>) -> Result<(Plan, Vec<String>)> {
    let (mut plan, mut asked) = (Plan::default(), Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => plan.quick = true,
            "--runs" => {
                let runs: NonZeroUsize = arguments.next().ok_or("--runs needs a number")?.parse()?;
                plan.runs = Some(runs.get());
            }
            "--gib" => {
                let gib: NonZeroU64 = arguments.next().ok_or("--gib needs a number")?.parse()?;
                plan.gib = Some(gib.get());
            }
            "--part" => {
                let asked = arguments.next().unwrap_or_default();
                let parts = [&feed::PARTS[..], &countdown::PARTS, &follow::PARTS, &messages::PARTS];
                let known = || {
                    let [feed, countdown, follow, messages] = parts.map(|it| it.join(", "));
                    format!("{feed}; of countdown {countdown}; of follow {follow}; of messages {messages}")
                };
                let part = parts.concat().into_iter().find(|part| *part == asked);
                plan.part = Some(part.ok_or_else(|| format!("--part is, of feed, one of {}", known()))?);
            }
            scenario if SCENARIOS.contains(&scenario) => asked.push(argument),
            _ => {
                let known = SCENARIOS.join(", ");
                return Err(format!(
                    "there is no {argument:?}: {known}, --quick, --runs N, --gib N and --part NAME are possible"
                )
                .into());
            }
        }
    }
    Ok((plan, asked))
}

/// A thousand connections need more descriptors than many shells give; the servers inherit the limit.
fn raise_descriptors() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
