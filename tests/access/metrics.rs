//! The metrics of a server that has everything: TLS with client certificates, rules, quotas of topics.

use perennial::client::Client;

use crate::{
    authority::Authority,
    harness::{Server, free_port},
    quotas::metrics,
};

const RULES: &str =
    "[[rule]]\nwho = ['anyone']\nmay = ['administer']\n[[quota]]\ntopics = ['a']\ntopic_count = 9\n";

#[tokio::test]
async fn operate_md_has_every_metric_that_a_server_exports() {
    let authority = Authority::new("ours");
    authority.sign_server();
    authority.sign("alice", &["alice.example"], |_| {});
    authority.write("access.toml", RULES);
    let (access, address) = (authority.path("access.toml"), format!("127.0.0.1:{}", free_port()));
    let further = ["--tls-client-ca", &authority.path("ca.pem"), "--access", &access, "--metrics", &address];
    let options = authority.options(&further);
    let server = Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let url = format!("https://localhost:{}", server.address().port());
    let client = Client::with_credentials(&url, authority.credentials(Some("alice"))).unwrap();
    client.list_topics("").await.unwrap();

    let operate = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate.md")).unwrap();
    let text = metrics(&address);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut count = 0;
    for (name, kind) in types {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(operate.contains(&format!("`{name}`")), "{name}");
        count += 1;
    }
    assert!(count > 40, "{count}: {text}");
}
