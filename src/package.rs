//! The files that a package has beside a program: completions of shells, and manual pages, made from its command line.

use std::{fs, io, path::Path};

use clap::Command;
use clap_complete::{Shell, generate_to};

/// Writes the completions of a program for bash, fish and zsh, and its manual pages, into a directory.
///
/// # Errors
/// Those of the file system.
pub fn write(command: &Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command.clone(), &name, directory)?;
    }
    clap_mangen::generate_to(command.clone(), directory)
}
