//! All generations of a log that were rotated away, compressed or not, for a reader of its whole history. Everything here
//! blocks.
//!
//! The names of the files propose them, and their marks and times order them, as in [`siblings`](super::siblings); there is
//! no proven one to begin with. Where several ways of naming are found, the one with the most files is the log's.
//!
//! Two files with the same mark are one generation that is being compressed, or two: a rotation that was changed to compress
//! its files in another way, or no longer, begins again with the same marks beside the old files. Their content shows which.
//!
//! An archive that the operator named may hold generations of several logs with the same name. Only those are read that are
//! in the log's own archive, see [`tie`](crate::lines::root), or else in the only one that is not another log's.

use std::{cmp::Reverse, io, sync::Arc};

use super::{
    archive::{Format, head},
    copies::is_copy,
    numbered::{Numbered, may_be_others},
    siblings::{Next, Younger, written},
    stable::stable,
};
use crate::lines::root::{
    places::{Place, Sibling},
    rotated_name::{is_rotation, without_compression},
    rotation_scheme::{Kind, Mark, Scheme},
};

/// How much of two files with the same mark is compared.
const COMPARED_BYTES: usize = 64 * 1024;

/// With how many bytes the files of compressors begin that say how they are compressed.
const MAGICS: [(&str, u64); 6] = [(".gz", 3), (".zst", 4), (".xz", 6), (".bz2", 10), (".lz4", 4), (".Z", 2)];

/// The files that one way of naming gives.
struct Group {
    /// `None`: there is only one such name.
    scheme: Option<Scheme>,
    files: Vec<(Mark, Sibling)>,
    /// Of files that cannot be opened.
    hidden: Vec<Mark>,
    /// Several generations have the same mark, so the marks are no order.
    has_twins: bool,
}

/// The generations of a log that were rotated away, the oldest first, and the file at the path.
pub fn generations(places: &[Arc<Place>]) -> io::Result<Younger> {
    stable(places, || list(places))
}

fn list(places: &[Arc<Place>]) -> io::Result<Younger> {
    let Some(path) = places.first() else { return Ok(Younger::default()) };
    let current = path.sibling(&path.name);
    let (places, mut misses_some) = own_places(places)?;
    let mut groups = Vec::<Group>::new();
    for place in &places {
        for name in place.names()? {
            let Some((scheme, mark)) = mark(place, &name, path) else { continue };
            let file = place.sibling(&name);
            let is_current = file.as_ref().map(|it| it.identity) == current.as_ref().map(|it| it.identity);
            if file.is_some() && is_current {
                continue;
            }
            if !groups.iter().any(|group| group.scheme == scheme) {
                let scheme = scheme.clone();
                groups.push(Group { scheme, files: Vec::new(), hidden: Vec::new(), has_twins: false });
            }
            let group = groups.iter_mut().find(|group| group.scheme == scheme);
            match (group, file) {
                (Some(group), Some(file)) => group.files.push((mark, file)),
                (Some(group), None) => group.hidden.push(mark),
                (None, _) => {}
            }
        }
    }
    for group in &mut groups {
        misses_some |= group.leave_out_others(&places, current.as_ref());
        group.order()?;
        // A backup of the log beside it.
        if let Some(current) = &current {
            let copies = group.files.iter().map(|(_, file)| is_copy(file, current));
            let mut copies = copies.collect::<io::Result<Vec<_>>>()?.into_iter();
            group.files.retain(|_| copies.next() != Some(true));
        }
    }
    let (mut groups, hidden) = groups.into_iter().partition::<Vec<_>, _>(|group| !group.files.is_empty());
    misses_some |= hidden.iter().any(|group| !group.hidden.is_empty());
    let youngest = |group: &Group| group.files.iter().map(|(_, file)| written(file)).max();
    let main =
        (0..groups.len()).max_by_key(|at| groups.get(*at).map(|group| (group.files.len(), youngest(group))));
    let Some(main) = main.map(|main| groups.swap_remove(main)) else {
        return Ok(Younger { current, misses_last: misses_some, ..Younger::default() });
    };
    let mut younger = main.younger(current);
    if misses_some || has_others(&younger, &groups)? {
        let first = younger.files.first_mut().map(|next| &mut next.misses_some);
        *first.unwrap_or(&mut younger.misses_last) = true;
    }
    Ok(younger)
}

