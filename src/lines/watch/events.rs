//! The events of inotify: that something was written, and which files came to a path, in which order, and where they were
//! renamed to.

use std::{mem::MaybeUninit, sync::Arc};

use rustix::fs::inotify::{self, ReadFlags};

use super::{Shared, followed::Followed};

/// What is read of the queue at once: about a hundred events.
const QUEUE_BYTES: usize = 8 * 1024;

/// How often files that are renamed again and again while they are opened are tried, before all paths are looked after.
const ATTEMPTS: usize = 20;

impl Shared {
    /// Reads the queue until it is empty, and opens the files that came to followed paths. `arrived` are the paths to which
    /// some came that are not opened yet; so are those that are returned: to be called again.
    pub fn read_events(&self, mut arrived: Vec<Arc<Followed>>) -> Vec<Arc<Followed>> {
        for followed in self.take_events() {
            add(&mut arrived, &followed);
        }
        for _ in 0..ATTEMPTS {
            if arrived.is_empty() {
                break;
            }
            let opened = arrived.iter().map(|followed| followed.work().open_arrived()).collect::<Vec<_>>();
            // A file may have been renamed, and another one have got its name, since the events were read: what these
            // say decides. Those that were not confirmed are tried again.
            let since = self.take_events();
            let mut again = Vec::new();
            for (followed, opened) in arrived.into_iter().zip(opened) {
                let mut work = followed.work();
                followed.take_arrived(&mut work, opened, &|file| self.is_foreign(&followed.path, file));
                if work.names.has_pending() {
                    again.push(followed.clone());
                }
            }
            for followed in since {
                add(&mut again, &followed);
            }
            arrived = again;
        }
        arrived
    }

    /// Takes what is in the queue; wakes the followers of what was written to. Returns the paths to which files came.
    fn take_events(&self) -> Vec<Arc<Followed>> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let (mut arrived, mut woken) = (Vec::new(), Vec::new());
        let mut buffer = [const { MaybeUninit::uninit() }; QUEUE_BYTES];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => {
                    tracing::error!(%error, "inotify cannot be read: followed files are looked at once a second");
                    break;
                }
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.look_at_all();
                continue;
            }
            let name = event.file_name().map(|name| name.to_string_lossy());
            for followed in self.watching(event.wd()).iter() {
                if event.events().contains(ReadFlags::IGNORED) {
                    followed.work().forget(event.wd());
                    self.check(followed);
                    continue;
                }
                let Some(name) = &name else {
                    add(&mut woken, followed);
                    continue;
                };
                if !name.starts_with(&followed.path.name) {
                    // A file that was at the path may have got any name.
                    if event.events().contains(ReadFlags::MOVED_TO) {
                        let mut work = followed.work();
                        work.names.take(&followed.path.name, event.events(), name, event.cookie());
                    }
                    continue;
                }
                if !event.events().intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
                    let mut work = followed.work();
                    work.names.take(&followed.path.name, event.events(), name, event.cookie());
                    if work.names.has_pending() || **name == *followed.path.name {
                        add(&mut arrived, followed);
                    }
                }
                add(&mut woken, followed);
            }
        }
        for followed in woken {
            followed.wake();
        }
        arrived
    }

    /// Events were lost: everything is looked at.
    fn look_at_all(&self) {
        let all = self.table().followed.values().cloned().collect::<Vec<_>>();
        tracing::warn!(paths = all.len(), "inotify's queue overflowed: every followed file is looked at");
        for followed in all {
            followed.work().lose_events();
            self.check(&followed);
            followed.wake();
        }
    }

    fn watching(&self, watch: i32) -> Arc<Vec<Arc<Followed>>> {
        self.table().watched.get(&watch).cloned().unwrap_or_default()
    }
}

/// Each once.
fn add(all: &mut Vec<Arc<Followed>>, followed: &Arc<Followed>) {
    if !all.iter().any(|other| Arc::ptr_eq(other, followed)) {
        all.push(followed.clone());
    }
}
