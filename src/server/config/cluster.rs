//! The settings of a cluster that keeps the messages.

use super::{Error, settings::Settings};
#[cfg(feature = "jetstream")]
use crate::messages::{Address, Credentials, Servers, retention::Rule};

/// Refuses the settings of a cluster in a program that was built without: it would keep messages elsewhere than the
/// operator said.
#[cfg(not(feature = "jetstream"))]
pub fn refuse(given: &Settings, file: &Settings) -> Result<(), Error> {
    let is_set = |settings: &Settings| {
        [
            ("--messages", settings.messages.is_some()),
            ("--messages-credentials", settings.messages_credentials.is_some()),
            ("--messages-ca", settings.messages_ca.is_some()),
        ]
    };
    match is_set(given).into_iter().chain(is_set(file)).find(|(_, is_set)| *is_set) {
        Some((name, _)) => Err(Error::Needs {
            name: name.into(),
            needed: "a perenniald that was built with `--features jetstream`, as that of the packages".into(),
        }),
        None => Ok(()),
    }
}

/// The cluster, if one is set. No error has a text that may hold a password.
#[cfg(feature = "jetstream")]
pub fn servers(given: &Settings, file: &Settings, retention: &[Rule]) -> Result<Option<Servers>, Error> {
    let text = given.messages.as_ref().or(file.messages.as_ref());
    let credentials = Credentials {
        credentials: given.messages_credentials.clone().or_else(|| file.messages_credentials.clone()),
        authorities: given.messages_ca.clone().or_else(|| file.messages_ca.clone()),
    };
    let Some(text) = text else {
        let needs = |name: &str| Err(Error::Needs { name: name.into(), needed: "--messages URL".into() });
        return match credentials {
            Credentials { credentials: Some(_), .. } => needs("--messages-credentials"),
            Credentials { authorities: Some(_), .. } => needs("--messages-ca"),
            Credentials { credentials: None, authorities: None } => Ok(None),
        };
    };
    let address = text.parse::<Address>().map_err(|error| Error::Value {
        name: "--messages".into(),
        value: if text.contains('@') { "hidden".into() } else { text.clone() },
        remedy: error.to_string(),
    })?;
    if !retention.is_empty() {
        return Err(Error::Value {
            name: "--retain".into(),
            value: "set".into(),
            remedy: "a cluster removes messages by their `ttl` only: remove it, or --messages".into(),
        });
    }
    Ok(Some(Servers { address, credentials }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn given(messages: &str) -> Settings {
        let mut settings = Settings::default();
        settings.messages = Some(messages.into());
        settings
    }

    #[cfg(not(feature = "jetstream"))]
    #[test]
    fn a_program_without_clusters_refuses_their_settings() {
        let none = Settings::default();
        refuse(&none, &none).unwrap();
        for (given, file) in [(given("nats://a"), none.clone()), (none, given("nats://a"))] {
            let refused = refuse(&given, &file).unwrap_err().to_string();
            assert!(refused.contains("--messages") && refused.contains("--features jetstream"), "{refused}");
        }
    }

    #[cfg(feature = "jetstream")]
    #[test]
    fn a_cluster_is_read_and_a_password_in_its_address_is_refused_and_not_repeated() {
        let none = Settings::default();
        assert_eq!(servers(&none, &none, &[]).unwrap(), None);
        let set = servers(&none, &given("nats://a,b/x"), &[]).unwrap().unwrap();
        assert_eq!(set.address.to_string(), "nats://a,b/x");
        let refused = servers(&given("nats://user:secret@a"), &none, &[]).unwrap_err().to_string();
        assert!(refused.contains("--messages-credentials") && !refused.contains("secret"), "{refused}");
    }

    #[cfg(feature = "jetstream")]
    #[test]
    fn settings_that_a_cluster_does_not_have_or_that_need_one_are_refused() {
        let none = Settings::default();
        let rules = ["a=age:1d".parse().unwrap()];
        let refused = servers(&given("nats://a"), &none, &rules).unwrap_err().to_string();
        assert!(refused.contains("--retain"), "{refused}");
        let mut alone = Settings::default();
        alone.messages_ca = Some("ca.pem".into());
        let refused = servers(&alone, &none, &[]).unwrap_err().to_string();
        assert!(refused.contains("--messages-ca") && refused.contains("--messages URL"), "{refused}");
    }
}
