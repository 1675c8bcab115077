//! Compares Perennial with what one would write without it. `docs/benchmarks.md` tells what is measured, and how.
//!
//! `cargo bench` runs all; `cargo bench -- lines` one; `--quick` makes it short.

use std::error::Error;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

mod countdown;
mod lines;
mod measure;
mod messages;
mod peer;
mod process;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// What can be asked for, in the order in which all are run.
const SCENARIOS: [&str; 4] = ["lines", "messages", "countdown", "stalled"];

/// How often a pair of runs alternates; odd, so that the median is a run.
const RUNS: usize = 5;

/// How long, and how often, to measure.
#[derive(Clone, Copy, Debug)]
struct Plan {
    quick: bool,
    runs: usize,
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
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let asked: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--quick").collect();
    if let Some(unknown) = asked.iter().find(|word| !SCENARIOS.contains(word)) {
        return Err(
            format!("there is no {unknown:?}: {} and --quick are possible", SCENARIOS.join(", ")).into()
        );
    }
    raise_descriptors()?;
    let plan = Plan { quick, runs: if quick { 1 } else { RUNS } };
    runtime.block_on(async {
        for scenario in SCENARIOS.into_iter().filter(|name| asked.is_empty() || asked.contains(name)) {
            match scenario {
                "lines" => lines::bulk(plan).await?,
                "messages" => messages::run(plan).await?,
                "countdown" => countdown::run(plan).await?,
                _ => lines::stalled(plan).await?,
            }
        }
        Ok(())
    })
}

/// A thousand connections need more descriptors than many shells give; the servers inherit the limit.
fn raise_descriptors() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
