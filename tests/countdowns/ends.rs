//! The message of a countdown's end is published once, however often the server is killed.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    time::Duration,
};

use futures::{StreamExt, stream};
use perennial::proto::{Countdown, CountdownState, CreateCountdownRequest, StoredMessage};
use tonic::transport::{Channel, Endpoint};

use crate::{
    calls::{Client, announced, is, is_lost, list, messages, moment, now, text},
    harness::{Server, server_command, until, within},
};

/// Countdowns a round.
const COUNT: u64 = 200;

/// The longest, in milliseconds.
const LONGEST: u64 = 800;

const TOPICS: u64 = 3;

/// How many calls create countdowns at once.
const AT_ONCE: usize = 16;

/// How long a round may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Between attempts to reach a server that may be down.
const A_MOMENT: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_message_is_published_once_over_9_crashes() {
    crash(3).await;
}

/// As many rounds as `PERENNIAL_ROUNDS` says, or 40, with three crashes in each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "40 rounds: some minutes"]
async fn each_end_message_is_published_once_over_120_crashes() {
    let rounds = std::env::var("PERENNIAL_ROUNDS");
    crash(rounds.map_or(40, |rounds| rounds.parse().expect("PERENNIAL_ROUNDS is a number"))).await;
}

/// When no server ran: from one moment to another, in nanoseconds since 1970.
type Down = (i128, i128);

async fn crash(rounds: u64) {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start_apart();
    let (mut created, mut downs, mut missed) = (HashMap::new(), Vec::new(), 0);
    // More rounds if on a busy machine none ended while no server ran.
    let mut round = 0;
    while round < rounds || missed == 0 {
        let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
        let requests = (0..COUNT).map(|n| request(round, n, &mut random)).collect::<Vec<_>>();
        let creating = tokio::spawn(create_all(channel, requests));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(random.u64(..LONGEST))).await;
            downs.push(kill_and_restart(&mut server, &mut random).await);
        }
        created.extend(within(LIMIT, "all are created", creating).await.unwrap());
        let client = server.countdown().await;
        until("all ends", async || list(&client).await.values().all(|it| is(it, CountdownState::Ended)))
            .await;
        missed = check(&created, &list(&client).await, &messages(&server, "ends.*").await, &downs);
        round += 1;
    }
    println!("{missed} of {} ended while no server ran", created.len());
}

fn request(round: u64, n: u64, random: &mut fastrand::Rng) -> CreateCountdownRequest {
    let name = format!("round{round}.{n}");
    let millis = i64::try_from(1 + random.u64(..LONGEST)).unwrap();
    let request = announced(&name, millis, &format!("ends.{}", n % TOPICS));
    CreateCountdownRequest { request_id: Some(name), ..request }
}

/// Creates them, each again and again until it is answered. Returns the answers.
async fn create_all(channel: Channel, requests: Vec<CreateCountdownRequest>) -> Vec<(String, Countdown)> {
    let client = Client::new(channel);
    let create = |request: CreateCountdownRequest| {
        let mut client = client.clone();
        async move {
            loop {
                match client.create_countdown(request.clone()).await {
                    Ok(response) => break (request.name, response.into_inner().countdown.unwrap()),
                    Err(status) => assert!(is_lost(&status), "{status:?}"),
                }
                tokio::time::sleep(A_MOMENT).await;
            }
        }
    };
    stream::iter(requests).map(create).buffer_unordered(AT_ONCE).collect().await
}

/// Now and then the next server is killed while it starts, or just after. Returns when none ran.
async fn kill_and_restart(server: &mut Server, random: &mut fastrand::Rng) -> Down {
    server.kill();
    let dead = now();
    if random.u64(..3) == 0 {
        // At another address: it ends the countdowns that are due while no client is connected.
        let mut command = server_command(server.directory(), "127.0.0.1:0");
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let started = now();
        tokio::time::sleep(Duration::from_micros(random.u64(..200_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        server.restart();
        return (dead, started);
    }
    tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
    let alive = now();
    server.restart();
    (dead, alive)
}

/// Each has ended when it was to end, was published once, and with its end. Returns how many ended while no server ran.
fn check(
    created: &HashMap<String, Countdown>,
    ended: &HashMap<String, Countdown>,
    published: &[StoredMessage],
    downs: &[Down],
) -> usize {
    let mut missed = 0;
    let mut by_name = BTreeMap::<&str, Vec<&StoredMessage>>::new();
    for message in published {
        by_name.entry(text(message)).or_default().push(message);
    }
    assert!(created.keys().all(|name| ended.contains_key(name)), "a countdown was lost");
    assert_eq!((created.len(), ended.len()), (by_name.len(), by_name.len()), "not all were published");
    for (name, countdown) in ended {
        let messages = &by_name[name.as_str()];
        assert_eq!(messages.len(), 1, "{name} was published {} times", messages.len());
        let (message, end) = (messages[0], moment(countdown.end_time));
        assert_eq!(end, moment(created[name].end_time), "{name} has another end than when it was created");
        assert_eq!(message.headers["countdown"], *name);
        let due = message.headers["countdown-due-time"].parse::<jiff::Timestamp>().unwrap();
        assert_eq!(due.as_nanosecond(), end, "{name}");
        let late = lateness(&message.headers["countdown-lateness"]);
        assert_eq!(late, moment(countdown.update_time) - end, "{name}");
        assert!(late >= 0, "{name} was published {late} ns before its end");
        if let Some((_, alive)) = downs.iter().find(|(dead, alive)| (dead..alive).contains(&&end)) {
            missed += 1;
            assert!(late >= alive - end, "{name} is {late} ns late, and no server ran for {}", alive - end);
        }
        // One append holds both: the message follows the ended state at once.
        assert_eq!(message.sequence.unwrap(), countdown.version.unwrap() + 1, "{name}");
    }
    missed
}

/// Seconds with nine decimals, in nanoseconds.
fn lateness(text: &str) -> i128 {
    let (seconds, fraction) = text.strip_suffix('s').unwrap().split_once('.').unwrap();
    assert_eq!(fraction.len(), 9, "{text}");
    seconds.parse::<i128>().unwrap() * 1_000_000_000 + fraction.parse::<i128>().unwrap()
}
