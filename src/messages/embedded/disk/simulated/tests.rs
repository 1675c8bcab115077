//! What the simulated disk promises: the tests of the log rely on it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeSet, io::ErrorKind};

use proptest::prelude::*;

use super::*;

/// As many as show each kind of loss.
const SEEDS: std::ops::Range<u64> = 0..400;

fn path(name: &str) -> PathBuf {
    Path::new("/log").join(name)
}

/// A disk with a directory that is on it.
fn disk() -> Arc<Simulation> {
    let disk = Simulation::new();
    disk.create_directory(Path::new("/log")).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    disk
}

/// A file whose name is on the disk.
fn file(disk: &Simulation, name: &str) -> Handle {
    let file = disk.create(&path(name)).unwrap();
    disk.sync_directory(Path::new("/log")).unwrap();
    file
}

fn names(disk: &Simulation) -> Vec<String> {
    let paths = disk.list(Path::new("/log")).unwrap();
    let mut names =
        paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>();
    names.sort();
    names
}

/// What a file is after each of many power cuts.
fn after_cuts(disk: &Simulation, name: &str) -> BTreeSet<Vec<u8>> {
    SEEDS.map(|seed| disk.lose_power(seed).read_file(&path(name))).collect()
}

#[test]
fn synced_bytes_survive() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 3000], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(after_cuts(&disk, "a"), BTreeSet::from([vec![1; 3000]]));
}

#[test]
fn any_unsynced_sectors_survive_and_the_length_covers_them() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 512 * 3], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 512 * 4], 512).unwrap();
    let mut kinds = BTreeSet::new();
    for seed in SEEDS {
        let left = disk.lose_power(seed).read_file(&path("a"));
        assert!(left.len() >= 512 * 3 && left[..512] == [1; 512], "seed {seed}");
        let sectors = left.chunks(512).map(|sector| match sector {
            whole if whole.iter().all(|byte| *byte == whole[0]) => whole[0],
            _ => 9,
        });
        kinds.insert(sectors.collect::<Vec<_>>());
    }
    let [nothing, everything, first, last, hole, begun, length] = [
        &[1, 1, 1][..],
        &[1, 2, 2, 2, 2],
        &[1, 2, 1],
        &[1, 1, 2],
        &[1, 1, 1, 0, 2],
        &[1, 2, 2, 2],
        &[1, 1, 1, 0],
    ];
    for kind in [nothing, everything, first, last, hole, begun, length] {
        assert!(kinds.contains(kind), "{kind:?} in {kinds:?}");
    }
    assert!(kinds.iter().any(|kind| kind.contains(&9)), "no sector is torn: {kinds:?}");
}

#[test]
fn a_torn_sector_is_torn_only_in_bytes_that_were_changing() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 300], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 100], 300).unwrap();
    let left = after_cuts(&disk, "a");
    assert!(left.iter().all(|left| left[..300] == [1; 300]));
    let is_garbage = |left: &Vec<u8>| left[300..].iter().any(|byte| ![0, 2].contains(byte));
    let is_half = |left: &Vec<u8>| left.len() == 400 && !is_garbage(left) && left[300] == 2 && left[399] == 0;
    assert!(left.iter().any(is_garbage) && left.iter().any(is_half));
    file.write_all_at(&[1; 300], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[1; 300], 0).unwrap();
    assert_eq!(after_cuts(&disk, "a").len(), 1, "the same bytes written again change nothing");
}

