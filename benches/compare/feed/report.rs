//! What a run cost, and the tables: each part's own as it ends, and the summary with the aims.

use std::time::{Duration, Instant};

use super::system::System;
use crate::{
    Result,
    measure::{each, head, median, row, to_f64},
    process::{Process, cpu},
};

/// What a run cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    pub items: u64,
    pub wall: Duration,
    /// CPU time of the server, and of the client.
    pub server: Duration,
    pub client: Duration,
    /// Memory or disk, where that is what counts.
    pub bytes: u64,
    /// How long single items took, in nanoseconds, sorted.
    pub took: Vec<i64>,
    /// What there is to say of it.
    pub note: String,
}

impl Cost {
    /// Items a second.
    pub fn rate(&self) -> f64 {
        to_f64(self.items) / self.wall.as_secs_f64()
    }

    /// Server CPU an item, in nanoseconds.
    pub fn server_each(&self) -> f64 {
        each(self.server, self.items)
    }

    /// This part of the items, in per cent, took no longer, in milliseconds.
    pub fn took(&self, per_cent: usize) -> f64 {
        let last = self.took.len().saturating_sub(1);
        let nanos = self.took.get(last * per_cent / 100).copied().unwrap_or_default();
        Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64() * 1e3
    }
}

/// Measures what something costs, from its beginning on.
pub struct Meter {
    start: Instant,
    server: Duration,
    client: Duration,
}

impl Meter {
    pub fn start(server: &Process) -> Result<Self> {
        Ok(Self { server: server.cpu()?, client: cpu("self")?, start: Instant::now() })
    }

    pub fn stop(self, server: &Process, items: u64) -> Result<Cost> {
        let wall = self.start.elapsed();
        let server = server.cpu()?.saturating_sub(self.server);
        let client = cpu("self")?.saturating_sub(self.client);
        Ok(Cost { items, wall, server, client, ..Cost::default() })
    }
}

/// A figure, or why there is none.
pub type Figure = Result<f64, String>;

/// What all runs of a part cost, for each system, or why it is not known.
pub struct Runs(Vec<(System, Result<Vec<Cost>, String>)>);

impl Runs {
    /// Runs each system this number of times, in alternation. A system that fails is not run again.
    pub async fn take(systems: &[System], runs: usize, run: impl AsyncFn(System) -> Result<Cost>) -> Self {
        let mut all: Vec<_> = systems
            .iter()
            .map(|system| match system.missing() {
                Some(_) => (*system, Err("not run".to_owned())),
                None => (*system, Ok(Vec::new())),
            })
            .collect();
        for _ in 0..runs {
            for (system, so_far) in &mut all {
                if let Ok(costs) = so_far {
                    match run(*system).await {
                        Ok(cost) => costs.push(cost),
                        Err(error) => *so_far = Err(format!("went wrong: {error}")),
                    }
                }
            }
        }
        Self(all)
    }

    /// What was measured in another way.
    pub fn of(costs: impl IntoIterator<Item = (System, Result<Vec<Cost>, String>)>) -> Self {
        Self(costs.into_iter().collect())
    }

    /// The median of a figure of a system's runs.
    fn figure(&self, system: System, figure: impl Fn(&Cost) -> f64) -> Figure {
        match self.0.iter().find(|(known, _)| *known == system) {
            Some((_, Ok(costs))) => Ok(median(costs.iter().map(figure))),
            Some((_, Err(why))) => Err(why.clone()),
            None => Err("–".into()),
        }
    }

    /// A line of the summary.
    pub fn line(&self, what: &str, unit: Unit, aim: Aim, figure: impl Fn(&Cost) -> f64) -> Line {
        let figure = |system| self.figure(system, &figure);
        Line {
            what: what.into(),
            unit,
            aim,
            ours: figure(System::Perennial),
            default: figure(System::Default),
            always: figure(System::Always),
            durable_streams: figure(System::DurableStreams),
            tonic: figure(System::Tonic),
        }
    }

    /// Prints all figures: medians, and the last run's note.
    pub fn print(&self, title: &str) {
        head(title, &COLUMNS);
        for (system, costs) in &self.0 {
            match costs {
                Ok(costs) => row(&cells(system.name(), costs)),
                Err(why) => row(&[system.name().into(), why.clone()]),
            }
        }
    }
}

