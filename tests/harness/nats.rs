//! A cluster of three real nats-servers with JetStream, which a test kills, pauses and cuts off.
//!
//! `NATS_SERVER` names the program; without it, `nats-server` of the path is used.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::jetstream::{self, Context};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The nodes of a cluster.
pub const NODES: usize = 3;

/// How long a test waits for the cluster.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Three nodes. They end when this is dropped.
pub struct Nats {
    nodes: Vec<Node>,
    directory: TempDir,
    network: Option<Network>,
}

struct Node {
    /// `None` while it is killed.
    child: Option<Child>,
    /// Where clients reach it: HOST:PORT.
    address: String,
}

impl Nats {
    /// Three nodes on loopback.
    pub async fn start() -> Self {
        // All are bound at once, so that they differ.
        let ports = [(); 2 * NODES].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = ports.map(|port| port.local_addr().unwrap().to_string());
        let (clients, routes) = addresses.split_at(NODES);
        Self::start_at(clients, routes, None).await
    }

    /// Three nodes with networks of their own, which can be cut off. Only root can do that.
    pub async fn start_apart() -> Self {
        let network = Network::new();
        let at =
            |port: u16| (0..NODES).map(|node| format!("{}:{port}", network.host(node))).collect::<Vec<_>>();
        let (clients, routes) = (at(4222), at(6222));
        Self::start_at(&clients, &routes, Some(network)).await
    }

    async fn start_at(clients: &[String], routes: &[String], network: Option<Network>) -> Self {
        let directory = TempDir::new().unwrap();
        let all = routes.iter().map(|route| format!("nats://{route}")).collect::<Vec<_>>().join(", ");
        for (n, (client, route)) in clients.iter().zip(routes).enumerate() {
            let store = directory.path().join(n.to_string());
            let store = store.display();
            let text = format!(
                "server_name: n{n}\nlisten: {client}\n\
                 jetstream {{ store_dir: \"{store}\", sync_interval: always }}\n\
                 cluster {{ name: test, listen: {route}, routes: [{all}] }}\n"
            );
            fs::write(directory.path().join(format!("{n}.conf")), text).unwrap();
        }
        let nodes = clients.iter().map(|address| Node { child: None, address: address.clone() }).collect();
        let mut nats = Self { nodes, directory, network };
        for node in 0..NODES {
            nats.start_node(node);
        }
        let ready = tokio::time::timeout(PATIENCE, async {
            while !nats.is_ready().await {
                tokio::time::sleep(LOOK).await;
            }
        });
        ready.await.expect("the cluster is ready");
        nats
    }

    /// Starts a node that was killed.
    pub fn start_node(&mut self, node: usize) {
        let program = std::env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let mut command = match &self.network {
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.namespace(node)]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let log = fs::File::options().create(true).append(true).open(self.path(node, "log")).unwrap();
        command.arg("-c").arg(self.path(node, "conf")).stdout(Stdio::null()).stderr(log);
        self.nodes[node].child = Some(command.spawn().expect("nats-server starts"));
    }

    fn path(&self, node: usize, end: &str) -> std::path::PathBuf {
        let directory: &Path = self.directory.path();
        directory.join(format!("{node}.{end}"))
    }

    /// Whether streams with three replicas can be created.
    async fn is_ready(&self) -> bool {
        let Ok(client) = async_nats::connect(self.urls()).await else { return false };
        let context = jetstream::new(client);
        let config =
            jetstream::stream::Config { name: "probe".into(), num_replicas: NODES, ..Default::default() };
        context.create_stream(config).await.is_ok() && context.delete_stream("probe").await.is_ok()
    }

    /// Kills a node, as a machine that loses power would end it.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops a node, as a machine that hangs: it keeps its connections.
    pub fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// Lets a node that was paused go on: it may still take itself for the leader.
    pub fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Cuts a node off from the others and from all clients, or ends that.
    pub fn set_cut(&self, node: usize, is_cut: bool) {
        self.network.as_ref().expect("the nodes have networks of their own").set_cut(node, is_cut);
    }

    /// The node that leads a stream.
    pub async fn leader(&self, stream: &str) -> usize {
        let leader = async {
            loop {
                if let Ok(stream) = self.client().await.get_stream(stream).await
                    && let Some(cluster) = &stream.cached_info().cluster
                    && let Some(name) = &cluster.leader
                {
                    return name.trim_start_matches('n').parse().unwrap();
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, leader).await.expect("the stream has a leader")
    }

    /// The addresses of the nodes, as in `--messages nats://…`.
    pub fn hosts(&self) -> String {
        self.nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("nats://{}", node.address)).collect()
    }

    /// A client of NATS that is not ours.
    pub async fn client(&self) -> Context {
        jetstream::new(async_nats::connect(self.urls()).await.unwrap())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for node in 0..NODES {
            self.kill(node);
        }
    }
}

/// A bridge, and a namespace for each node with a link to it.
struct Network {
    /// Different in each process, and in each test of it.
    id: u16,
}

impl Network {
    fn new() -> Self {
        let id = uuid::Uuid::new_v4().as_u128() as u16;
        let network = Self { id };
        ip(&format!("link add {} type bridge", network.bridge()));
        ip(&format!("addr add {}/24 dev {}", network.host(NODES), network.bridge()));
        ip(&format!("link set {} up", network.bridge()));
        for node in 0..NODES {
            let (namespace, link) = (network.namespace(node), network.link(node));
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"));
            ip(&format!("link set {link} master {} up", network.bridge()));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", network.host(node)));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        network
    }

    fn bridge(&self) -> String {
        format!("pb{:x}", self.id)
    }

    fn namespace(&self, node: usize) -> String {
        format!("pn{:x}-{node}", self.id)
    }

    fn link(&self, node: usize) -> String {
        format!("pl{:x}-{node}", self.id)
    }

    fn host(&self, node: usize) -> String {
        let [high, low] = self.id.to_be_bytes();
        format!("10.{high}.{low}.{}", node + 1)
    }

    fn set_cut(&self, node: usize, is_cut: bool) {
        ip(&format!("link set {} {}", self.link(node), if is_cut { "down" } else { "up" }));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..NODES {
            let _ = Command::new("ip").args(["link", "del", &self.link(node)]).status();
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(node)]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge()]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip is installed");
    assert!(status.success(), "ip {arguments}: it needs root");
}