#[test]
fn a_sector_written_twice_has_one_of_its_states() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 100], 0).unwrap();
    file.write_all_at(&[3; 100], 100).unwrap();
    let ends = after_cuts(&disk, "a").into_iter().map(|left| (left[0], left[199])).collect::<BTreeSet<_>>();
    assert!(ends.is_superset(&BTreeSet::from([(1, 1), (2, 1), (2, 3)])));
    assert!(!ends.contains(&(1, 3)), "the second write without the first");
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next_one_but_by_writing_again() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    disk.fail_at(disk.calls(), Fault::Sync);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(IO));
    file.write_all_at(&[3; 512], 512).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read_file(&path("a")), [[2; 512], [3; 512]].concat());
    let left = after_cuts(&disk, "a");
    assert!(left.contains(&[[1; 512], [3; 512]].concat()), "it may be lost");
    assert!(left.contains(&[[2; 512], [3; 512]].concat()), "it may be on the disk");
    assert!(left.iter().all(|left| left[512..] == [3; 512]));
    let killed = disk.kill();
    assert_eq!(killed.read_file(&path("a")), [[2; 512], [3; 512]].concat(), "the next process sees it too");
    let file = killed.open(&path("a")).unwrap();
    file.sync().unwrap();
    assert!(after_cuts(&killed, "a").len() > 1, "a sync of the next process is no help");
    file.write_all_at(&[2; 512], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(after_cuts(&killed, "a"), BTreeSet::from([[[2; 512], [3; 512]].concat()]));
}

#[test]
fn an_unsynced_length_survives_or_not_and_truncated_bytes_do_not_return() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 1000], 0).unwrap();
    file.sync().unwrap();
    file.set_len(600).unwrap();
    file.set_len(2000).unwrap();
    let whole = [vec![1; 600], vec![0; 1400]].concat();
    assert_eq!(disk.read_file(&path("a")), whole);
    let expected = BTreeSet::from([vec![1; 1000], vec![1; 600], whole.clone()]);
    assert_eq!(after_cuts(&disk, "a"), expected);
    file.sync().unwrap();
    assert_eq!(after_cuts(&disk, "a"), BTreeSet::from([whole]));
}

#[test]
fn a_file_that_grew_may_have_its_length_without_its_bytes_and_its_bytes_without_its_length() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 100], 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 100], 0).unwrap();
    file.set_len(400).unwrap();
    let left = after_cuts(&disk, "a");
    assert!(left.contains(&[vec![1; 100], vec![0; 300]].concat()));
    assert!(left.contains(&vec![2; 100]));
}

#[test]
fn names_stay_in_the_order_in_which_they_changed() {
    let disk = disk();
    drop((file(&disk, "a"), file(&disk, "b"), file(&disk, "c")));
    disk.rename(&path("a"), &path("d")).unwrap();
    disk.create(&path("e")).unwrap();
    disk.rename(&path("e"), &path("b")).unwrap();
    disk.remove(&path("c")).unwrap();
    let states =
        [&["a", "b", "c"][..], &["b", "c", "d"], &["b", "c", "d", "e"], &["b", "c", "d"], &["b", "d"]];
    let states = states.map(|state| state.iter().map(ToString::to_string).collect::<Vec<_>>());
    let seen = SEEDS.map(|seed| names(&disk.lose_power(seed))).collect::<BTreeSet<_>>();
    assert_eq!(seen, BTreeSet::from(states.clone()));
    disk.sync_directory(Path::new("/log")).unwrap();
    assert!(SEEDS.map(|seed| names(&disk.lose_power(seed))).all(|names| names == states[4]));
}

