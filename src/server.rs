//! The server: composes configuration, data, log, roots, services and listener, and shuts them down in order.
//!
//! [`run`] takes bound listeners and a future that ends when the server must stop. It then shuts down in this order:
//! health reports NOT_SERVING; no connection is accepted; every stream ends with its cursor, and every connection with a
//! GOAWAY, within the time for the drain; the demo stops; the log writes its queue and closes; the data directory is
//! unlocked. A disk that hangs can delay this without end: `perenniald` then ends its process after the same time.

use std::{future::Future, net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    access::{self, Access},
    blocking::Pool,
    countdown::{Clock, shared::Countdowns},
    grpc::{self, App, call::Calls, gate::Gate},
    lines::{self, Files},
    messages::{self, Log},
    proto, supervised,
    watched::Asked,
    web::Web,
};
use data::DataDirectory;
use listen::{Listen, Listener};
use tls::Tls;

pub mod accept;
mod check;
pub mod config;
mod consumer_lags;
pub mod data;
mod demo;
pub mod listen;
mod log_metrics;
mod memory;
mod metrics;
mod open_log;
mod process_metrics;
pub mod reload;
mod service_manager;
pub mod tls;
mod welcome;

pub use check::faults;
pub use config::Config;
pub use listen::bind;
pub use reload::Reload;
pub use service_manager::inherited;

/// The services whose health is reported, besides that of the server under the empty name.
const SERVICES: [&str; 3] =
    ["perennial.v1.CountdownService", "perennial.v1.LineService", "perennial.v1.MessageService"];

/// The service that reports NOT_SERVING while the log refuses messages.
const MESSAGE_SERVICE: &str = "perennial.v1.MessageService";

