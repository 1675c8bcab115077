//! Files that were born before all others: a log that gets one of them seems to have been created before the clock was set
//! back.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// How many there are.
const COUNT: usize = 8;

/// Creates them in a new directory. A file that is created after that is younger, by the clock of the file system.
pub fn early_files(directory: &Path) -> Vec<PathBuf> {
    fs::create_dir(directory).unwrap();
    let files = (0..COUNT).map(|n| directory.join(n.to_string())).collect::<Vec<_>>();
    for early in &files {
        fs::write(early, "").unwrap();
    }
    wait_for_tick(directory);
    files
}

/// After that, files are younger than all before, by the clock of the file system.
pub fn wait_for_tick(directory: &Path) {
    let probe = directory.join("probe");
    let now = || {
        fs::write(&probe, "").unwrap();
        let born = fs::metadata(&probe).unwrap().created().unwrap();
        fs::remove_file(&probe).unwrap();
        born
    };
    let first = now();
    while now() <= first {}
}
