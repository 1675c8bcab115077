//! The pages of a simulated file that the disk cannot read.
//!
//! A write of a whole page makes it good again: the disk replaces its sectors. A write of a part of it fails, because the
//! kernel must read the rest first.

use std::{collections::BTreeSet, io, ops::Range, path::Path};

use super::{Deed, Fault, Simulation};

const PAGE: u64 = 4096;

impl Simulation {
    /// Makes the pages of some bytes of a file bad.
    pub fn make_bad(&self, path: &Path, range: Range<u64>) {
        let mut state = self.state();
        let file = state.names.find(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        state.file(file).bad.add(&range);
    }

    /// Acts once, before a read finds a bad page, as another thread might.
    pub fn before_bad_read(&self, deed: impl FnOnce() + Send + 'static) {
        self.state().bad_deed = Deed(Some((0, Box::new(deed))));
    }

    /// Makes every read of a file fail, or none that is not in a bad page.
    pub fn set_unreadable(&self, is_unreadable: bool) {
        self.state().is_unreadable = is_unreadable;
    }
}

/// The numbers of the pages.
#[derive(Clone, Debug, Default)]
pub struct BadPages(BTreeSet<u64>);

impl BadPages {
    /// Makes the pages of some bytes bad.
    pub fn add(&mut self, bytes: &Range<u64>) {
        self.0.extend(pages(bytes));
    }

    /// Whether any of some bytes cannot be read.
    pub fn has_any_of(&self, bytes: &Range<u64>) -> bool {
        self.0.range(pages(bytes)).next().is_some()
    }

    /// Writes some bytes, or fails.
    pub fn write(&mut self, bytes: Range<u64>) -> io::Result<()> {
        let is_partial = |page: &u64| page * PAGE < bytes.start || bytes.end < (page + 1) * PAGE;
        if self.0.range(pages(&bytes)).any(is_partial) {
            return Err(Fault::Error.into());
        }
        self.0.retain(|page| !pages(&bytes).contains(page));
        Ok(())
    }
}

fn pages(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE..bytes.end.div_ceil(PAGE).max(bytes.start / PAGE)
}
