//! What a caller may read beside the path that it asked for.

use std::{
    hash::{Hash, Hasher},
    path::Path,
    sync::Arc,
};

type Allows = dyn Fn(&str) -> bool + Send + Sync;

/// The files that may be opened for a caller under other names than those of the path and of its rotations. A cursor is
/// untrusted: it names a file by its inode, and must not open one that the caller may not read. By default everything
/// that the rules of the root allow.
#[derive(Clone, Default)]
pub struct MayRead(Option<Arc<Allows>>);

impl MayRead {
    /// The files whose path, `ROOT/relative/path`, passes.
    pub fn only(allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(allows)))
    }

    /// Whether the caller may read a file below a root.
    pub(super) fn allows(&self, root: &str, path: &Path) -> bool {
        let Some(allows) = &self.0 else { return true };
        path.to_str().is_some_and(|path| allows(&format!("{root}/{path}")))
    }
}

impl std::fmt::Debug for MayRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "MayRead(some)" } else { "MayRead(all)" })
    }
}

/// It is no part of a path: the same path of two callers is one path.
impl PartialEq for MayRead {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MayRead {}

impl Hash for MayRead {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