/// Why the server does not start. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot listen on the address.
    #[error("{flag} is {address}: the server cannot listen there: {source}{remedy}")]
    Listen {
        /// The setting, as a flag.
        flag: &'static str,
        /// The address as configured.
        address: String,
        /// What the operator can do.
        remedy: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The socket that systemd has passed cannot be used.
    #[error("the socket of systemd (LISTEN_FDS): {source}")]
    Inherited {
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The server may not listen on a socket that was bound or passed.
    #[error("the socket to listen on: {0}")]
    Config(#[from] config::Error),
    /// The files of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] tls::Error),
    /// The files of access cannot be used.
    #[error("access: {0}")]
    Access(#[from] access::Error),
    /// Tokens protect nothing where there are no rules. (The commands that change tokens need no rules.)
    #[error(
        "--tokens is set, which also needs --access FILE: without rules every client may do everything, with a token or \
         without"
    )]
    TokensWithoutRules,
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The log cannot be opened.
    #[error("the log: {0}")]
    Log(#[from] messages::OpenError),
    /// The cluster that keeps the messages cannot be used.
    #[cfg(feature = "jetstream")]
    #[error("--messages: {0}")]
    Cluster(#[from] messages::ConnectError),
    /// The shared countdowns cannot be read from the log.
    #[error("the countdowns in the log: {0}")]
    Countdowns(messages::Error),
    /// What topics take cannot be counted.
    #[error("the quotas of topics: {0}")]
    Quotas(messages::Error),
    /// A root cannot be served.
    #[error(transparent)]
    Root(#[from] lines::RootError),
    /// The reflection service cannot be built.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The task that accepts connections has panicked.
    #[error("no connection is accepted any more, by a fault of the program: the log has it")]
    Accepting,
    /// Another error of the system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen {
        flag: "--metrics",
        address: address.to_string(),
        remedy: listen::remedy(&Listen::Address(address), &source),
        source,
    })
}

/// Serves until `shutdown`, then shuts down in order. `reload` asks to read again the files that can be.
///
/// # Errors
/// Why the server does not start.
pub async fn run(
    listeners: Vec<Listener>,
    mut config: Config,
    reload: Reload,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    check::tokens(&config)?;
    // With port 0, the system has chosen a port.
    let addresses = listeners.iter().map(Listener::local).collect::<Result<_, _>>()?;
    config = config.listens_at(addresses)?;
    let mut metrics = Registry::default();
    process_metrics::register(&mut metrics);
    let registry = metrics.sub_registry_with_prefix("perennial");
    let tls = config.tls.clone().map(|files| Tls::open(files, registry)).transpose()?;
    let names = check::root_names(&config);
    let access = config.access.clone().map(|files| Access::open(files, names, registry)).transpose()?;
    let pool = Pool::default();
    let endpoint = metrics::Endpoint::new(pool.clone());
    let metrics_listener = match config.metrics {
        Some(address) => Some(bind_metrics(address).await?),
        None => None,
    };
    config.metrics = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    // Until the server has stopped: a probe sees also that it opens its log, and that it drains.
    let answers = metrics_listener.map(|listener| metrics::serve(listener, endpoint.clone()));
    let _answers = answers.map(|answers| AbortOnDropHandle::new(tokio::spawn(answers)));
    let mut data = DataDirectory::open(&config.data)?;
    data.sign(&config.urls().join(", "))?;
    let demo_root = data.path().join("demo");
    let app_log = config.demo.then(|| demo::AppLog::open(&demo_root)).transpose()?;
    let mut roots = config.roots.clone();
    if config.demo {
        roots.push(lines::Root::new(demo::ROOT, demo_root));
    }
    config.messages.pool = pool.clone();
    config.messages.lock_file = data.lock_file()?;
    config.lines.pool = pool.clone();
    let log = open_log::open(&config, &mut data).await?;
    if let Some(access) = &access {
        log.set_quotas(access.topic_quotas()).await.map_err(Error::Quotas)?;
    }
    let ending = CancellationToken::new();
    // If this future fails or is dropped, everything that it started ends, too.
    let _ends_tasks = ending.clone().drop_guard();
    registry.register_collector(Box::new(metrics::DataRoom(data.path().into())));
    log_metrics::register(log.clone(), registry);
    let clock = Clock::precise()?;
    let (countdowns, ends_countdowns) =
        Countdowns::open(log.clone(), clock.clone(), config.countdown.clone())
            .await
            .map_err(Error::Countdowns)?;
    let app = App {
        clock,
        countdown: config.countdown.clone(),
        countdowns,
        files: Files::new(roots.clone(), config.lines.clone())?,
        log: log.clone(),
        calls: Calls::guarded(config.calls, access.clone(), ending.clone(), registry),
        config: config.requests.clone(),
    };
    process_metrics::register_held(&app, registry);
    let settings = reload::Follower::new(config.clone(), app.calls.clone(), reload.clone(), registry);
    let (health, gate) = services(app, config.messages.max_patterns, &mut metrics)?;
    let registry = metrics.sub_registry_with_prefix("perennial");
    let web = Web::new(gate, config.origins(), config.tls.is_some(), registry);
    endpoint.serve_metrics(metrics, log.clone());
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let tasks = TaskTracker::new();
    keep(&tasks, &ending, "countdowns", ends_countdowns);
    keep_well(&tasks, &ending, (&health, &log), (web.calls(), &pool));
    if let Some(app_log) = app_log {
        spawn(&tasks, &ending, demo::run(app_log, log.clone(), ending.clone()));
    }
    if let Some(access) = access.clone() {
        let log = log.clone();
        keep(&tasks, &ending, "quotas", move |_| follow_quotas(access.clone(), log.clone()));
    }
    let files =
        Followed { tls: tls.clone(), access, settings, config: config.clone(), reload, pool: pool.clone() };
    keep(&tasks, &ending, "files", move |is_again| files.clone().follow(is_again));
    let needs_certificates = tls.as_ref().is_some_and(|tls| tls.requires_certificates());
    let connections = config.connections.clone();
    let mut accepting = tokio::spawn(accept::serve(listeners, tls, web, connections, ending.clone()));
    endpoint.set(metrics::State::Ready);
    service_manager::ready(&[]);
    welcome::print(needs_certificates, &config, data.path(), &roots);

    let has_ended = tokio::select! {
        () = shutdown => false,
        _ = &mut accepting => true,
    };
    endpoint.set(metrics::State::Draining);
    service_manager::stopping();
    tracing::info!("stopping: streams end with their cursor");
    not_serving(&health).await;
    ending.cancel();
    // It ends before that only by a panic, which is reported: then the server stops, to be started again.
    let is_lost = has_ended || accepting.await.is_err();
    tasks.close();
    tasks.wait().await;
    tracing::debug!("the connections have ended: the log is closed");
    log.close().await;
    tracing::info!("stopped");
    if is_lost { Err(Error::Accepting) } else { Ok(()) }
}

/// Starts a task that ends when the server stops.
fn spawn<F>(tasks: &TaskTracker, ending: &CancellationToken, task: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let ending = ending.clone();
    tasks.spawn(async move { _ = ending.run_until_cancelled(task).await });
}

/// Starts a task that goes on until the server stops: after a panic it is started again.
fn keep<F>(
    tasks: &TaskTracker,
    ending: &CancellationToken,
    name: &'static str,
    start: impl FnMut(bool) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(tasks, ending, supervised::run(name, start));
}

/// Starts the tasks that report how the server is, and that give memory back.
fn keep_well(
    tasks: &TaskTracker,
    ending: &CancellationToken,
    (health, log): (&HealthReporter, &Log),
    (calls, pool): (&Calls, &Pool),
) {
    let (health, of_health, of_watchdog) = (health.clone(), log.clone(), log.clone());
    keep(tasks, ending, "health", move |_| watch_health(health.clone(), of_health.clone()));
    keep(tasks, ending, "watchdog", move |_| service_manager::watch(of_watchdog.clone()));
    let (calls, pool) = (calls.clone(), pool.clone());
    keep(tasks, ending, "memory", move |_| memory::give_back(calls.clone(), pool.clone()));
}

/// The files that can be read again, and what uses them.
#[derive(Clone)]
struct Followed {
    tls: Option<Arc<Tls>>,
    access: Option<Arc<Access>>,
    settings: reload::Follower,
    config: Config,
    reload: Reload,
    pool: Pool,
}

impl Followed {
    /// Reads the files again that can be: when they change, and when the operator asks for it.
    async fn follow(self, is_again: bool) {
        let Self { tls, access, settings, config, reload, pool } = self;
        let (ask_tls, ask_access, ask_settings) = (Asked::default(), Asked::default(), Asked::default());
        let (interval, has_settings) = (config.reload_interval, config.file.is_some());
        let (has_tls, has_access) = (tls.is_some(), access.is_some());
        let of_tls = async {
            if let Some(tls) = tls {
                tls.follow(interval, &ask_tls, &pool).await;
            }
        };
        let of_access = async {
            if let Some(access) = access {
                access.follow(interval, &ask_access, &pool).await;
            }
        };
        let of_settings = async {
            if has_settings {
                settings.follow(interval, &ask_settings).await;
            }
        };
        let all = [(&ask_settings, has_settings), (&ask_tls, has_tls), (&ask_access, has_access)];
        let asked = all.iter().filter(|(_, is_used)| *is_used).map(|(asked, _)| *asked).collect::<Vec<_>>();
        let faults = || asked.iter().filter_map(|asked| asked.faults().borrow().clone()).collect::<Vec<_>>();
        let signals = async {
            // A panic may have come between the two notices of a reload, and before what was asked for was done.
            let mut is_asked = is_again;
            loop {
                if !std::mem::take(&mut is_asked) {
                    reload.asked.notified().await;
                }
                service_manager::reloading();
                if asked.is_empty() {
                    no_files();
                }
                futures::future::join_all(asked.iter().map(|asked| asked.ask())).await;
                service_manager::ready(&faults());
            }
        };
        let states = async {
            let mut changes = asked.iter().map(|asked| asked.faults()).collect::<Vec<_>>();
            while !changes.is_empty() {
                let changed = changes.iter_mut().map(|changes| Box::pin(changes.changed()));
                _ = futures::future::select_all(changed).await;
                service_manager::status(&faults());
            }
        };
        tokio::join!(of_tls, of_access, of_settings, signals, states);
    }
}

fn no_files() {
    tracing::info!(
        "SIGHUP ignored: there is no file to read again; restart the server to change its settings"
    );
}

/// Has the log keep the quotas of topics that new rules have.
async fn follow_quotas(access: Arc<Access>, log: Log) {
    let mut changes = access.changes();
    // The rules may have changed since the log was opened.
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        if let Err(error) = log.set_quotas(access.topic_quotas()).await {
            tracing::error!(%error, "the new quotas of topics hold in part only");
        }
    }
}

/// The services, with health and reflection.
fn services(app: App, max_patterns: usize, registry: &mut Registry) -> Result<(HealthReporter, Gate), Error> {
    let (calls, requests) = (app.calls.clone(), app.config.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = grpc::routes(app)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((health, Gate::new(routes, calls, &requests, max_patterns, registry)))
}

/// Reports the service of messages as NOT_SERVING after the log has failed, and while the disk is full.
async fn watch_health(health: HealthReporter, log: Log) {
    let (mut failed, mut needed) = (log.failed(), log.needed_room());
    loop {
        let takes_messages = !*failed.borrow_and_update() && needed.borrow_and_update().is_none();
        let status = if takes_messages { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(MESSAGE_SERVICE, status).await;
        let changed = tokio::select! {
            changed = failed.changed() => changed,
            changed = needed.changed() => changed,
        };
        if changed.is_err() {
            // The log is gone.
            return;
        }
    }
}

async fn not_serving(health: &HealthReporter) {
    for service in SERVICES.iter().copied().chain([""]) {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}

/// The number of descriptors that this process may have. Raises the soft limit to the hard limit.
fn descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
