//! Random rules over every kind of identity: callers with a certificate, a token with roles, a JWT, an account of the
//! machine, or several of these at once, see what a model says.

use std::collections::BTreeSet;

use perennial::{
    access::tokens,
    client::{Client, Code, Credentials, Token},
    proto::PublishRequest,
};

use crate::{
    authority::Authority,
    harness::Server,
    identities::{Issuer, JWT},
    random::some,
};

const ROUNDS: usize = 15;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const OPEN: &str = "[[rule]]\nwho = ['anyone']\nmay = ['administer']\n";

/// A client, and the identities that it proves.
struct Caller {
    client: Client,
    identities: Vec<String>,
}

/// Rules: who may list which topics.
type Rules = Vec<(Vec<String>, Vec<&'static str>)>;

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// The account of this process, as a rule names it: by number, and by name if the machine knows one.
fn account(kind: &str, number: u32, file: &str) -> Vec<String> {
    let by_name = std::fs::read_to_string(file).unwrap_or_default();
    let name = by_name.lines().find_map(|line| {
        let fields = line.split(':').collect::<Vec<_>>();
        (fields.get(2) == Some(&number.to_string().as_str())).then(|| fields[0].to_owned())
    });
    let long = if kind == "uid" { "user" } else { "group" };
    std::iter::once(format!("{kind}:{number}")).chain(name.map(|name| format!("{long}:{name}"))).collect()
}

/// Each connection with each credential.
fn callers(authority: &Authority, issuer: &Issuer, tcp: &str, socket: &str) -> Vec<Caller> {
    let tokens_file = authority.file("tokens.toml");
    let token = |name: &str, roles: &[&str]| {
        let secret = tokens::add(&tokens_file, name, texts(roles), None).unwrap();
        let roles = roles.iter().map(|role| format!("role:{role}"));
        (Some(secret.expose().to_owned()), std::iter::once(format!("token:{name}")).chain(roles).collect())
    };
    let jwt = |subject: &str, roles: &[&str]| {
        let own =
            std::iter::once(format!("jwt:{subject}")).chain(roles.iter().map(|role| format!("role:{role}")));
        (Some(issuer.token(subject, roles)), own.collect())
    };
    let credentials: [(Option<String>, Vec<String>); 5] = [
        (None, Vec::new()),
        token("one", &["x"]),
        token("two", &["x", "y"]),
        jwt("ann", &["y"]),
        jwt("ben", &[]),
    ];
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let of_account = [account("uid", uid, "/etc/passwd"), account("gid", gid, "/etc/group")].concat();
    let connections = [
        (tcp, authority.credentials(None), Vec::new()),
        (tcp, authority.credentials(Some("alice")), texts(&["certificate:DNS:alice.example"])),
        (
            tcp,
            authority.credentials(Some("bob")),
            texts(&["certificate:DNS:bob.example", "certificate:DNS:shared.example"]),
        ),
        (socket, Credentials::default(), of_account),
    ];
    let mut callers = Vec::new();
    for (address, connection, of_connection) in connections {
        for (token, own) in &credentials {
            let token = token.clone().map(Token::Text);
            let client =
                Client::with_credentials(address, Credentials { token, ..connection.clone() }).unwrap();
            callers.push(Caller { client, identities: [own.clone(), of_connection.clone()].concat() });
        }
    }
    callers
}

fn rules(names: &[String]) -> Rules {
    let who = || {
        let number = 1 + fastrand::usize(..3);
        (0..number).map(|_| names[fastrand::usize(..names.len())].clone()).collect()
    };
    (0..fastrand::usize(1..6)).map(|_| (who(), some(&TOPICS))).collect()
}

fn text(rules: &Rules) -> String {
    let list = |words: &[&str]| words.iter().map(|it| format!("'{it}'")).collect::<Vec<_>>().join(", ");
    let rule = |(who, topics): &(Vec<String>, Vec<&str>)| {
        let who = who.iter().map(String::as_str).collect::<Vec<_>>();
        format!("[[rule]]\nwho = [{}]\nmay = ['list']\ntopics = [{}]\n", list(&who), list(topics))
    };
    rules.iter().map(rule).collect()
}

/// What the model says that a caller sees.
fn expected(rules: &Rules, identities: &[String]) -> Result<BTreeSet<String>, Code> {
    let is_for = |who: &[String]| who.iter().any(|who| who == "anyone" || identities.contains(who));
    let of_caller = rules.iter().filter(|(who, _)| is_for(who)).collect::<Vec<_>>();
    match (of_caller.is_empty(), identities.is_empty()) {
        (true, true) => Err(Code::Unauthenticated),
        (true, false) => Err(Code::PermissionDenied),
        _ => Ok(of_caller.iter().flat_map(|(_, topics)| texts(topics)).collect()),
    }
}

#[tokio::test]
async fn a_caller_with_several_identities_sees_what_the_model_says() {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    println!("seed {seed}");
    let (authority, issuer) = (Authority::new("ours"), Issuer::new());
    authority.sign_server();
    authority.sign("alice", &["alice.example"], |_| {});
    authority.sign("bob", &["bob.example", "shared.example"], |_| {});
    authority.write("jwks.json", &issuer.keys());
    authority.write("access.toml", &format!("{JWT}{OPEN}"));
    tokens::add(&authority.file("tokens.toml"), "first", Vec::new(), None).unwrap();
    let socket = format!("unix:{}", authority.path("p.sock"));
    let [ca, access, tokens] = ["ca.pem", "access.toml", "tokens.toml"].map(|name| authority.path(name));
    let further =
        ["--tls-client-ca", &ca, "--tls-client-auth", "optional", "--access", &access, "--tokens", &tokens];
    let options = authority.options(&[&further[..], &["--listen", &socket]].concat());
    let server = Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let tcp = format!("https://localhost:{}", server.address().port());
    let callers = callers(&authority, &issuer, &tcp, &socket);
    while !server.wait_for_log("the files of access are in use").contains("tokens=3") {}
    for topic in TOPICS {
        let message = PublishRequest { topic: topic.into(), ..Default::default() };
        callers[0].client.publish(message).await.unwrap();
    }
    let others = [
        "anyone",
        "token:other",
        "role:z",
        "jwt:zoe",
        "certificate:DNS:zoe.example",
        "uid:54321",
        "gid:54321",
    ];
    let own = callers.iter().flat_map(|caller| caller.identities.clone()).collect::<BTreeSet<_>>();
    let names = own.into_iter().chain(texts(&others)).collect::<Vec<_>>();
    for round in 0..ROUNDS {
        let rules = rules(&names);
        authority.write("access.toml", &format!("{JWT}{}# {round}\n", text(&rules)));
        server.wait_for_log("the files of access are in use");
        for caller in &callers {
            let listed = caller.client.list_topics("").await;
            let listed = listed.map(|topics| topics.into_iter().map(|topic| topic.name).collect());
            let expected = expected(&rules, &caller.identities);
            assert_eq!(
                listed.map_err(|error| error.code()),
                expected,
                "{:?}\n{}",
                caller.identities,
                text(&rules)
            );
        }
    }
}
