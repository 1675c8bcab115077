//! The commands for shared countdowns. Each prints the state of the countdown after the call.

use std::path::Path;

use perennial::{
    client::Client,
    proto::{Countdown, end_message::Content, publish_request},
};

use crate::{
    Failure,
    arguments::{CountdownVerb, Create, Format},
    output, publish, table, time,
};

pub async fn run(client: &Client, verb: CountdownVerb, format: Format) -> Result<u8, Failure> {
    let countdown = match verb {
        CountdownVerb::Create(it) => create(client, *it).await?,
        CountdownVerb::Pause(it) => client.pause_countdown(&it.name, it.version.version).await?,
        CountdownVerb::Resume(it) => client.resume_countdown(&it.name, it.version.version).await?,
        CountdownVerb::Extend { name, by, version } => {
            client.extend_countdown(&name, time::to_proto(by), version.version).await?
        }
        CountdownVerb::Cancel(it) => client.cancel_countdown(&it.name, it.version.version).await?,
        CountdownVerb::Get { name } => client.get_countdown(&name).await?,
        CountdownVerb::List => return table::countdowns(&client.list_countdowns().await?, format),
        CountdownVerb::Delete(it) => {
            client.delete_countdown(&it.name, it.version.version).await?;
            return Ok(0);
        }
    };
    table::countdowns(&[countdown], format)
}

async fn create(client: &Client, it: Create) -> Result<Countdown, Failure> {
    let data = it.data_file().map(content).transpose().map_err(|fault| {
        output::error(&fault);
        Failure::Reported(1)
    })?;
    let answer = client.create_countdown(it.request(data)).await?;
    if answer.already_existed {
        output::note("it existed already, created with the same request id");
    }
    Ok(answer.countdown.unwrap_or_default())
}

fn content(path: &Path) -> Result<Content, String> {
    Ok(match publish::source::file(path)? {
        publish_request::Content::Text(text) => Content::Text(text),
        publish_request::Content::Data(data) => Content::Data(data),
    })
}
