//! Environment variables that may be misspelled settings.
//!
//! An unknown variable is no error, because others set some: Kubernetes gives each container `PERENNIAL_PORT` and
//! `PERENNIAL_SERVICE_HOST` if a service has the name `perennial`. One that is close to a setting is worth a warning.

use clap::Args;

use super::{ENV_PREFIX, settings::Settings, variable};

/// The variables of the other program, `perennial`.
const OF_CLIENT: [&str; 8] =
    ["SERVER", "PROFILE", "CA", "CERT", "CERT_KEY", "SERVER_NAME", "TOKEN", "TOKEN_FILE"];

/// A misspelled name differs in up to this many characters, and in up to a quarter of them.
const MAX_DISTANCE: usize = 2;

/// What is wrong with these names of environment variables: a text for each that is close to a setting and is none.
pub fn misspelled(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let command = Settings::augment_args(clap::Command::new(""));
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(variable);
    let of_client = OF_CLIENT.map(|name| format!("{ENV_PREFIX}{name}"));
    let known = own.chain([variable("config")]).chain(of_client).collect::<Vec<_>>();
    let mut faults = Vec::new();
    for name in names {
        let Some(word) = name.strip_prefix(ENV_PREFIX).filter(|_| !known.contains(&name)) else { continue };
        let distance = |known: &&String| strsim::osa_distance(&name, known);
        let is_close = |known: &&String| distance(known) <= MAX_DISTANCE.min(word.chars().count() / 4);
        if let Some(nearest) = known.iter().filter(is_close).min_by_key(distance) {
            faults.push(format!(
                "there is no setting `{name}`, and it has no effect: did you mean `{nearest}`?"
            ));
        }
    }
    faults.sort();
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_close_to_a_setting_is_misspelled_and_one_of_kubernetes_is_not() {
        let faults = |name: &str| misspelled([name.to_owned()]);
        for (name, nearest) in [
            ("PERENNIAL_MAX_STREEMS", "PERENNIAL_MAX_STREAMS"),
            ("PERENNIAL_LISTENS", "PERENNIAL_LISTEN"),
            ("PERENNIAL_TLS_CRT", "PERENNIAL_TLS_CERT"),
            ("PERENNIAL_ACESS", "PERENNIAL_ACCESS"),
            ("PERENNIAL_CONFGI", "PERENNIAL_CONFIG"),
            ("PERENNIAL_TOKEN_FIEL", "PERENNIAL_TOKEN_FILE"),
        ] {
            let text = faults(name).concat();
            assert!(text.contains(&format!("`{name}`")) && text.contains(&format!("`{nearest}`")), "{text}");
        }
        for name in [
            "PERENNIAL_PORT",
            "PERENNIAL_PORT_50051_TCP",
            "PERENNIAL_PORT_50051_TCP_ADDR",
            "PERENNIAL_SERVICE_HOST",
            "PERENNIAL_SERVICE_PORT",
            "PERENNIAL_SERVICE_PORT_GRPC",
            "PERENNIAL_METRICS_PORT",
            "PERENNIAL_TOKENS",
            "PERENNIAL_TOKEN",
            "PERENNIAL_CONFIG",
            "OTHER_MAX_STREEMS",
        ] {
            assert!(faults(name).is_empty(), "{name}: {:?}", faults(name));
        }
    }

    #[test]
    fn the_variables_of_the_client_are_known() {
        let text = include_str!("../../bin/perennial/arguments.rs");
        let names = text.split("\"PERENNIAL_").skip(1).filter_map(|rest| rest.split('"').next());
        let names = names.collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names, OF_CLIENT.into_iter().collect());
    }
}
