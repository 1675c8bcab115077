//! The other ways to be known: a certificate, an account of the machine, and a JWT.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use perennial::client::{Client, Code, Credentials, Token};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    harness::{
        Server,
        output::{run, stderr, stdout},
        server_command,
    },
    house::House,
};

const MAY_LIST: &str = "may = ['list']\ntopics = ['>']\n";

#[tokio::test]
async fn a_caller_is_known_by_a_name_of_its_certificate() {
    let authority = Authority::new("ours");
    authority.sign_server();
    authority.sign("alice", &["alice.example"], |_| {});
    authority.sign("bob", &["bob.example"], |_| {});
    authority.write("access.toml", &format!("[[rule]]\nwho = ['certificate:DNS:Alice.example']\n{MAY_LIST}"));
    let access = authority.path("access.toml");
    let options = authority.options(&["--tls-client-ca", &authority.path("ca.pem"), "--access", &access]);
    let server = Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let list = async |name: &str| {
        let address = format!("https://localhost:{}", server.address().port());
        let client = Client::with_credentials(&address, authority.credentials(Some(name))).unwrap();
        client.list_topics("").await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(list("alice").await, Ok(()));
    let denied = list("bob").await.unwrap_err();
    assert!(denied.contains("certificate:DNS:bob.example has no right"), "{denied}");
}

#[test]
fn a_caller_is_known_by_its_account_of_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    let socket = format!("unix:{}", directory.path().join("p.sock").display());
    let uid = rustix::process::getuid().as_raw();
    let rules = directory.path().join("access.toml");
    for (who, is_allowed) in [(uid, true), (uid + 1, false)] {
        std::fs::write(&rules, format!("[[rule]]\nwho = ['uid:{who}']\n{MAY_LIST}")).unwrap();
        let mut server =
            server_command(directory.path(), &socket).arg("--access").arg(&rules).spawn().unwrap();
        let output = loop {
            let mut client = std::process::Command::new(env!("CARGO_BIN_EXE_perennial"));
            let output = run(client.args(["--server", &socket, "topics"]).env_remove("PERENNIAL_TOKEN"));
            if output.status.code() != Some(64 + 14) {
                break output;
            }
        };
        assert_eq!(output.status.success(), is_allowed, "{}{}", stdout(&output), stderr(&output));
        assert!(is_allowed || stderr(&output).contains(&format!("uid:{uid} has no right")));
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// The table of a file of rules by which the JWTs of an [`Issuer`] are accepted.
pub const JWT: &str = "[jwt]\nissuer = 'https://id'\naudience = 'perennial'\nalgorithms = ['EdDSA']\nkeys = \
                       'jwks.json'\nroles = 'groups'\n";

/// One who makes JWTs.
pub struct Issuer(KeyPair);

impl Issuer {
    pub fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ED25519).unwrap())
    }

    /// The file of its keys.
    pub fn keys(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.der_bytes().split_last_chunk::<32>().unwrap().1);
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"}]}).to_string()
    }

    /// A JWT that is valid for ten minutes.
    pub fn token(&self, subject: &str, groups: &[&str]) -> String {
        let exp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
        let claims =
            json!({"iss": "https://id", "aud": "perennial", "sub": subject, "exp": exp, "groups": groups});
        let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": "k"})), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()).unwrap()))
    }
}

#[tokio::test]
async fn a_caller_is_known_by_a_jwt_until_its_key_is_gone() {
    let (issuer, house) = (Issuer::new(), House::new());
    std::fs::write(house.file("jwks.json"), issuer.keys()).unwrap();
    house.write_rules(&format!("{JWT}[[rule]]\nwho = ['jwt:alice', 'role:ops']\n{MAY_LIST}"));
    house.server.wait_for_log("the files of access are in use");
    let list = async |token: String| {
        let token = Some(Token::Text(token));
        let credentials = Credentials { token, ..Credentials::default() };
        let client = Client::with_credentials(&house.server.url(), credentials).unwrap();
        client.list_topics("").await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(list(issuer.token("alice", &[])).await, Ok(()));
    assert_eq!(list(issuer.token("bob", &["x", "ops"])).await, Ok(()));
    assert_eq!(list(issuer.token("bob", &["x"])).await, Err(Code::PermissionDenied));
    assert_eq!(list(issuer.token("alice", &[]) + "x").await, Err(Code::Unauthenticated));
    std::fs::write(house.file("jwks.json"), Issuer::new().keys()).unwrap();
    house.server.wait_for_log("the files of access are in use");
    assert_eq!(list(issuer.token("alice", &[])).await, Err(Code::Unauthenticated));
}
