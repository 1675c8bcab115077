//! Identities: the names of a caller. A rule names identities, and a caller has those that it has proven.

use std::{fmt, path::Path, str::FromStr};

use super::rules::nearest;

/// One proof of who a caller is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Identity {
    /// Every caller has this.
    Anyone,
    /// It has shown a token of this name.
    Token(String),
    /// It has shown a JWT with this subject.
    Jwt(String),
    /// Its token or JWT has this role.
    Role(String),
    /// Its certificate has this name: `DNS:alice`, `URI:spiffe://…`, `EMAIL:…` or `IP:…`.
    Certificate(String),
    /// It came by a socket in the file system as this user.
    Uid(u32),
    /// It came by a socket in the file system with this group.
    Gid(u32),
}

/// The directory of the files of accounts.
pub const ETC: &str = "/etc";

/// The accounts of the machine, by which rules can name users and groups.
#[derive(Clone, Debug, Default, Hash)]
pub struct Accounts {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32)>,
}

impl Accounts {
    /// Reads the accounts of this machine from its directory `/etc`. Accounts of a directory service are known by number
    /// only.
    pub fn read(etc: &Path) -> Self {
        Self { users: names(&etc.join("passwd")), groups: names(&etc.join("group")) }
    }

    fn find(list: &[(String, u32)], name: &str) -> Option<u32> {
        list.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }
}

fn names(path: &Path) -> Vec<(String, u32)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let account = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(account).collect()
}

/// The forms of an identity in a rule.
const FORMS: &str =
    "token:NAME, role:NAME, jwt:SUBJECT, certificate:DNS:NAME, user:NAME, uid:N, group:NAME, gid:N or anyone";

/// The kinds of identities that have a name.
const KINDS: [&str; 8] = ["token", "role", "jwt", "certificate", "user", "uid", "group", "gid"];

/// The kinds of names in a certificate.
const NAMES: [&str; 4] = ["DNS", "URI", "EMAIL", "IP"];

impl Identity {
    /// An identity as a rule writes it.
    ///
    /// # Errors
    /// The fault, and what would work.
    pub fn parse(text: &str, accounts: &Accounts) -> Result<Self, String> {
        if text == "anyone" {
            return Ok(Self::Anyone);
        }
        let form = || {
            let meant = match text.split_once(':') {
                Some((kind, name)) if !KINDS.contains(&kind) && !name.is_empty() => {
                    let forms = KINDS.map(|kind| format!("{kind}:{name}"));
                    nearest(text, &forms)
                }
                Some(_) => String::new(),
                None => nearest(text, &["anyone"]),
            };
            format!("`{text}` is no identity{meant}: write {FORMS}")
        };
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(form)?;
        let number = || u32::from_str(name).map_err(|_| format!("`{name}` is no number: write {kind}:1000"));
        let account = |list: &[(String, u32)], file: &str, by_number: &str| {
            Accounts::find(list, name).ok_or_else(|| {
                let meant = nearest(name, &list.iter().map(|(known, _)| known).collect::<Vec<_>>());
                format!("{file} has no {kind} `{name}`{meant}: name one that it has, or write {by_number}:N")
            })
        };
        Ok(match kind {
            "token" => Self::Token(name.into()),
            "jwt" => Self::Jwt(name.into()),
            "role" => Self::Role(name.into()),
            "uid" => Self::Uid(number()?),
            "gid" => Self::Gid(number()?),
            "user" => Self::Uid(account(&accounts.users, "/etc/passwd", "uid")?),
            "group" => Self::Gid(account(&accounts.groups, "/etc/group", "gid")?),
            "certificate" => match name.split_once(':') {
                Some((kind, value)) if NAMES.contains(&kind) && !value.is_empty() => {
                    Self::certificate(kind, value)
                }
                _ => {
                    let form = "certificate:DNS:alice.example, certificate:URI:spiffe://ours/alice, \
                                certificate:EMAIL:alice@ours.example or certificate:IP:10.0.0.1";
                    let kind = name.split(':').next().unwrap_or_default().to_uppercase();
                    let meant = nearest(&kind, &NAMES);
                    return Err(format!(
                        "`{text}` names no kind of name in a certificate{meant}: write {form}"
                    ));
                }
            },
            _ => return Err(form()),
        })
    }

    /// A name of a certificate. The DNS and the domain of an address ignore case.
    pub fn certificate(kind: &str, value: &str) -> Self {
        let value = match (kind, value.split_once('@')) {
            ("DNS", _) => value.to_ascii_lowercase(),
            ("EMAIL", Some((local, domain))) => format!("{local}@{}", domain.to_ascii_lowercase()),
            _ => value.to_owned(),
        };
        Self::Certificate(format!("{kind}:{value}"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Jwt(subject) => write!(f, "jwt:{subject}"),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Certificate(name) => write!(f, "certificate:{name}"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_identity_is_read_and_each_fault_says_what_would_work() {
        let accounts = Accounts { users: vec![("alice".into(), 7)], groups: vec![("adm".into(), 4)] };
        for text in
            ["anyone", "token:a", "role:ops", "jwt:https://x|1", "uid:0", "gid:4", "certificate:DNS:a.b"]
        {
            assert_eq!(Identity::parse(text, &accounts).unwrap().to_string(), text);
        }
        assert_eq!(Identity::parse("user:alice", &accounts), Ok(Identity::Uid(7)));
        assert_eq!(Identity::parse("group:adm", &accounts), Ok(Identity::Gid(4)));
        let certificate = Identity::parse("certificate:DNS:Alice.Example", &accounts).unwrap();
        assert_eq!(certificate, Identity::Certificate("DNS:alice.example".into()));
        for (text, fault) in [
            ("", "token:NAME"),
            ("alice", "token:NAME"),
            ("token:", "token:NAME"),
            ("tokens:a", "token:NAME"),
            ("uid:alice", "uid:1000"),
            ("user:bob", "uid:N"),
            ("group:bob", "gid:N"),
            ("certificate:alice", "certificate:DNS:alice.example"),
            ("certificate:CN:alice", "certificate:DNS:alice.example"),
            ("anyoen", "did you mean `anyone`?"),
            ("tokne:shop", "did you mean `token:shop`?"),
            ("rol:reader", "did you mean `role:reader`?"),
            ("user:alcie", "did you mean `alice`?"),
            ("group:admm", "did you mean `adm`?"),
            ("certificate:dns:alice.example", "did you mean `DNS`?"),
            ("certificate:URL:spiffe://a", "did you mean `URI`?"),
        ] {
            let error = Identity::parse(text, &accounts).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
        assert!(Accounts::read(Path::new(ETC)).users.contains(&("root".into(), 0)));
    }
}
