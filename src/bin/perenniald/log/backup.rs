//! `perenniald log backup` and `perenniald log restore`.

use std::{path::Path, process::ExitCode};

use perennial::{
    messages::tools::{self, BackedUp, Error, Restored},
    server::{Config, data::DataDirectory},
};

use super::{progress::Progress, verify, warn};
use crate::{FAILURE, fail};

/// Makes a backup. Returns whether the log is sound, as far as this shows it.
pub fn backup(log: &Path, directory: &Path, replaces: bool, verifies: bool) -> Result<bool, Error> {
    let progress = Progress::new();
    let made = tools::backup(log, directory, replaces, |done, all| progress.record(done, all));
    progress.hide();
    let BackedUp { segments, copied_segments, bytes, next_sequence, faults } = made?;
    faults.iter().for_each(warn);
    let (place, last) = (directory.display(), next_sequence.saturating_sub(1));
    anstream::eprintln!(
        "perenniald: {place} has the log up to sequence {last}: {segments} segments, {bytes} bytes, of which \
         {copied_segments} segments are new or have changed"
    );
    Ok(faults.is_empty() && (!verifies || is_sound(directory)?))
}

/// Compares the files of a backup with their checksums, and verifies the log in it.
fn is_sound(directory: &Path) -> Result<bool, Error> {
    let progress = Progress::new();
    let report = |finding: &tools::Finding| progress.suspend(|| warn(finding));
    let faults = tools::check_backup(directory, report, |done, all| progress.record(done, all));
    progress.hide();
    Ok(faults? == 0 && verify(&directory.join("messages"))?)
}

/// Restores a backup into the data directory. Returns the exit code.
pub fn restore(config: &Config, directory: &Path) -> ExitCode {
    let mut data = match DataDirectory::open(&config.data) {
        Ok(data) => data,
        Err(error) => return fail(&error, FAILURE),
    };
    if let Err(error) = data.sign_as("that restores a backup") {
        return fail(&error, FAILURE);
    }
    let progress = Progress::new();
    let restored = tools::restore(directory, &data.log(), |done, all| progress.record(done, all));
    progress.hide();
    match restored {
        Ok(Restored { bytes, next_sequence }) => {
            let last = next_sequence.saturating_sub(1);
            anstream::eprintln!("perenniald: restored {bytes} bytes, up to sequence {last}");
            anstream::eprintln!(
                "perenniald: cursors up to there continue to work; later ones are refused, as soon as the log has grown"
            );
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, FAILURE),
    }
}