const COLUMNS: [&str; 8] =
    ["server", "items", "an s", "p50", "p99", "server CPU an item", "client CPU an item", "note"];

fn cells(name: &str, costs: &[Cost]) -> [String; 8] {
    let value = |figure: &dyn Fn(&Cost) -> f64| median(costs.iter().map(figure));
    let took = |per_cent| match costs.first() {
        Some(cost) if !cost.took.is_empty() => {
            Unit::Milliseconds.show(median(costs.iter().map(|cost| cost.took(per_cent))))
        }
        _ => String::new(),
    };
    [
        name.into(),
        format!("{:.0}", value(&|cost| to_f64(cost.items))),
        format!("{:.0}", value(&Cost::rate)),
        took(50),
        took(99),
        Unit::Nanoseconds.show(value(&Cost::server_each)),
        Unit::Nanoseconds.show(value(&|cost| each(cost.client, cost.items))),
        costs.last().map(|cost| cost.note.clone()).unwrap_or_default(),
    ]
}

#[derive(Clone, Copy, Debug)]
pub enum Unit {
    PerSecond,
    Milliseconds,
    Nanoseconds,
    Mebibytes,
    Seconds,
    PerCent,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Nanoseconds => format!("{} ns", thousands(value)),
            Self::Mebibytes => format!("{value:.0} MiB"),
            Self::Seconds => format!("{value:.2} s"),
            Self::PerCent => format!("{value:.1} %"),
        }
    }
}

/// A rounded number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The aim for a figure of ours.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// At most this part of tonic's.
    OfTonic(f64),
    /// None: the figure is for comparison.
    None,
}

/// A line of the summary.
#[derive(Clone, Debug)]
pub struct Line {
    what: String,
    unit: Unit,
    aim: Aim,
    ours: Figure,
    default: Figure,
    always: Figure,
    durable_streams: Figure,
    tonic: Figure,
}

impl Line {
    fn aim(&self) -> String {
        match self.aim {
            Aim::AtLeast(aim) => format!("≥ {}", self.unit.show(aim)),
            Aim::AtMost(aim) => format!("≤ {}", self.unit.show(aim)),
            Aim::OfTonic(part) => format!("≤ {part} × tonic"),
            Aim::None => "–".into(),
        }
    }

    fn reached(&self) -> &'static str {
        let said = |reached| if reached { "yes" } else { "no" };
        match (self.aim, &self.ours, &self.tonic) {
            (Aim::None, _, _) => "–",
            (Aim::AtLeast(aim), Ok(ours), _) => said(*ours >= aim),
            (Aim::AtMost(aim), Ok(ours), _) => said(*ours <= aim),
            (Aim::OfTonic(part), Ok(ours), Ok(tonic)) => said(*ours <= part * tonic),
            _ => "not measured",
        }
    }

    fn cells(&self) -> Vec<String> {
        let show = |figure: &Figure| match figure {
            Ok(value) => self.unit.show(*value),
            Err(why) => why.clone(),
        };
        let mut cells = vec![self.what.clone(), show(&self.ours)];
        for theirs in [&self.default, &self.always, &self.durable_streams, &self.tonic] {
            cells.push(show(theirs));
            cells.push(match (&self.ours, theirs) {
                (Ok(ours), Ok(theirs)) => format!("{:.2}", ours / theirs),
                _ => String::new(),
            });
        }
        cells.extend([self.aim(), self.reached().into()]);
        cells
    }
}

/// Prints the summary; an error if a figure of ours is missing.
pub fn summary(lines: &[Line]) -> Result<()> {
    head(
        "Feed: the figures and their aims; ratios are ours / theirs",
        &[
            "",
            "perennial",
            "nats-server, default",
            "ratio",
            "sync always",
            "ratio",
            "durable-streams",
            "ratio",
            "tonic",
            "ratio",
            "aim",
            "reached",
        ],
    );
    for line in lines {
        row(&line.cells());
    }
    let failed: Vec<_> = lines.iter().filter(|line| line.ours.is_err()).map(|line| &*line.what).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
}
