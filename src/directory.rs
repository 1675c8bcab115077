//! Directories: they are created for their owner alone, and the names of new files and directories are on disk.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Creates a directory that only its owner can read, and its parents, if they are missing. Their names are on disk then.
///
/// # Errors
/// One of them cannot be created or synced.
pub fn create(path: &Path) -> io::Result<()> {
    create_with(path, |directory| File::open(directory)?.sync_all())
}

fn create_with(path: &Path, sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing = path.ancestors().take_while(|above| !above.is_dir()).count();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let path = fs::canonicalize(path)?;
    path.ancestors().skip(1).take(missing).try_for_each(sync)
}

/// Waits until the name of a file is on disk, which was created or renamed.
///
/// # Errors
/// Its directory cannot be synced.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_name_of_each_new_directory_is_on_disk() {
        let parent = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(parent.path()).unwrap();
        let mut synced = Vec::new();
        create_with(&path.join("a/b/c"), |directory| {
            synced.push(directory.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(synced, [path.join("a/b"), path.join("a"), path.clone()]);
        for name in ["a", "a/b", "a/b/c"] {
            assert_eq!(fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777, 0o700);
        }
        create_with(&path.join("a/b"), |directory| panic!("{}", directory.display())).unwrap();
        create(&path.join("d/e")).unwrap();
        sync_name(&path.join("d/e")).unwrap();
    }
}
