//! What a log costs when it has grown: the memory of many topics, and how long a large one takes to open.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use super::{
    load::{Load, Messages, SIZE, TOPICS},
    report::{Aim, Cost, Line, Meter, Runs, Unit},
    system::{Server, System},
};
use crate::{
    Plan, Result,
    measure::{head, row, to_f64},
};

/// Neither is a question of syncing: one way to set nats-server up is enough.
const SYSTEMS: [System; 2] = [System::Perennial, System::Default];

/// How many topics, and how many messages each.
const MANY_TOPICS: usize = 100_000;
const EACH: u64 = 10;
const QUICK_EACH: u64 = 2;

const MIB: f64 = 1_048_576.0;

/// The size of the log that is opened, unless another one is asked for.
const GIB: u64 = 10;
const QUICK_GIB: u64 = 1;

/// How many messages are published between two looks at the size.
const STEP: u64 = 200_000;

/// nats-server is filled with larger messages, lest it take a quarter of an hour.
const THEIR_SIZE: usize = 1024;

/// How long is published before a server is killed.
const BEFORE_KILL: Duration = Duration::from_millis(500);

/// The run fails if the server does not serve within this time.
const PATIENCE: Duration = Duration::from_secs(300);

/// The memory of many topics.
pub async fn topics(plan: Plan) -> Result<Vec<Line>> {
    let messages = Messages::new(MANY_TOPICS, SIZE);
    let each = if plan.quick { QUICK_EACH } else { EACH };
    let runs = Runs::take(&SYSTEMS, 1, async |system| {
        let server = Server::start(system).await?;
        let empty = server.process().memory()?;
        let meter = Meter::start(server.process())?;
        let count = server.publish(&messages, &Load::counted(each * MANY_TOPICS as u64)).await?;
        let memory = server.process().memory()?;
        let note = format!("RSS {:.0} MiB, {:.0} MiB when empty", to_f64(memory) / MIB, to_f64(empty) / MIB);
        Ok(Cost { note, bytes: memory, ..meter.stop(server.process(), count)? })
    })
    .await;
    runs.print(&format!("{MANY_TOPICS} topics, {each} messages each, as they are published"));
    let memory = |cost: &Cost| to_f64(cost.bytes) / MIB;
    Ok(vec![runs.line(
        &format!("memory with {MANY_TOPICS} topics"),
        Unit::Mebibytes,
        Aim::AtMost(200.0),
        memory,
    )])
}

/// How long a large log takes to open: after a clean stop, and after a kill in the middle of publishing.
pub async fn opening(plan: Plan) -> Result<Vec<Line>> {
    let gib = plan.gib.unwrap_or(if plan.quick { QUICK_GIB } else { GIB });
    let mut costs = Vec::new();
    for system in SYSTEMS {
        costs.push(match system.missing() {
            Some(_) => Err("not run".to_owned()),
            None => open_both(system, gib << 30).await.map_err(|error| format!("went wrong: {error}")),
        });
    }
    let part = |which: fn(&[Cost; 2]) -> &Cost| {
        let costs = costs.iter().map(|costs| costs.as_ref().map(|both| vec![which(both).clone()]));
        Runs::of(SYSTEMS.into_iter().zip(costs.map(|costs| costs.map_err(Clone::clone))))
    };
    let (stopped, killed) = (part(|[stopped, _]| stopped), part(|[_, killed]| killed));
    head(&format!("Opening {gib} GiB: until the last message is served"), &OPENINGS);
    for (system, costs) in SYSTEMS.into_iter().zip(&costs) {
        match costs {
            Ok(both) => print(system, both),
            Err(why) => row(&[system.name().into(), why.clone()]),
        }
    }
    let seconds = |cost: &Cost| cost.wall.as_secs_f64();
    let what = format!("opening {gib} GiB after");
    Ok(vec![
        stopped.line(&format!("{what} a clean stop"), Unit::Seconds, Aim::AtMost(2.0), seconds),
        killed.line(&format!("{what} kill -9"), Unit::Seconds, Aim::AtMost(2.0), seconds),
    ])
}

const OPENINGS: [&str; 5] = ["server", "after", "seconds", "server CPU", "note"];

fn print(system: System, both: &[Cost; 2]) {
    for (cost, after) in both.iter().zip(["a clean stop", "kill -9 while publishing"]) {
        let [wall, cpu] = [cost.wall, cost.server].map(|time| format!("{:.2} s", time.as_secs_f64()));
        row(&[system.name().into(), after.into(), wall, cpu, cost.note.clone()]);
    }
}

async fn open_both(system: System, bytes: u64) -> Result<[Cost; 2]> {
    let size = if system == System::Perennial { SIZE } else { THEIR_SIZE };
    let messages = Messages::new(TOPICS, size);
    let server = Server::start(system).await?;
    let mut load = Load::counted(STEP);
    while occupied(server.data())? < bytes {
        load.first += server.publish(&messages, &load).await?;
    }
    let grown = format!("{} messages of {size} B", load.first);
    let stopping = Instant::now();
    let data = server.stop()?;
    let stopping = format!("{grown}; it stopped in {:.2} s", stopping.elapsed().as_secs_f64());
    let (server, stopped) = open(system, data, load.last(), &stopping).await?;

    let grown_to = load.last();
    let more = Load { messages: u64::MAX, ..load };
    // It ends with the server.
    let _ = tokio::time::timeout(BEFORE_KILL, server.publish(&messages, &more)).await;
    if more.last() <= grown_to {
        return Err("nothing was acknowledged before the kill".into());
    }
    let data = server.kill();
    let (_, killed) = open(system, data, more.last(), &grown).await?;
    Ok([stopped, killed])
}

/// Opens a log that is not in the cache, and waits for its last sequence.
async fn open(system: System, data: TempDir, last: u64, note: &str) -> Result<(Server, Cost)> {
    forget(data.path())?;
    let start = Instant::now();
    let server = Server::open(system, data)?;
    let newest = tokio::time::timeout(PATIENCE, server.head()).await??;
    let wall = start.elapsed();
    let memory = to_f64(server.process().memory()?) / MIB;
    // What was acknowledged has to be there.
    let lost =
        if newest < last { format!("; acknowledged and lost: {}", last - newest) } else { String::new() };
    let note = format!("{note}; RSS {memory:.0} MiB{lost}");
    let cost = Cost { items: 1, wall, server: server.process().cpu()?, note, ..Cost::default() };
    Ok((server, cost))
}

/// Calls something with each file below a directory.
fn files(directory: &Path, each: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), each)?;
        } else {
            each(&entry.path())?;
        }
    }
    Ok(())
}

/// How many bytes the files below a directory occupy.
fn occupied(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    files(directory, &mut |file| {
        // A file may be gone meanwhile.
        bytes += fs::metadata(file).map_or(0, |file| file.blocks() * 512);
        Ok(())
    })?;
    Ok(bytes)
}

/// Has the system read the files from the disk when they are opened next.
fn forget(directory: &Path) -> Result<()> {
    Ok(files(directory, &mut |file| {
        let file = File::open(file)?;
        file.sync_all()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    })?)
}
