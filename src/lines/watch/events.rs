//! The events of inotify: which files were written to, which came to a path, in which order, and what they were renamed to.

use std::{mem::MaybeUninit, sync::Arc};

use rustix::fs::inotify::{self, ReadFlags};

use super::{Role, Shared, Watching, followed::Followed};

/// The bytes of the queue that are read at once: about a hundred events.
const QUEUE_BYTES: usize = 8 * 1024;

/// How often files that are renamed again and again while they are opened are tried, before other paths have their turn.
const ATTEMPTS: usize = 20;

impl Shared {
    /// Reads the queue until it is empty, and opens the files that came to followed paths. `arrived` are paths to which
    /// files came that are not opened yet. Returns those that are left: call it again with them.
    pub fn read_events(&self, mut arrived: Vec<Arc<Followed>>) -> Vec<Arc<Followed>> {
        let mut relinked = Vec::new();
        for followed in self.take_events(&mut relinked) {
            add(&mut arrived, &followed);
        }
        for _ in 0..ATTEMPTS {
            if arrived.is_empty() {
                break;
            }
            let opened = arrived.iter().map(|followed| followed.work().open_arrived()).collect::<Vec<_>>();
            // Since the events were read, a file may have been renamed, and another one have got its name. The events
            // since then decide: files that they do not confirm are opened again.
            let since = self.take_events(&mut relinked);
            let mut again = Vec::new();
            for (followed, opened) in arrived.into_iter().zip(opened) {
                let mut work = followed.work();
                if followed.take_arrived(&mut work, opened, &|file| self.is_foreign(&followed.path, file)) {
                    add(&mut relinked, &followed);
                }
                if work.names.has_pending() {
                    again.push(followed.clone());
                }
            }
            for followed in since {
                add(&mut again, &followed);
            }
            arrived = again;
        }
        // After the files that came while the path led elsewhere.
        for followed in relinked {
            self.check(&followed);
        }
        arrived
    }

    /// Takes the events in the queue, and wakes the followers of files that were written to. Returns the paths to which
    /// files came, and adds those on which a link changed to `relinked`.
    fn take_events(&self, relinked: &mut Vec<Arc<Followed>>) -> Vec<Arc<Followed>> {
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
                    tracing::error!(%error, "inotify cannot be read: followed files are inspected once a second");
                    break;
                }
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.look_at_all();
                continue;
            }
            let name = event.file_name().map(|name| name.to_string_lossy());
            if event.events().contains(ReadFlags::IGNORED) {
                self.table().reach(Some(event.wd()));
            }
            for Watching { followed, role, after } in self.watching(event.wd()).iter() {
                if after.is_some() && !event.events().contains(ReadFlags::IGNORED) {
                    continue;
                }
                if event.events().contains(ReadFlags::IGNORED) {
                    self.forget(followed, event.wd());
                    continue;
                }
                let Some(name) = &name else {
                    add(&mut woken, followed);
                    continue;
                };
                let is_written = event.events().intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB);
                let own = match role {
                    Role::Directory(own) => own,
                    Role::Link(link) => {
                        if !is_written && **name == **link {
                            if event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                                let mut work = followed.work();
                                work.links.all().for_each(|it| it.record_event(event.wd(), name));
                            }
                            add(relinked, followed);
                        }
                        continue;
                    }
                    Role::File | Role::Mark => continue,
                };
                if !name.starts_with(own) {
                    // A file that was at the path may have got any name.
                    if event.events().contains(ReadFlags::MOVED_TO) {
                        followed.work().names.take(own, event.events(), name, event.cookie());
                    }
                    continue;
                }
                if !is_written {
                    let mut work = followed.work();
                    work.names.take(own, event.events(), name, event.cookie());
                    if work.names.has_pending() || **name == **own {
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

    /// Events were lost: every path is inspected.
    fn look_at_all(&self) {
        let all = {
            let mut table = self.table();
            table.reach(None);
            table.followed.values().cloned().collect::<Vec<_>>()
        };
        tracing::warn!(paths = all.len(), "inotify's queue overflowed: every followed file is inspected");
        for followed in all {
            followed.work().lose_events();
            self.check(&followed);
            followed.wake();
        }
    }

    fn watching(&self, watch: i32) -> Arc<Vec<Watching>> {
        self.table().watched.get(&watch).cloned().unwrap_or_default()
    }
}

/// Adds a path that is not among them.
fn add(all: &mut Vec<Arc<Followed>>, followed: &Arc<Followed>) {
    if !all.iter().any(|other| Arc::ptr_eq(other, followed)) {
        all.push(followed.clone());
    }
}
