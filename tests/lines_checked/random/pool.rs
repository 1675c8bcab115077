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
    let born = |path: &Path| fs::metadata(path).unwrap().created().unwrap();
    let (last, probe) = (born(&files[COUNT - 1]), directory.join("probe"));
    let mut is_later = false;
    while !is_later {
        fs::write(&probe, "").unwrap();
        is_later = born(&probe) > last;
        fs::remove_file(&probe).unwrap();
    }
    files
}