/// The places with generations of the log, and whether others may have some.
fn own_places(places: &[Arc<Place>]) -> io::Result<(Vec<Arc<Place>>, bool)> {
    let Some(path) = places.first() else { return Ok((Vec::new(), false)) };
    let has_generations = |place: &Arc<Place>| -> io::Result<bool> {
        Ok(place.names()?.iter().any(|name| mark(place, name, path).is_some()))
    };
    let (loose, mut own) = places.iter().cloned().partition::<Vec<_>, _>(|place| place.is_loose());
    for archive in own.iter().filter(|place| place.is_archive() && !place.is_beside(path)) {
        if has_generations(archive)? {
            return Ok((own, false));
        }
    }
    let mut found = Vec::new();
    for place in loose {
        if has_generations(&place)? && !place.is_of_another(path) {
            found.push(place);
        }
    }
    let is_doubtful = found.len() > 1;
    own.extend(found.into_iter().filter(|_| !is_doubtful));
    Ok((own, is_doubtful))
}

/// How a rotation of the log of a place names a file, compressed or not, and the mark in that name.
fn mark(place: &Arc<Place>, name: &str, path: &Arc<Place>) -> Option<(Option<Scheme>, Mark)> {
    let is_refused = place.is_archive() && !place.is_named(name);
    let name = without_compression(name).unwrap_or(name);
    if is_refused || name == place.name {
        return None;
    }
    let scheme = if is_rotation(&place.name, name) {
        let Some((scheme, mark)) = Scheme::of_rotation(&place.name, name) else {
            return Some((None, Mark::Number(0)));
        };
        return Some((Some(scheme), mark));
    } else {
        Scheme::of_likely_rotation(&place.name, name)
    };
    if let Some(scheme) = scheme {
        return scheme.mark(name).map(|mark| (Some(scheme), mark));
    }
    // Each file has its own name, and a link leads to the last.
    let is_of_link = !Arc::ptr_eq(place, path) && !place.is_archive();
    let (scheme, mark) = is_of_link.then(|| Scheme::shared(name, &place.name)).flatten()?;
    let last = scheme.mark(&place.name)?;
    (mark < last).then_some((Some(scheme), mark))
}

