//! The files beside a log that came after one of its generations: for a reader that was away, and for events that were
//! lost. Everything here blocks.
//!
//! A log is rotated by renaming it (`app.log` to `app.log.1`) and creating a new one at its path. The name that a proven
//! generation has now says how the rotation names files, and the marks in these names say in which order they came. The
//! times of the files confirm it; where they contradict the names, and where a name is missing, some may be missing.

use std::{cmp::Reverse, fs::Metadata, io, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use super::{
    copies::{is_copy, nanos},
    numbered::{Numbered, Times},
    search,
    stable::stable,
};
use crate::lines::{
    identity::Identity,
    root::{
        places::{Place, Sibling},
        rotated_name::{bases, is_rotation, without_compression},
        rotation_scheme::{Kind, Mark, Scheme},
    },
};

/// How often a file that was there a moment ago is searched.
const ATTEMPTS: usize = 5;

/// The time between two attempts: the rotation of a few files takes less.
const PAUSE: Duration = Duration::from_millis(10);

/// How soon after a file was renamed away its successor is created, if no other file came in between.
const ADJACENT: Duration = Duration::from_secs(2);

/// A file that came to a path after another one.
#[derive(Clone, Debug)]
pub struct Next {
    pub file: Sibling,
    /// There may have been others before it: they are gone, cannot be read, or cannot be distinguished from another
    /// log's.
    pub misses_some: bool,
}

/// The files that came to a path after another one.
#[derive(Clone, Debug, Default)]
pub struct Younger {
    /// The oldest first.
    pub files: Vec<Next>,
    /// The one at the path, which came last.
    pub current: Option<Sibling>,
    /// As [`Next::misses_some`], for the one at the path.
    pub misses_last: bool,
    /// The name of the older file is none that a rotation gives: it may be the backup of an editor, and the file at the path
    /// may hold its lines.
    pub is_backup: bool,
}

/// The files that came after one, which need not have a name any more.
///
/// `older` are files that are known to be older; `is_copy`: the own file is a copy of the one at the path.
pub fn younger(
    places: &[Arc<Place>],
    own: &Metadata,
    older: &[Identity],
    is_copy: bool,
) -> io::Result<Younger> {
    stable(places, || Siblings { is_copy, ..Siblings::list(places, own, older)? }.order())
}

impl Younger {
    /// The names and files, in order.
    pub fn names(&self) -> impl Iterator<Item = (&str, Identity)> {
        let all = self.files.iter().map(|next| &next.file).chain(&self.current);
        all.map(|file| (file.name.as_str(), file.identity))
    }

    /// Whether there may have been others.
    pub fn misses_some(&self) -> bool {
        self.misses_last || self.files.iter().any(|next| next.misses_some)
    }
}

/// The files beside a log.
struct Siblings<'a> {
    places: &'a [Arc<Place>],
    /// Files that are known to be older than those that are wanted.
    older: &'a [Identity],
    /// When the file was created and written that came before those that are wanted.
    born: u64,
    written: u64,
    /// Links are on the path.
    is_linked: bool,
    /// The own file is a copy of the one at the path, which is older then, though its content is the newest.
    is_copy: bool,
    /// The file that came before those that are wanted, under its present name.
    own: Option<Sibling>,
    /// The file at the path.
    current: Option<Sibling>,
    naming: Naming,
    /// Files that are named as the rotation names them, with their marks. With `own`.
    named: Vec<(Mark, Sibling)>,
    /// Compressed files, and names that cannot be opened.
    unreadable: Vec<Mark>,
    /// Files that are named by another strict rotation of the path, or of the file that its links lead to.
    others: Vec<Sibling>,
    /// Files that another rotation of the path may have named, which puts its mark before the extension or in front. A number
    /// there can also be that of another log.
    likely: Vec<(Scheme, Sibling)>,
}

/// How a rotation names files, as far as the name of a proven one says.
enum Naming {
    /// By a mark that it adds to the name of the log.
    Rotation(Scheme),
    /// Each file has its own name, and a link leads to the last: the mark in that, and the mark of the own file.
    Series { scheme: Scheme, own: Mark, last: Mark },
    /// A strict rotation without an order: `.old`.
    Once,
    /// The file has no name here any more.
    Unknown,
    /// No rotation gives such a name.
    Backup,
}

