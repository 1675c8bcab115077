//! Stories of two logs whose names extend each other: what happens to them is made up, and made smaller when a story fails.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use stage::play;
use story::{Manner, Story, stories};

mod disk;
mod found;
mod pool;
mod stage;
mod story;

/// How many stories of each manner an ordinary run plays.
const CASES: u64 = 60;

/// How many stories of each manner a long run plays.
const MANY_CASES: u64 = 1000;

/// How many stories are played at once: they wait most of the time.
const AT_ONCE: usize = 8;

/// How often a story that fails is tried with less, and for how many milliseconds at most.
const SHRINKS: (u32, u32) = (80, 60_000);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Plays the story of a seed, and smaller ones if it fails.
fn play_seed(manner: Manner, seed: u64) -> Result<(), String> {
    let (max_shrink_iters, max_shrink_time) = SHRINKS;
    let config = Config {
        cases: 1,
        max_shrink_iters,
        max_shrink_time,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let without = std::env::var("LINES_WITHOUT").unwrap_or_default();
    let fails = |mut story: Story| {
        let is_left_out = |it: &str| without.split(',').any(|name| !name.is_empty() && it.starts_with(name));
        story.happens.retain(|(_, happens)| !is_left_out(&format!("{happens:?}")));
        if is_left_out(story.names.1) {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let played = runtime.block_on(play(&story));
        // Searches on blocking threads end by themselves.
        runtime.shutdown_background();
        played.map_err(TestCaseError::fail)
    };
    match runner.run(&stories(manner), fails) {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, story)) => {
            Err(format!("LINES_SEED={seed} {manner:?}\n{story:?}\n{reason}"))
        }
        Err(error) => Err(format!("LINES_SEED={seed} {manner:?}: {error}")),
    }
}

/// Plays many stories.
fn play_all(manner: Manner, cases: u64) {
    let cases = number("LINES_CASES").unwrap_or(cases);
    let range = number("LINES_SEED").map_or(0..cases, |seed| seed..seed + 1);
    let next = AtomicU64::new(range.start);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= range.end || !failed.is_empty() {
                return failed;
            }
            failed.extend(play_seed(manner, seed).err());
        }
    };
    let failed = thread::scope(|scope| {
        let workers = (0..AT_ONCE).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{} stories failed:\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn logs_that_are_rotated_by_their_names_lose_nothing_at_all() {
    play_all(Manner::Gentle, CASES);
}

#[test]
fn logs_that_are_handled_in_any_way_lose_nothing_in_silence() {
    play_all(Manner::Rough, CASES);
}

#[test]
fn logs_behind_a_link_lose_nothing_in_silence() {
    play_all(Manner::Linked, CASES);
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_stories_lose_nothing_in_silence() {
    for manner in [Manner::Gentle, Manner::Rough, Manner::Linked] {
        play_all(manner, MANY_CASES);
    }
}