#[test]
fn a_name_may_stay_without_its_bytes_and_bytes_do_not_stay_without_a_name() {
    let disk = disk();
    disk.write_file(&path("a"), b"old");
    let file = disk.create(&path("new")).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    disk.rename(&path("new"), &path("a")).unwrap();
    disk.sync_directory(Path::new("/log")).unwrap();
    let left = after_cuts(&disk, "a");
    assert!(left.contains(&vec![]) && left.contains(b"new".as_slice()) && !left.contains(b"old".as_slice()));
    let file = disk.create(&path("b")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    file.sync().unwrap();
    assert!(SEEDS.map(|seed| disk.lose_power(seed)).any(|left| left.open(&path("b")).is_err()));
}

#[test]
fn a_directory_is_lost_with_its_files_until_its_parent_is_synced() {
    let disk = disk();
    let inner = path("inner");
    disk.create_directory(&inner).unwrap();
    let file = disk.create(&inner.join("a")).unwrap();
    file.sync().unwrap();
    let is_lost =
        |disk: &Simulation| SEEDS.map(|seed| disk.lose_power(seed)).any(|left| left.list(&inner).is_err());
    assert!(is_lost(&disk));
    disk.sync_directory(&inner).unwrap();
    assert!(is_lost(&disk), "a sync of the directory itself is not enough");
    disk.sync_directory(Path::new("/log")).unwrap();
    assert!(!is_lost(&disk));
    disk.rename(&inner.join("a"), &path("a")).unwrap();
    for seed in SEEDS {
        let left = disk.lose_power(seed);
        let places = [left.open(&path("a")).is_ok(), left.open(&inner.join("a")).is_ok()];
        assert!(
            places[0] != places[1],
            "seed {seed}: a rename between directories is one change: {places:?}"
        );
    }
}

#[test]
fn a_rename_into_a_synced_directory_brings_the_changes_before_it() {
    let disk = disk();
    let inner = path("inner");
    disk.create_directory(&inner).unwrap();
    disk.create(&path("a")).unwrap();
    disk.create(&path("b")).unwrap();
    disk.rename(&path("a"), &inner.join("c")).unwrap();
    disk.create(&path("d")).unwrap();
    disk.sync_directory(&inner).unwrap();
    for seed in SEEDS {
        let left = disk.lose_power(seed);
        assert_eq!(left.list(&inner).unwrap(), [inner.join("c")]);
        let names = names(&left).into_iter().filter(|name| name != "d").collect::<Vec<_>>();
        assert_eq!(names, ["b", "inner"], "seed {seed}");
    }
    assert!(SEEDS.map(|seed| disk.lose_power(seed)).any(|left| left.open(&path("d")).is_err()));
}

#[test]
fn an_open_file_outlives_its_name_and_holds_its_room() {
    let disk = disk();
    let file = file(&disk, "a");
    file.write_all_at(&[1; 1024], 0).unwrap();
    disk.remove(&path("a")).unwrap();
    assert_eq!(disk.open(&path("a")).unwrap_err().kind(), ErrorKind::NotFound);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 1020).unwrap();
    assert_eq!(bytes, [1; 4]);
    assert_eq!(file.read_exact_at(&mut bytes, 1021).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(disk.used(), 1024);
    drop(file);
    assert_eq!(disk.used(), 0);
}

#[test]
fn a_killed_process_leaves_everything_and_the_power_is_still_to_fear() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    file.write_all_at(b"seen", 0).unwrap();
    let killed = disk.kill();
    file.write_all_at(b"late", 0).unwrap();
    assert_eq!(killed.read_file(&path("a")), b"seen", "the dead write no more");
    assert!(SEEDS.map(|seed| killed.lose_power(seed)).any(|left| names(&left).is_empty()));
}