impl<'a> Siblings<'a> {
    fn list(places: &'a [Arc<Place>], own: &Metadata, older: &'a [Identity]) -> io::Result<Self> {
        let identity = Identity::of(own);
        let mut siblings = Self {
            places,
            older,
            born: identity.birth(),
            written: nanos(own.modified()?),
            is_linked: places.iter().skip(1).any(|place| !place.is_archive()),
            is_copy: false,
            own: None,
            current: None,
            naming: Naming::Unknown,
            named: Vec::new(),
            unreadable: Vec::new(),
            others: Vec::new(),
            likely: Vec::new(),
        };
        let Some(path) = places.first() else { return Ok(siblings) };
        siblings.current = path.sibling(&path.name);
        // It may be found in two places, of which one knows what its name means.
        let mut found =
            search::names_of(places, identity)?.into_iter().map(|own| (Naming::of(&own, path), own));
        let first = found.next();
        let known = found.find(|(naming, _)| !matches!(naming, Naming::Backup));
        let known = match first {
            Some((Naming::Backup, _)) => known.or(first),
            first => first,
        };
        if let Some((naming, own)) = known {
            (siblings.naming, siblings.own) = (naming, Some(own));
        }
        match (&siblings.naming, siblings.own.as_ref().map(|own| own.place.clone())) {
            (Naming::Rotation(scheme), Some(place)) => {
                let scheme = scheme.clone();
                siblings.add_named(&place, |name| scheme.mark(name))?;
            }
            (Naming::Series { scheme, .. }, Some(place)) => {
                let scheme = scheme.clone();
                siblings.add_named(&place, |name| series_mark(&scheme, name))?;
                siblings.named.sort_by_cached_key(|(mark, file)| (mark.clone(), rank(&scheme, &file.name)));
            }
            _ => {}
        }
        let own = siblings.own.as_ref().map(|own| own.place.clone());
        let is_own = |place: &Arc<Place>| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, place));
        // An archive may have files of other logs with the same name, but hardly beside the own one.
        for place in places.iter().filter(|place| !place.is_archive() || is_own(place)) {
            siblings.add_others(place)?;
        }
        Ok(siblings)
    }

    fn add_named(&mut self, place: &Arc<Place>, mark: impl Fn(&str) -> Option<Mark>) -> io::Result<()> {
        for name in place.names()? {
            if let Some(mark) = mark(&name) {
                match place.sibling(&name) {
                    Some(sibling) => self.named.push((mark, sibling)),
                    None => self.unreadable.push(mark),
                }
            } else if let Some(mark) = without_compression(&name).and_then(&mark) {
                self.unreadable.push(mark);
            }
        }
        self.named.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
    }

    fn add_others(&mut self, place: &Arc<Place>) -> io::Result<()> {
        for name in place.names()? {
            let is_strict = is_rotation(&place.name, &name);
            let likely = if is_strict { None } else { Scheme::of_likely_rotation(&place.name, &name) };
            if !is_strict && likely.is_none() {
                continue;
            }
            let Some(sibling) = place.sibling(&name) else { continue };
            let is_named = self.named.iter().any(|(_, other)| other.identity == sibling.identity);
            let mut here = self.own.iter().chain(&self.current);
            if is_named || here.any(|other| other.identity == sibling.identity) {
                continue;
            }
            match likely {
                Some(scheme) => self.likely.push((scheme, sibling)),
                None => self.others.push(sibling),
            }
        }
        Ok(())
    }

    fn order(self) -> io::Result<Younger> {
        let is_backup = matches!(self.naming, Naming::Backup) && !self.is_rotated_elsewhere();
        let (mut files, mut misses_last) = match &self.naming {
            Naming::Rotation(scheme) if scheme.kind() == Kind::Number => self.by_number(),
            Naming::Rotation(_) => self.by_date(),
            Naming::Series { scheme, own, last } => self.by_series(scheme.kind(), own, last),
            Naming::Once => (Vec::new(), false),
            // A link may have led to any other file in between.
            Naming::Backup => {
                (Vec::new(), self.is_linked || !self.is_adjacent()? || self.has_others_alike()?)
            }
            Naming::Unknown => self.by_age(),
        };
        if self.has_doubtful()? {
            *files.first_mut().map_or(&mut misses_last, |next| &mut next.misses_some) = true;
        }
        // A reader continues in the file at the path also if that seems to be older.
        let own = self.own.as_ref().map(|own| own.identity);
        let current = self.current.filter(|current| Some(current.identity) != own);
        files.retain(|next| current.as_ref().is_none_or(|current| current.identity != next.file.identity));
        Ok(Younger { files, current, misses_last, is_backup })
    }

    fn by_number(&self) -> (Vec<Next>, bool) {
        let Some(own) = self.own_index() else { return self.by_age() };
        let number = |mark: &Mark| if let Mark::Number(number) = mark { Some(*number) } else { None };
        let hidden = self.unreadable.iter().filter_map(number).collect();
        let current = self.current.as_ref().filter(|_| !self.is_copy);
        let (files, older) = (&self.named, self.older);
        Numbered { files, own, current, older, hidden }.younger()
    }

    fn by_date(&self) -> (Vec<Next>, bool) {
        let Some(own) = self.own_index() else { return self.by_age() };
        let mut last = self.named.get(own).map(|(mark, _)| mark);
        let (mut files, mut misses_some) = (Vec::new(), false);
        for (mark, file) in self.named.iter().skip(own + 1) {
            misses_some |= self.unreadable.iter().any(|hidden| Some(hidden) > last && hidden < mark);
            files.push(Next { file: file.clone(), misses_some: std::mem::take(&mut misses_some) });
            last = Some(mark);
        }
        (files, misses_some || self.unreadable.iter().any(|hidden| Some(hidden) > last))
    }

    /// Numbered files with names of their own may be those of several processes: then they were written at the same time.
    fn by_series(&self, kind: Kind, own: &Mark, last: &Mark) -> (Vec<Next>, bool) {
        let own_index = self.own_index().unwrap_or(0);
        let (mut files, mut misses_some) = (Vec::new(), false);
        let (mut before, mut before_mark) = (self.own.as_ref(), own);
        let current = self.current.as_ref().map(|current| current.identity);
        let others = self.named.iter().skip(own_index + 1).filter(|(_, file)| Some(file.identity) != current);
        for (mark, file) in others.take_while(|(mark, _)| mark <= last) {
            let is_next = before.is_none_or(|before| file.identity.birth() >= written(before));
            let is_over = self.current.as_ref().is_none_or(|last| last.identity.birth() >= written(file));
            let is_rotation = mark == own || mark == last;
            if kind == Kind::Date || is_rotation || is_next && is_over {
                misses_some |= self.unreadable.iter().any(|hidden| hidden > before_mark && hidden < mark);
                files.push(Next { file: file.clone(), misses_some: std::mem::take(&mut misses_some) });
                (before, before_mark) = (Some(file), mark);
            } else {
                misses_some = true;
            }
        }
        (files, misses_some || self.unreadable.iter().any(|hidden| hidden > before_mark && hidden <= last))
    }

    /// The file has no name that says when it came: those come after it that were created since it was written last.
    fn by_age(&self) -> (Vec<Next>, bool) {
        let all = self.others.iter().chain(self.named.iter().map(|(_, file)| file));
        let mut files = all.filter(|file| self.is_born_after_own(file)).cloned().collect::<Vec<_>>();
        let born_later = files.len();
        // One that was created before was written at the same time as the own file: it is another log's, unless the
        // writer was late.
        files.retain(|file| file.identity.birth() >= self.written);
        files.sort_by_cached_key(age);
        let misses_last = files.len() < born_later;
        (files.into_iter().map(|file| Next { file, misses_some: false }).collect(), misses_last)
    }

    /// Whether a file came after the own one against what the names say, and is no copy: it has an earlier date, and was
    /// created and written later, as when the clock is set back; or it is named by another rotation, as when the rotation
    /// was changed.
    fn has_doubtful(&self) -> io::Result<bool> {
        let mut doubtful = match &self.naming {
            Naming::Unknown => return Ok(false),
            Naming::Rotation(scheme) if scheme.kind() == Kind::Date => {
                let earlier = self.named.iter().take(self.own_index().unwrap_or(0)).map(|(_, file)| file);
                let earlier = earlier.filter(|file| !self.older.contains(&file.identity));
                earlier.filter(|file| self.is_after_own(file)).collect()
            }
            _ => Vec::new(),
        };
        let is_later = |file: &&Sibling| self.is_born_after_own(file) || written(file) > self.written;
        for others in self.others.chunk_by(|one, other| Arc::ptr_eq(&one.place, &other.place)) {
            let log = others.first().map_or("", |file| file.place.name.as_str());
            let last = search::last_number(log, others.iter().map(|file| file.name.as_str()));
            let is_rotated = |file: &&Sibling| search::number(log, &file.name).is_none_or(|it| it <= last);
            doubtful.extend(others.iter().filter(is_later).filter(is_rotated));
        }
        // A date is that of a rotation. A number is it at the place of the own mark, if the file was renamed after the own
        // one, as a log that is written was not.
        let own = self.own.as_ref().map_or(0, |own| Times::of(own).changed);
        let is_rotated = |(scheme, file): &&(Scheme, Sibling)| {
            let is_like_own = matches!(&self.naming, Naming::Rotation(own) if own.is_around_same(scheme));
            let times = Times::of(file);
            scheme.kind() == Kind::Date || is_like_own && times.is_renamed() && times.changed >= own
        };
        doubtful.extend(self.likely.iter().filter(is_rotated).map(|(_, file)| file).filter(is_later));
        for file in doubtful {
            if file.metadata.len() > 0 && !self.is_copy(file)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_copy(&self, file: &Sibling) -> io::Result<bool> {
        let all = self.own.iter().chain(&self.current).chain(self.named.iter().map(|(_, file)| file));
        for other in all {
            if is_copy(file, other)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn own_index(&self) -> Option<usize> {
        let own = self.own.as_ref()?.identity;
        self.named.iter().position(|(_, file)| file.identity == own)
    }

    fn is_born_after_own(&self, file: &Sibling) -> bool {
        file.identity.birth() > self.born
    }

    fn is_after_own(&self, file: &Sibling) -> bool {
        self.is_born_after_own(file) && written(file) > self.written
    }

    /// Whether the own file was rotated from another name, at which there is a file again: a link led there before.
    fn is_rotated_elsewhere(&self) -> bool {
        let Some(own) = &self.own else { return false };
        let mut names =
            bases(own.name.as_bytes()).into_iter().filter_map(|base| String::from_utf8(base).ok());
        names.any(|name| name != own.place.name && own.place.sibling(&name).is_some())
    }

    /// Whether other files differ from the own one only by a number or a date in their names, and are no older: they may have
    /// come after it.
    fn has_others_alike(&self) -> io::Result<bool> {
        let Some(own) = &self.own else { return Ok(false) };
        let schemes = Scheme::around(&own.place.name, &own.name);
        // A number in the name of the log itself is not one of the rotation.
        let has_number = own.place.name.bytes().any(|byte| byte.is_ascii_digit());
        let is_alike = |name: &String| {
            let is_numbered =
                *name != own.place.name && !has_number && without_digits(name).eq(without_digits(&own.name));
            *name != own.name && (is_numbered || schemes.iter().any(|scheme| scheme.mark(name).is_some()))
        };
        let alike = own.place.names()?.into_iter().filter(is_alike);
        let mut others = alike.filter_map(|name| own.place.sibling(&name)).map(|other| other.identity);
        Ok(others.any(|other| other != own.identity && other.birth() >= self.born))
    }

    /// The file at the path came when the own one was renamed, and no other file was created in between.
    fn is_adjacent(&self) -> io::Result<bool> {
        let (Some(own), Some(current)) = (&self.own, &self.current) else { return Ok(true) };
        let changed =
            own.metadata.ctime().saturating_mul(1_000_000_000).saturating_add(own.metadata.ctime_nsec());
        let (changed, born) = (u64::try_from(changed).unwrap_or(0), current.identity.birth());
        if u128::from(born.abs_diff(changed)) > ADJACENT.as_nanos() {
            return Ok(false);
        }
        // When it was renamed is unknown if it was written to later, or within the same tick of the clock.
        let renamed = if written(own) < changed { changed } else { self.born };
        let is_between = |other: Identity| {
            ![own.identity, current.identity].contains(&other) && (renamed..=born).contains(&other.birth())
        };
        for place in self.places {
            // An archive holds old files of many logs: those of this one are named as the own one is.
            let may_be_own = |name: &&String| {
                !place.is_archive() || **name == own.name || name.starts_with(place.name.as_str())
            };
            let names = place.names()?;
            let mut files = names.iter().filter(may_be_own).filter_map(|name| place.identity_of(name));
            if files.any(is_between) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Naming {
    fn of(own: &Sibling, path: &Arc<Place>) -> Self {
        let Sibling { place, name, .. } = own;
        if let Some((scheme, _)) = Scheme::of_rotation(&place.name, name) {
            return Self::Rotation(scheme);
        }
        if is_rotation(&place.name, name) {
            return Self::Once;
        }
        let is_of_link = !Arc::ptr_eq(place, path) && !place.is_archive();
        let rotated_from = bases(name.as_bytes()).into_iter().filter_map(|base| String::from_utf8(base).ok());
        let mut names = std::iter::once(name.clone()).chain(rotated_from).filter(|_| is_of_link);
        let series = names.find_map(|name| {
            let (scheme, own) = Scheme::shared(&name, &place.name)?;
            let last = scheme.mark(&place.name)?;
            (own < last).then_some(Self::Series { scheme, own, last })
        });
        series.unwrap_or(Self::Backup)
    }
}

/// A name without its numbers.
fn without_digits(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|letter| !letter.is_ascii_digit())
}

/// The mark of a name in a series, or of the name that it was rotated from.
fn series_mark(scheme: &Scheme, name: &str) -> Option<Mark> {
    let rotated_from = || bases(name.as_bytes()).into_iter().filter_map(|base| String::from_utf8(base).ok());
    scheme.mark(name).or_else(|| rotated_from().find_map(|base| scheme.mark(&base)))
}

/// The order of the files of one mark in a series: those that were rotated from a name come before the one that has it.
fn rank(scheme: &Scheme, name: &str) -> (bool, Option<Mark>) {
    let is_own = |base: &String| scheme.mark(base).is_some();
    let base =
        bases(name.as_bytes()).into_iter().filter_map(|base| String::from_utf8(base).ok()).find(is_own);
    let rotated = base.and_then(|base| Scheme::of_rotation(&base, name)).map(|(_, mark)| match mark {
        // The highest number is the oldest.
        Mark::Number(number) => Mark::Number(u64::MAX - number),
        date @ Mark::Date(..) => date,
    });
    (scheme.mark(name).is_some(), rotated)
}

/// When a file was written last, in nanoseconds since 1970.
pub fn written(file: &Sibling) -> u64 {
    file.metadata.modified().map_or(0, nanos)
}

/// When a file was created. Files that were created within one tick of the file system's clock, or whose file system does
/// not record it, are ordered by the numbers that rotation gives them, and without numbers by their last change.
fn age(sibling: &Sibling) -> (u64, Reverse<Option<u64>>, u64) {
    let number = sibling.name.rsplit('.').next().and_then(|suffix| suffix.parse::<u64>().ok());
    (sibling.identity.birth(), Reverse(number), written(sibling))
}

/// Repeats a search for a file that is not found: a rotation may be renaming it, and all its siblings, just now.
/// `may_change` says whether that is possible.
pub fn again<T>(
    mut search: impl FnMut() -> io::Result<Option<T>>,
    may_change: impl Fn() -> bool,
) -> io::Result<Option<T>> {
    for _ in 1..ATTEMPTS {
        let is_settled = !may_change();
        match search()? {
            None if !is_settled => std::thread::sleep(PAUSE),
            found => return Ok(found),
        }
    }
    search()
}