/// Whether other files may be generations, and are not copies of those that are known.
fn has_others(known: &Younger, others: &[Group]) -> io::Result<bool> {
    for (_, other) in others.iter().flat_map(|group| &group.files) {
        if other.metadata.len() == 0 {
            continue;
        }
        let mut is_known = false;
        for file in known.files.iter().map(|next| &next.file).chain(&known.current) {
            is_known |= file.identity == other.identity || is_copy(other, file)?;
        }
        if !is_known {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Group {
    /// Leaves out the files that may be other logs: their names are none that only a rotation gives, and nothing shows that
    /// they were renamed. True if there are any.
    fn leave_out_others(&mut self, places: &[Arc<Place>], current: Option<&Sibling>) -> bool {
        let Some(scheme) = self.scheme.as_ref().filter(|scheme| scheme.kind() == Kind::Number) else {
            return false;
        };
        // A link leads to the last one: they are created under their numbers.
        let is_last = |place: &Arc<Place>| !place.is_archive() && scheme.mark(&place.name).is_some();
        if places.iter().any(is_last) {
            return false;
        }
        let count = self.files.len();
        let others = self.files.iter().map(|(_, file)| may_be_others(file, &self.files, current));
        let mut others = others.collect::<Vec<_>>().into_iter();
        self.files.retain(|_| others.next() != Some(true));
        self.files.len() < count
    }

    /// By marks, each generation once: one that is being compressed is there twice, and is whole as it was before.
    fn order(&mut self) -> io::Result<()> {
        let is_compressed = |file: &Sibling| without_compression(&file.name).is_some();
        self.files.sort_by(|(mark, file), (other_mark, other)| {
            let by_age = || written(file).cmp(&written(other));
            let is_later = is_compressed(file).cmp(&is_compressed(other));
            let is_begun = is_unwritten(file).cmp(&is_unwritten(other));
            mark.cmp(other_mark).then(is_later).then(is_begun).then_with(by_age)
        });
        let mut files = Vec::<(Mark, Sibling)>::new();
        for (mark, file) in std::mem::take(&mut self.files) {
            let twins = files.iter().rev().take_while(|(other, _)| *other == mark);
            let mut is_known = false;
            for (_, twin) in twins {
                is_known |= is_same_generation(twin, &file)?;
            }
            if !is_known {
                files.push((mark, file));
            }
        }
        self.has_twins = files.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other));
        self.hidden.retain(|hidden| !files.iter().any(|(mark, _)| mark == hidden));
        self.files = files;
        Ok(())
    }

    /// The oldest first.
    fn younger(self, current: Option<Sibling>) -> Younger {
        let Self { scheme, files, hidden, has_twins } = self;
        if has_twins {
            return by_time(files, &hidden, current);
        }
        if scheme.is_some_and(|scheme| scheme.kind() == Kind::Date) {
            return by_date(files, &hidden, current);
        }
        let number = |mark: &Mark| if let Mark::Number(number) = mark { Some(*number) } else { None };
        let hidden = hidden.iter().filter_map(number).collect::<Vec<_>>();
        let numbered = |own| Numbered {
            files: &files,
            own,
            current: current.as_ref(),
            older: &[],
            hidden: hidden.clone(),
        };
        let highest = files.len().saturating_sub(1);
        let own = if numbered(highest).is_upward() { 0 } else { highest };
        let (mut younger, misses_last) = numbered(own).younger();
        let mut all = Vec::new();
        if let Some((_, first)) = files.get(own) {
            all.push(Next { file: first.clone(), misses_some: false });
        }
        all.append(&mut younger);
        Younger { files: all, current, misses_last, is_backup: false }
    }
}

/// Whether a compressor has created a file, and not yet written how it is compressed.
fn is_unwritten(file: &Sibling) -> bool {
    let bytes = file.metadata.len();
    MAGICS.iter().any(|(ending, magic)| bytes < *magic && file.name.ends_with(ending))
}

/// Whether a file has the content of one that has the same mark, all of it or as far as it was compressed until now.
fn is_same_generation(one: &Sibling, other: &Sibling) -> io::Result<bool> {
    if one.identity == other.identity || is_unwritten(one) || is_unwritten(other) {
        return Ok(true);
    }
    let open = |sibling: &Sibling| sibling.place.open(&sibling.name).map(Arc::new);
    // One that is gone was replaced by the other.
    let (Ok(first), Ok(second)) = (open(one), open(other)) else { return Ok(true) };
    match (Format::of(&first)?, Format::of(&second)?) {
        (None, None) => return Ok(false),
        (Some(Format::Other(_)), _) | (_, Some(Format::Other(_))) => {
            // Their content cannot be compared. A file that is made of another one is no older than that.
            let seconds = |sibling| written(sibling) / 1_000_000_000;
            return Ok(seconds(other) >= seconds(one));
        }
        (Some(_), _) | (_, Some(_)) => {}
    }
    let (first, second) = (head(&first, COMPARED_BYTES)?, head(&second, COMPARED_BYTES)?);
    Ok(first.starts_with(&second) || second.starts_with(&first))
}

/// The times of the last writes are the order, and of two with the same time their marks.
fn by_time(mut files: Vec<(Mark, Sibling)>, hidden: &[Mark], current: Option<Sibling>) -> Younger {
    files.sort_by_cached_key(|(mark, file)| {
        let number = if let Mark::Number(number) = mark { Some(Reverse(*number)) } else { None };
        (written(file), number, mark.clone())
    });
    let all = files.into_iter().map(|(_, file)| Next { file, misses_some: false });
    Younger { files: all.collect(), current, misses_last: !hidden.is_empty(), is_backup: false }
}

/// Dates are the order.
fn by_date(files: Vec<(Mark, Sibling)>, hidden: &[Mark], current: Option<Sibling>) -> Younger {
    let (mut all, mut last) = (Vec::<Next>::new(), None);
    for (mark, file) in files {
        let is_hidden = |hidden: &Mark| last.as_ref().is_some_and(|last| hidden > last) && *hidden < mark;
        let misses_some = hidden.iter().any(is_hidden);
        all.push(Next { file, misses_some });
        last = Some(mark);
    }
    let misses_last = hidden.iter().any(|hidden| last.as_ref().is_some_and(|last| hidden > last));
    Younger { files: all, current, misses_last, is_backup: false }
}
