//! Soak: streams of every kind are opened and cancelled, 100 a second, beside writers; and then the server is where it was.
//!
//! The server has rules, tokens and TLS, so that each stream has a permit, usages of quotas, lines of the audit log and a
//! connection by TLS. The rules change all the time, so that the permits are checked again.
//!
//! An ordinary run takes seconds. The ignored test takes two minutes, or `PERENNIAL_SOAK_SECONDS`, and also fails if the
//! machine was too busy to open half of the streams:
//!
//! ```sh
//! PERENNIAL_SOAK_SECONDS=1800 cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! After a tenth of the time nothing is opened until all streams have ended. What the server has then is what it must
//! return to at the end: as many tasks, descriptors and threads, and memory but for [`MEMORY_KIB`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use harness::{Server, append, soon};
use hyper_util::rt::TokioIo;
use perennial::{
    access::tokens,
    client::{Client, Credentials, Token},
    proto::{
        CountdownRequest, CreateCountdownRequest, MessagesRequest, PublishRequest, ReadLinesRequest,
        countdown_request, countdown_service_client::CountdownServiceClient, create_countdown_request,
        line_service_client::LineServiceClient, message_service_client::MessageServiceClient,
        messages_request::Start, publish_request::Content,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// The time between two streams.
const PAUSE: Duration = Duration::from_millis(10);

/// A stream is cancelled after up to this time, also before its first response.
const LONGEST: Duration = Duration::from_millis(500);

/// One stream in this many gets its own connection, which the client closes after the stream.
const OF_ITS_OWN: u64 = 10;

/// The shared connection serves this many streams before a new one takes its place. An h2 client ends a connection on which
/// it answered 1,024 frames of streams that it had cancelled and forgotten; here that takes some 70,000 streams.
const OF_ONE_CONNECTION: u64 = 10_000;

/// The resident memory may be this much larger at the end: less than 100 bytes for each stream of half an hour.
const MEMORY_KIB: f64 = 16.0 * 1024.0;

/// Threads of the pool come and go with the work.
const THREADS: f64 = 4.0;

/// The least rate of a long run, in streams a second: below it, the run says little.
const LEAST_RATE: f64 = 50.0;

/// What the caller of the streams may do, and how much.
const RULES: &str = r#"
[[rule]]
who = ["token:soak"]
may = ["count", "manage", "read", "list", "subscribe", "publish"]
topics = [">"]
files = ["logs"]
countdowns = [">"]

[[limit]]
who = ["token:soak"]
streams = 100000
publishes = 100000
"#;

/// A further rule, which changes nothing for this caller.
const FURTHER: &str = "[[rule]]\nwho = [\"uid:1\"]\nmay = [\"administer\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_and_cancelled_leave_nothing_behind() {
    println!("{:.0} streams a second", soak(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two minutes"]
async fn two_minutes_of_streams_that_are_opened_and_cancelled_leave_nothing_behind() {
    let seconds = std::env::var("PERENNIAL_SOAK_SECONDS");
    let seconds = seconds.map_or(120, |it| it.parse().expect("PERENNIAL_SOAK_SECONDS is a number"));
    let rate = soak(Duration::from_secs(seconds)).await;
    assert!(
        rate >= LEAST_RATE,
        "{rate:.0} streams a second were opened: run it on a machine with less other work"
    );
}

/// Returns how many streams were opened a second.
async fn soak(length: Duration) -> f64 {
    let metrics = format!("127.0.0.1:{}", harness::free_port());
    let house = House::new();
    let server = &house.start(&["--metrics", &metrics, "--retain", ">=count:1000"]);
    let shared = house.connect(server).await;
    for (name, seconds) in [("long", 1_000_000), ("short", 60)] {
        create(shared.clone(), name, seconds).await;
    }
    append(&server.log_file("app.log"), &"a line of a log\n".repeat(1_000));
    let is_over = Arc::new(AtomicBool::new(false));
    // It keeps its connection to the end.
    let client = house.client(server);
    let rules = house.file("access.toml");
    let writers = tokio::spawn(write(client.clone(), server.log_file("app.log"), rules, is_over.clone()));
    let mut opener = Opener { house: &house, server, shared, next: 0 };
    opener.run(length / 10).await;
    let before = settled(&metrics, None).await;
    let started = Instant::now();
    let opened = opener.run(length * 9 / 10).await;
    let rate = f64::from(u32::try_from(opened).unwrap()) / started.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    writers.await.unwrap();
    let after = settled(&metrics, Some(&before)).await;
    println!("{opened} streams, {rate:.0} a second: before {before:?}, after {after:?}");
    rate
}

/// The files of a server with rules, tokens and TLS.
struct House {
    directory: TempDir,
    token: String,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(file("cert.pem"), signed.cert.pem()).unwrap();
        fs::write(file("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(file("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file("access.toml"), RULES).unwrap();
        let token = tokens::add(&file("tokens.toml"), "soak", Vec::new(), None).unwrap();
        Self { token: token.expose().to_owned(), directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, further: &[&str]) -> Server {
        let path = |name: &str| self.file(name).display().to_string();
        let [cert, key, rules, tokens] = ["cert.pem", "key.pem", "access.toml", "tokens.toml"].map(path);
        let own = ["--tls-cert", &cert, "--tls-key", &key, "--access", &rules, "--tokens", &tokens];
        Server::start_with(&[&own[..], &["--reload-interval", "200ms"], further].concat())
    }

    fn client(&self, server: &Server) -> Client {
        let (ca, token) = (Some(self.file("cert.pem")), Some(Token::Text(self.token.clone())));
        let address = format!("https://localhost:{}", server.address().port());
        Client::with_credentials(&address, Credentials { ca, token, ..Credentials::default() }).unwrap()
    }

    /// A new connection.
    async fn connect(&self, server: &Server) -> Secured {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (address, tls) = (server.address(), TlsConnector::from(Arc::new(config)));
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let socket = tokio::net::TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, socket).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let bearer = Bearer(format!("Bearer {}", self.token).parse().unwrap());
        InterceptedService::new(channel, bearer)
    }
}

/// A connection by TLS whose calls have a token.
type Secured = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Replaces a file in one step.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

/// Writes a message and a line now and then, rotates the log, so that streams have something to send, and changes the rules.
async fn write(client: Client, log: PathBuf, rules: PathBuf, is_over: Arc<AtomicBool>) {
    let mut pauses = interval(Duration::from_millis(50));
    for n in 0_u64.. {
        pauses.tick().await;
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let request = PublishRequest {
            topic: format!("topics.{}", n % 10),
            content: Some(Content::Text(format!("message {n}"))),
            ..Default::default()
        };
        // A machine that has other work may keep the client waiting for longer than it waits.
        if let Err(error) = soon("a publish", Box::pin(client.publish(request))).await {
            assert!(error.is_retryable(), "{error:?}");
        }
        append(&log, &format!("line {n}\n"));
        match n % 40 {
            0 => replace(&rules, RULES),
            20 => replace(&rules, &format!("{RULES}{FURTHER}")),
            _ => {}
        }
        if n % 200 == 199 {
            fs::rename(&log, log.with_extension("log.1")).unwrap();
            append(&log, "the first line of another file\n");
        }
    }
}

async fn create(channel: Secured, name: &str, seconds: i64) {
    let length = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = CreateCountdownRequest {
        name: name.into(),
        target: length.map(create_countdown_request::Target::Duration),
        ..Default::default()
    };
    CountdownServiceClient::new(channel).create_countdown(request).await.unwrap();
}

/// Opens streams and cancels them.
struct Opener<'a> {
    house: &'a House,
    server: &'a Server,
    /// The connection of most streams.
    shared: Secured,
    /// The number of the next stream, from which follows what it is.
    next: u64,
}

impl Opener<'_> {
    /// Opens streams for this long, and waits until all are cancelled. Returns their number.
    async fn run(&mut self, length: Duration) -> u64 {
        let mut streams = JoinSet::new();
        let mut pauses = interval(PAUSE);
        // A machine that has other work opens fewer, and not many at once afterwards.
        pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (end, mut opened) = (Instant::now() + length, 0);
        while Instant::now() < end {
            pauses.tick().await;
            let number = self.next;
            self.next += 1;
            if self.next.is_multiple_of(OF_ONE_CONNECTION) {
                self.shared = self.house.connect(self.server).await;
            }
            let channel = match number % OF_ITS_OWN {
                0 => self.house.connect(self.server).await,
                _ => self.shared.clone(),
            };
            streams.spawn(open_and_cancel(channel, number));
            while let Some(ended) = streams.try_join_next() {
                ended.unwrap();
            }
            opened += 1;
        }
        soon("the end of the streams", streams.join_all()).await;
        opened
    }
}

/// Opens a stream and takes its responses until it is cancelled, which may be before the first one.
async fn open_and_cancel(channel: Secured, number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    let limit = LONGEST.mul_f64(random.f64());
    let heartbeat = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let taken = async {
        match number % 8 {
            kind @ 0..=2 => {
                let target = match kind {
                    0 => countdown_request::Target::Start(1_000),
                    1 => countdown_request::Target::Name("long".into()),
                    _ => countdown_request::Target::Name("short".into()),
                };
                let request = CountdownRequest { target: Some(target), heartbeat, ..Default::default() };
                take(CountdownServiceClient::new(channel).countdown(request).await).await
            }
            kind @ 3..=4 => {
                let request = ReadLinesRequest {
                    path: "logs/app.log".into(),
                    follow: kind == 3,
                    heartbeat,
                    ..Default::default()
                };
                let mut client = LineServiceClient::new(channel);
                let mut answer = client.read_lines(request.clone()).await;
                // After a rename there is no file until the next line is written.
                while answer.as_ref().is_err_and(|status| status.code() == tonic::Code::NotFound) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    answer = client.read_lines(request.clone()).await;
                }
                take(answer).await
            }
            5 => {
                let request = ReadLinesRequest {
                    path: format!("logs/{}.log", random.u8(..)),
                    follow: true,
                    wait_for_create: true,
                    ..Default::default()
                };
                take(LineServiceClient::new(channel).read_lines(request).await).await
            }
            kind => {
                let topic = if kind == 6 { ">".into() } else { format!("topics.{}", random.u8(..10)) };
                let start = Some(Start::Earliest(random.bool()));
                let request = MessagesRequest { topics: vec![topic], start, heartbeat, ..Default::default() };
                take(MessageServiceClient::new(channel).messages(request).await).await
            }
        }
    };
    // Dropped at the limit, the call is cancelled.
    if let Ok(Err(status)) = timeout(limit, taken).await {
        panic!("stream {number}: {status:?}");
    }
}

/// Takes responses until the stream ends.
async fn take<T>(opened: Result<tonic::Response<Streaming<T>>, Status>) -> Result<(), Status> {
    let mut stream = opened?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

/// Waits until no stream is open and the server has no more than `before`, and returns what it has then.
async fn settled(metrics: &str, before: Option<&Held>) -> Held {
    let mut last = Held::of(metrics);
    let returned = async {
        // Without a former state, it is settled when it stays the same.
        let mut same = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = Held::of(metrics);
            same = if now.counts() == last.counts() { same + 1 } else { 0 };
            last = now;
            let is_back = before.map_or(same >= 8, |before| last.is_within(before));
            if last.open == 0.0 && is_back {
                return;
            }
        }
    };
    let is_back = timeout(harness::PATIENCE, returned).await.is_ok();
    assert!(is_back, "the server does not return to {before:?}: it has {last:?}");
    last
}

/// What a server has.
#[derive(Clone, Debug)]
struct Held {
    /// Calls and streams.
    open: f64,
    tasks: f64,
    descriptors: f64,
    threads: f64,
    memory_kib: f64,
}

impl Held {
    fn of(metrics: &str) -> Self {
        let series = scrape(metrics);
        let sum = |name: &str| {
            let of_name = |series: &str| series.split('{').next() == Some(name);
            series.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum::<f64>()
        };
        Self {
            open: sum("perennial_streams_open") + sum("perennial_calls_open"),
            tasks: sum("perennial_tasks"),
            descriptors: sum("process_open_fds"),
            threads: sum("process_threads"),
            memory_kib: sum("process_resident_memory_bytes") / 1024.0,
        }
    }

    fn counts(&self) -> [u64; 3] {
        [self.open, self.tasks, self.descriptors].map(f64::to_bits)
    }

    fn is_within(&self, before: &Self) -> bool {
        self.tasks <= before.tasks
            && self.descriptors <= before.descriptors
            && self.threads <= before.threads + THREADS
            && self.memory_kib <= before.memory_kib + MEMORY_KIB
    }
}

/// The series of a server, with their labels.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (_, series) = text.split_once("\r\n\r\n").unwrap();
    let series = series.lines().filter(|line| !line.starts_with('#'));
    let series = series.map(|line| line.rsplit_once(' ').unwrap());
    series.map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
}
