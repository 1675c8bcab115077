//! Beside the kernel: in any tree of files and links, a path leads where `openat2` with `RESOLVE_BENEATH` says.

use proptest::{collection::vec, prelude::*};
use rustix::fs::{ResolveFlags, openat2};

use super::*;

/// Something to make in a tree.
#[derive(Clone, Debug)]
enum Made {
    File,
    Directory,
    Link(String),
}

fn name() -> impl Strategy<Value = String> {
    "[abc]"
}

fn path() -> impl Strategy<Value = String> {
    vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn made() -> impl Strategy<Value = Made> {
    let up = prop_oneof![3 => name(), 2 => Just("..".to_string()), 1 => Just(".".to_string())];
    let text = (vec(up, 0..4), prop_oneof![3 => name(), 1 => Just("..".to_string())]);
    let link = text.prop_map(|(mut parts, last)| {
        parts.push(last);
        Made::Link(parts.join("/"))
    });
    prop_oneof![3 => Just(Made::File), 1 => Just(Made::Directory), 4 => link]
}

/// Makes it, unless something is in the way; never by a link.
fn make(root: &Path, path: &str, made: &Made) {
    let mut here = root.to_owned();
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        here.push(name);
        if names.peek().is_none() {
            let _ = match made {
                Made::File => File::create_new(&here).map(drop),
                Made::Directory => fs::create_dir(&here),
                Made::Link(text) => symlink(text, &here),
            };
        } else if fs::create_dir(&here).is_err() && !here.symlink_metadata().unwrap().is_dir() {
            return;
        }
    }
}

/// Which file the kernel opens.
fn by_kernel(root: &OwnedFd, path: &str) -> Option<u64> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
    let file = loop {
        match open() {
            // Another test has renamed a file meanwhile: then the kernel does not know where `..` leads.
            Err(rustix::io::Errno::AGAIN) => {}
            opened => break File::from(opened.ok()?),
        }
    };
    file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.ino())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_path_leads_where_the_kernel_says(tree in vec((path(), made()), 10..40), asked in vec(path(), 1..20)) {
        let house = House::new();
        for (path, made) in &tree {
            make(&house.root(), path, made);
        }
        let root = OwnedFd::from(File::open(house.root()).unwrap());
        for path in asked.iter().chain(tree.iter().map(|(path, _)| path)) {
            let found = walk::file(&root, &[], Path::new(path), Aim::Read).ok();
            let inode = found.as_ref().map(|found| found.handle.metadata().unwrap().ino());
            prop_assert_eq!(inode, by_kernel(&root, path), "{}", path);
            // The reported names are those of the file, without any link.
            if let Some(found) = found {
                let real = house.root().canonicalize().unwrap().join(&found.path);
                prop_assert_eq!(real.canonicalize().unwrap(), real);
            }
        }
    }
}