#[test]
fn a_fault_comes_at_its_call_and_once() {
    let disk = disk();
    let file = file(&disk, "a");
    let first = disk.calls();
    disk.fail_at(first, Fault::Full);
    disk.fail_at(first + 1, Fault::Error);
    disk.fail_at(first + 2, Fault::Sync);
    disk.fail_at(first + 4, Fault::Full);
    disk.fail_at(first + 5, Fault::Error);
    assert_eq!(file.write_all_at(&[1; 100], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len(), 50, "half of it is written");
    assert_eq!(file.write_all_at(&[2; 100], 50).unwrap_err().raw_os_error(), Some(IO));
    assert!(file.len() < 150);
    file.set_len(10).unwrap();
    file.sync().unwrap_err();
    assert_eq!(file.allocate(0..1000).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.rename(&path("a"), &path("b")).unwrap_err();
    assert_eq!((file.len(), names(&disk)), (10, vec!["a".to_owned()]));
    assert_eq!(disk.calls(), first + 6);
    file.write_all_at(&[3; 10], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(after_cuts(&disk, "a"), BTreeSet::from([vec![3; 10]]));
}

#[test]
fn nothing_reaches_a_disk_that_is_off_and_the_last_call_is_half_done() {
    let disk = disk();
    let file = file(&disk, "a");
    disk.fail_at(disk.calls(), Fault::Power);
    file.write_all_at(&[1; 512 * 8], 0).unwrap_err();
    file.write_all_at(&[2; 512 * 8], 0).unwrap_err();
    file.sync().unwrap_err();
    disk.create(&path("b")).unwrap_err();
    disk.sync_directory(Path::new("/log")).unwrap_err();
    let left = after_cuts(&disk, "a");
    assert!(left.contains(&vec![]) && left.contains(&vec![1; 512 * 8]) && left.len() > 10);
    let on = disk.lose_power(0);
    on.create(&path("b")).unwrap().sync().unwrap();
    assert_eq!(names(&on), ["a", "b"]);
}

#[test]
fn a_disk_is_full_until_there_is_room() {
    let disk = disk();
    let (a, b) = (file(&disk, "a"), file(&disk, "b"));
    disk.set_capacity(Some(4096));
    a.allocate(0..2048).unwrap();
    assert_eq!((disk.used(), a.len()), (2048, 2048));
    assert_eq!(a.allocate(0..5000).unwrap_err().kind(), ErrorKind::StorageFull);
    b.set_len(1 << 40).unwrap();
    assert_eq!(disk.used(), 2048, "zeros that were never written take no room");
    assert_eq!(b.write_all_at(&[1; 3000], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.used(), 4096);
    a.write_all_at(&[1; 2048], 0).unwrap();
    b.write_all_at(&[2; 2048], 0).unwrap();
    b.write_all_at(&[2; 1], 2048).unwrap_err();
    disk.remove(&path("a")).unwrap();
    b.write_all_at(&[2; 1], 2048).unwrap_err();
    drop(a);
    b.write_all_at(&[2; 1], 2048).unwrap();
    b.set_len(100).unwrap();
    assert_eq!(disk.used(), 512);
    disk.set_capacity(None);
    b.write_all_at(&[3; 9000], 0).unwrap();
}

#[test]
fn rot_is_permanent() {
    let disk = disk();
    disk.write_file(&path("a"), &[0; 1000]);
    disk.flip(&path("a"), 700, 0x81);
    let mut expected = vec![0; 1000];
    expected[700] = 0x81;
    assert_eq!(disk.read_file(&path("a")), expected);
    assert_eq!(after_cuts(&disk, "a"), BTreeSet::from([expected]));
}

#[test]
fn a_file_that_is_emptied_is_empty_or_as_it_was() {
    let disk = disk();
    disk.write_file(&path("a"), b"old");
    disk.create(&path("a")).unwrap();
    assert_eq!(disk.read_file(&path("a")), b"");
    assert_eq!(after_cuts(&disk, "a"), BTreeSet::from([b"old".to_vec(), vec![]]));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize),
    SetLen(u64),
    Allocate(u64),
    Sync,
    FailedSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3000_u64, 1..1500_usize).prop_map(|(offset, length)| Step::Write(offset, length)),
        3 => (0..4000_u64).prop_map(Step::SetLen),
        1 => (0..4000_u64).prop_map(Step::Allocate),
        3 => Just(Step::Sync),
        1 => Just(Step::FailedSync),
    ]
}

/// Of bytes that end somewhere, a sector, as if zeros followed.
fn sector(bytes: &[u8], index: usize) -> Vec<u8> {
    let mut sector = bytes.iter().skip(index * 512).take(512).copied().collect::<Vec<_>>();
    sector.resize(512, 0);
    sector
}

#[test]
fn an_act_before_a_call_runs_once_and_may_use_the_disk() {
    let disk = disk();
    let file = file(&disk, "a");
    let of_deed = disk.clone();
    disk.before(disk.calls() + 1, move || {
        assert_eq!(of_deed.read_file(&path("a")), [1], "the call before it is done");
        of_deed.write_file(&path("b"), &[]);
    });
    file.write_all_at(&[1], 0).unwrap();
    file.write_all_at(&[2], 1).unwrap();
    assert_eq!(names(&disk), ["a", "b"]);
    disk.remove(&path("b")).unwrap();
    file.sync().unwrap();
    assert_eq!((names(&disk), disk.read_file(&path("a"))), (vec!["a".into()], vec![1, 2]));
}

proptest! {
    #[test]
    fn each_sector_has_one_of_its_states_since_the_last_good_sync(
        steps in prop::collection::vec(step(), 0..30),
        seeds in prop::collection::vec(any::<u64>(), 16),
    ) {
        let disk = disk();
        let file = file(&disk, "a");
        let mut model = Vec::new();
        let (mut history, mut is_sound) = (vec![model.clone()], true);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(offset, length) => {
                    let at = usize::try_from(offset).unwrap();
                    let byte = u8::try_from(n + 1).unwrap();
                    file.write_all_at(&vec![byte; length], offset).unwrap();
                    model.resize(model.len().max(at + length), 0);
                    model[at..at + length].fill(byte);
                }
                Step::SetLen(length) => {
                    file.set_len(length).unwrap();
                    model.resize(usize::try_from(length).unwrap(), 0);
                }
                Step::Allocate(length) => {
                    file.allocate(0..length).unwrap();
                    model.resize(model.len().max(usize::try_from(length).unwrap()), 0);
                }
                Step::Sync => {
                    file.sync().unwrap();
                    if is_sound {
                        history.clear();
                    }
                }
                Step::FailedSync => {
                    disk.fail_at(disk.calls(), Fault::Error);
                    file.sync().unwrap_err();
                    is_sound = false;
                }
            }
            prop_assert_eq!(disk.read_file(&path("a")), model.clone());
            history.push(model.clone());
        }
        let lengths = history.iter().map(Vec::len);
        let (shortest, longest) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
        for seed in seeds {
            let after = disk.lose_power(seed);
            let left = after.read_file(&path("a"));
            prop_assert!((shortest..=longest).contains(&left.len()));
            prop_assert_eq!(&after.lose_power(seed).read_file(&path("a")), &left);
            prop_assert_eq!(&disk.lose_power(seed).read_file(&path("a")), &left);
            for index in 0..left.len().div_ceil(512) {
                let sector_of = |bytes: &Vec<u8>| sector(bytes, index);
                let is_known = history.iter().map(sector_of).any(|known| known == sector_of(&left));
                prop_assert!(is_known || Loss::new(seed, 0..=0).tears, "seed {seed}, sector {index}");
            }
        }
    }

    #[test]
    fn names_have_one_of_their_states_since_the_last_sync(
        steps in prop::collection::vec((0..4_u8, 0..4_u8, 0..4_u8), 0..30),
        seeds in prop::collection::vec(any::<u64>(), 16),
    ) {
        let disk = disk();
        let mut history = vec![names(&disk)];
        for (kind, from, to) in steps {
            let (from, to) = (path(&from.to_string()), path(&to.to_string()));
            // Some find no such file, and change nothing.
            match kind {
                0 => drop(disk.create(&from).unwrap()),
                1 => drop(disk.rename(&from, &to)),
                2 => drop(disk.remove(&from)),
                _ => {
                    disk.sync_directory(Path::new("/log")).unwrap();
                    history.clear();
                }
            }
            history.push(names(&disk));
        }
        for seed in seeds {
            let left = names(&disk.lose_power(seed));
            prop_assert!(history.contains(&left), "{left:?} of {history:?}");
        }
    }
}
