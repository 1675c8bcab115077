//! The durable feed beside JetStream, durable-streams and tonic: what it takes to publish, to read again, to deliver to many, to hold
//! many topics and to open a large log. Each line has an aim, and says whether it was reached.

use crate::{Plan, Result};

mod durable_streams;
mod fanout;
mod growth;
mod load;
mod million;
mod nats;
mod ours;
mod publish;
mod replay;
mod report;
mod system;
mod wire;

use report::{Line, summary};

/// What can be run by itself.
pub const PARTS: [&str; 8] = ["stream", "unary", "single", "replay", "live", "topics", "million", "opening"];

/// Runs the parts and prints their figures as they come, and then the summary.
pub async fn run(plan: Plan) -> Result<()> {
    match nats::missing() {
        Some(why) => println!("\nnats-server is not run: {why}"),
        None => println!("\nBeside {}.", nats::version()?),
    }
    if let Some(why) = durable_streams::missing() {
        println!("durable-streams-server is not run: {why}");
    }
    let mut lines: Vec<Line> = Vec::new();
    for part in PARTS.into_iter().filter(|part| plan.part.is_none_or(|asked| asked == *part)) {
        lines.extend(match part {
            "stream" => publish::stream(plan).await?,
            "unary" => publish::unary(plan).await?,
            "single" => publish::single(plan).await?,
            "replay" => replay::run(plan).await?,
            "live" => fanout::run(plan).await?,
            "topics" => growth::topics(plan).await?,
            "million" => million::run(plan).await?,
            "opening" => growth::opening(plan).await?,
            _ => return Err("there is no such part".into()),
        });
    }
    summary(&lines)
}
