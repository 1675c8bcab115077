//! What would keep a server from serving with its settings, as far as the files say that they name. Nothing is changed, and no
//! address is taken: another server may run with the same settings.

use super::{Config, Error, demo, tls};
use crate::{access, lines};

/// Every fault of the files that settings name, each with its setting.
pub fn faults(config: &Config) -> Vec<String> {
    let fault = |(setting, fault): (&str, &dyn std::error::Error)| format!("{setting}: {fault}");
    let mut faults = tokens(config).err().map(|error| error.to_string()).into_iter().collect::<Vec<_>>();
    if let Some(files) = &config.tls {
        let found = tls::faults(files);
        faults.extend(found.iter().map(|(setting, error)| fault((setting, error))));
    }
    if let Some(files) = &config.access {
        let found = access::faults(files, &root_names(config));
        faults.extend(found.iter().map(|(setting, error)| fault((setting, error))));
    }
    let roots = lines::faults_of_roots(&config.roots);
    faults.extend(roots.iter().map(|error| fault(("--root", error))));
    faults
}

/// Refuses tokens that would protect nothing. The commands that change tokens need no rules.
pub fn tokens(config: &Config) -> Result<(), Error> {
    let is_wrong = config.tokens.is_some() && config.access.is_none();
    if is_wrong { Err(Error::TokensWithoutRules) } else { Ok(()) }
}

/// The names of the roots that are served.
pub fn root_names(config: &Config) -> Vec<String> {
    let names = config.roots.iter().map(|root| root.name.clone());
    names.chain(config.demo.then(|| demo::ROOT.into())).collect()
}
