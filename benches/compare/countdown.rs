//! How late ticks are: of one countdown, of many, and of ten thousand; what one costs, what a waiting stream takes, how
//! fast a reader that was away catches up, and whether a countdown drifts.

use std::{path::Path, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tonic::transport::Channel;

use self::ticks::{Late, Phase, Ticks, open_after};
use crate::{
    Plan, Result,
    control::{self, Control},
    measure::{each, head, kib, milliseconds, now, percentile, ratio, row, to_f64},
    process::{Kind, Server},
};

mod ticks;

/// What can be asked for, in the order in which all are run.
pub const PARTS: [&str; 9] =
    ["one", "fast", "many-fast", "one-phase", "random-phase", "apart", "catch-up", "memory", "drift"];

/// How long to measure.
const TIME: Duration = Duration::from_secs(20);
const QUICK_TIME: Duration = Duration::from_secs(5);

/// What opening put off is not counted.
const SETTLE: Duration = Duration::from_secs(2);

/// How many connections there are with one stream each: as many as the descriptors of a process allow by default.
pub const APART: usize = 9_900;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Runs the parts.
pub async fn run(plan: Plan) -> Result<()> {
    for part in PARTS.into_iter().filter(|part| plan.part.is_none_or(|asked| asked == *part)) {
        let time = if plan.quick { QUICK_TIME } else { TIME };
        let load =
            |connections, streams, interval, phase| Load { connections, streams, interval, phase, time };
        match part {
            "one" => lateness(&load(1, 1, 10 * MILLISECOND, Phase::Own)).await?,
            "fast" => lateness(&load(1, 1, MILLISECOND, Phase::Own)).await?,
            "many-fast" => lateness(&load(2, 20, MILLISECOND, Phase::Own)).await?,
            "one-phase" => lateness(&load(100, 10_000, SECOND, Phase::Shared)).await?,
            "random-phase" => lateness(&load(100, 10_000, SECOND, Phase::Own)).await?,
            "apart" => lateness(&load(APART, APART, SECOND, Phase::Shared)).await?,
            "catch-up" => catch_up(if plan.quick { 200_000 } else { 1_000_000 }).await?,
            "memory" => memory(if plan.quick { &[10_000] } else { &[10_000, 100_000] }).await?,
            _ => drift(if plan.quick { 10 * SECOND } else { 60 * SECOND }).await?,
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Load {
    connections: usize,
    streams: usize,
    interval: Duration,
    phase: Phase,
    time: Duration,
}

/// What a server gave under a load.
#[derive(Debug)]
struct Figures {
    late: Late,
    /// Nanoseconds a tick.
    cpu: f64,
    /// The ages of the control.
    control: Vec<i64>,
}

const COLUMNS: [&str; 7] =
    ["server", "ticks", "late when sent, p50", "p99", "late when it arrived, p50", "p99", "CPU a tick"];

async fn lateness(load: &Load) -> Result<()> {
    let Load { connections, streams, interval, phase, time } = load;
    let phase = if *phase == Phase::Shared { "of one phase" } else { "of random phase" };
    let title = format!(
        "Countdown: {streams} stream(s) {phase} on {connections} connection(s), {interval:?}, {} s",
        time.as_secs()
    );
    head(&title, &COLUMNS);
    let mut both = Vec::new();
    for kind in [Kind::Perennial, Kind::Tonic, Kind::Aio] {
        match kind.missing() {
            // It would take minutes to open ten thousand, and its ticks have a phase of their own.
            _ if kind == Kind::Aio && *streams > 1 => {}
            Some(why) => row(&[kind.name().into(), format!("not run: {why}")]),
            None => {
                let figures = measure(kind, load).await?;
                figures.print(kind);
                both.push(figures);
            }
        }
    }
    if let [ours, theirs, ..] = &both[..] {
        ours.compare(theirs);
        ours.print_control();
    }
    Ok(())
}

impl Figures {
    fn print(&self, kind: Kind) {
        let Self { late: Late { sent, arrived, .. }, cpu, .. } = self;
        row(&[
            kind.name().into(),
            sent.len().to_string(),
            milliseconds(percentile(sent, 50)),
            milliseconds(percentile(sent, 99)),
            milliseconds(percentile(arrived, 50)),
            milliseconds(percentile(arrived, 99)),
            format!("{:.1} µs", cpu / 1e3),
        ]);
    }

    /// The control has no time at which it is due, so its age stands where ticks arrive.
    fn print_control(&self) {
        let age = |per_cent| milliseconds(percentile(&self.control, per_cent));
        let none = String::new;
        row(&[control::NAME.into(), none(), none(), none(), age(50), age(99), none()]);
    }

    fn compare(&self, other: &Self) {
        let late = |of: fn(&Late) -> &Vec<i64>, per_cent| {
            let [ours, theirs] = [self, other].map(|figures| percentile(of(&figures.late), per_cent));
            ratio(to_f64(ours.unsigned_abs()), to_f64(theirs.unsigned_abs()))
        };
        row(&[
            "perennial / tonic".into(),
            String::new(),
            late(|late| &late.sent, 50),
            late(|late| &late.sent, 99),
            late(|late| &late.arrived, 50),
            late(|late| &late.arrived, 99),
            ratio(self.cpu, other.cpu),
        ]);
    }
}

async fn measure(kind: Kind, load: &Load) -> Result<Figures> {
    let server = Server::start(kind, Path::new("."))?;
    let channels = server.connections(load.connections).await?;
    let open = open(kind, &channels, load.streams, load.interval, load.phase).await?;
    let after = now() + i64::try_from(SETTLE.as_nanos())?;
    let begin = Instant::now() + SETTLE;
    let end = begin + load.time;
    let mut tasks: JoinSet<Result<Late>> = JoinSet::new();
    for ticks in open {
        tasks.spawn(async move {
            let mut late = Late::default();
            match timeout_at(end, ticks.take(&mut late, after)).await {
                Ok(ended) => ended.map(|()| late),
                Err(_) => Ok(late),
            }
        });
    }
    sleep_until(begin).await;
    let control = Control::start().await?;
    let cpu = server.cpu()?;
    sleep_until(end).await;
    let cpu = server.cpu()?.saturating_sub(cpu);
    let control = control.stop().await?;

    let mut late = Late::default();
    while let Some(one) = tasks.join_next().await {
        let one = one??;
        late.sent.extend(one.sent);
        late.arrived.extend(one.arrived);
    }
    late.sent.sort_unstable();
    late.arrived.sort_unstable();
    let cpu = each(cpu, late.sent.len().try_into()?);
    Ok(Figures { late, cpu, control })
}

async fn open(
    kind: Kind,
    channels: &[Channel],
    streams: usize,
    interval: Duration,
    phase: Phase,
) -> Result<Vec<Ticks>> {
    let mut open = Vec::with_capacity(streams);
    for channel in channels.iter().cycle().take(streams) {
        open.push(Ticks::open(kind, channel, interval, phase).await?);
    }
    Ok(open)
}

/// How fast a reader that was away gets each tick that it missed.
async fn catch_up(missed: i32) -> Result<()> {
    let title = format!("Countdown: {missed} ticks that were missed, each delivered");
    head(&title, &["server", "ticks", "ticks a second", "CPU a tick"]);
    let mut both = Vec::new();
    for kind in [Kind::Perennial, Kind::Tonic] {
        let server = Server::start(kind, Path::new("."))?;
        let channels = server.connections(1).await?;
        let channel = channels.first().ok_or("no connection")?;
        let (cpu, begin) = (server.cpu()?, Instant::now());
        let mut ticks = open_after(kind, channel, MILLISECOND, missed).await?;
        let (mut late, mut count) = (Late::default(), 0);
        while count < usize::try_from(missed)? {
            count += ticks.next(&mut late, i64::MAX).await?;
        }
        let rate = to_f64(count.try_into()?) / begin.elapsed().as_secs_f64();
        let cpu = each(server.cpu()?.saturating_sub(cpu), count.try_into()?);
        row(&[kind.name().into(), count.to_string(), format!("{rate:.0}"), format!("{cpu:.0} ns")]);
        both.push((rate, cpu));
    }
    if let [ours, theirs] = &both[..] {
        row(&["perennial / tonic".into(), String::new(), ratio(ours.0, theirs.0), ratio(ours.1, theirs.1)]);
    }
    Ok(())
}

/// What streams take that wait.
async fn memory(counts: &[usize]) -> Result<()> {
    const STREAMS: usize = 250;
    const MINUTE: Duration = Duration::from_secs(60);
    head(
        "Countdown: streams that wait, 250 on a connection",
        &["server", "streams", "memory a stream", "in all"],
    );
    for count in counts {
        for kind in [Kind::Perennial, Kind::Tonic] {
            let server = Server::start(kind, Path::new("."))?;
            let before = server.memory()?;
            let channels = server.connections(count.div_ceil(STREAMS)).await?;
            let mut open = open(kind, &channels, *count, MINUTE, Phase::Own).await?;
            for ticks in &mut open {
                ticks.next(&mut Late::default(), 0).await?;
            }
            sleep(SETTLE).await;
            let memory = to_f64(server.memory()?.saturating_sub(before));
            let each = memory / to_f64((*count).try_into()?);
            let all = format!("{:.0} MiB", memory / f64::from(1 << 20));
            row(&[kind.name().into(), count.to_string(), kib(each), all]);
        }
    }
    Ok(())
}

/// By how much the ticks move against the clock: the least late of the last tenth against that of the first.
async fn drift(time: Duration) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(10);
    let title = format!("Countdown: drift over {} s, one stream, 10 ms", time.as_secs());
    head(&title, &["server", "ticks", "by the client's clock", "by the server's due times"]);
    for kind in [Kind::Perennial, Kind::Tonic] {
        let server = Server::start(kind, Path::new("."))?;
        let channels = server.connections(1).await?;
        let channel = channels.first().ok_or("no connection")?;
        let mut ticks = Ticks::open(kind, channel, INTERVAL, Phase::Own).await?;
        let interval = i64::try_from(INTERVAL.as_nanos())?;
        let (mut late, mut at, mut due) = (Late::default(), Vec::new(), Vec::new());
        let end = Instant::now() + time;
        while Instant::now() < end {
            if ticks.next(&mut late, 0).await? > 0 {
                // When it came, and when it was due, less what lies between tick 0 and it.
                let (number, moment) = late.last;
                at.push(now() - interval * number);
                due.push(moment - interval * number);
            }
        }
        let tenth = at.len() / 10;
        let least = |ticks: &[i64]| ticks.iter().min().copied().unwrap_or_default();
        let last = at.get(at.len() - tenth..).unwrap_or_default();
        let moved = least(last) - least(at.get(..tenth).unwrap_or_default());
        let due = due.iter().max().zip(due.iter().min()).map_or(0, |(max, min)| max - min);
        let count = at.len();
        row(&[kind.name().into(), count.to_string(), milliseconds(moved), format!("{due} ns")]);
    }
    Ok(())
}
