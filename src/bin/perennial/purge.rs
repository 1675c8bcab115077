//! `perennial purge`: removes the messages of a topic. They cannot be restored, so it asks first.

use std::io::{self, BufRead, IsTerminal};

use perennial::client::Client;

use crate::{
    Failure, USAGE,
    arguments::{Format, Purge},
    output::{self, Problem},
    table,
};

/// The exit code if the answer is not yes.
const DECLINED: u8 = 1;

/// Purges a topic, after a confirmation.
pub async fn run(client: &Client, it: Purge, format: Format) -> Result<u8, Failure> {
    if !it.yes {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let text = "a purge cannot be undone, and there is no terminal to ask: add --yes";
            output::report(&Problem::usage(text, Some("--yes".into())));
            return Err(Failure::Reported(USAGE));
        }
        if !is_confirmed(client, &it).await? {
            output::note("nothing was removed");
            return Err(Failure::Reported(DECLINED));
        }
    }
    let count = client.purge_topic(&it.topic, it.until_sequence).await?;
    table::purged(count, format)
}

/// Asks for confirmation on the terminal.
async fn is_confirmed(client: &Client, it: &Purge) -> Result<bool, Failure> {
    let topics = client.list_topics(&it.topic).await?;
    let what = match (it.until_sequence, topics.first().filter(|topic| topic.name == it.topic)) {
        (Some(until), _) => format!("the messages of {} up to sequence {until}", it.topic),
        (None, Some(topic)) => {
            format!("all {} messages of {}", topic.message_count.unwrap_or_default(), it.topic)
        }
        (None, None) => format!("all messages of {}", it.topic),
    };
    let question = output::question(&format!("Remove {what}, for good? [y/N] "));
    // A read of a terminal cannot be cancelled, so a thread does it.
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(io::Error::other)??;
    if answer.ends_with('\n') {
        question.answered();
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
