//! Input of others, at each part that reads it: nothing panics, takes memory without a bound, or is taken for what it is not.
//!
//! Each test runs a fuzz target over the corpus in `tests/fuzz/corpus`, and then over changes of it, for a second, or for
//! `PERENNIAL_FUZZ_SECONDS`. Which changes follows from `PERENNIAL_FUZZ_SEED`, or else from the date (20261203): another day
//! tries other inputs, and the seed is printed. An input that fails is reduced and written to a file, whose path is in the
//! error: add it to the corpus with the fix.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod changes;
mod make;
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use changes::{Made, made};
use peak_alloc::PeakAlloc;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use targets::Target;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// How long a target runs after its corpus, if nothing else is said.
const USUAL: Duration = Duration::from_secs(1);

/// How long the reduction of an input that fails may take.
const REDUCTION: Duration = Duration::from_secs(60);

/// One target runs at a time, because the memory is that of the process.
static ONE: Mutex<()> = Mutex::new(());

/// Panics of all threads: those of the pool and of the log do not reach the test.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no input", directory.display());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// That of the environment, or else the date in UTC.
fn seed() -> u64 {
    let today = || jiff::Timestamp::now().strftime("%Y%m%d").to_string().parse().unwrap();
    setting("PERENNIAL_FUZZ_SEED").unwrap_or_else(today)
}

/// Runs a target on an input.
fn run(target: &Target, bytes: &[u8]) -> Result<(), String> {
    let panics = PANICS.load(Ordering::SeqCst);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    if done.is_err() || PANICS.load(Ordering::SeqCst) != panics {
        return Err("it panicked: see above".into());
    }
    if taken > target.most_memory {
        return Err(format!("it took {taken} bytes of memory: at most {}", target.most_memory));
    }
    Ok(())
}

/// Writes an input that fails to a file, and fails.
fn report(target: &Target, bytes: &[u8], fault: &str) -> ! {
    let name = format!("fuzz-{}-{:08x}", target.name, crc32c::crc32c(bytes));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).unwrap();
    panic!(
        "{fault} (PERENNIAL_FUZZ_SEED={})\nThe input is in {}: add it to tests/fuzz/corpus/{}\n{}",
        seed(),
        path.display(),
        target.name,
        bytes.escape_ascii()
    );
}

/// The simplest input that fails, as far as it is found in time.
fn reduce(
    target: &Target,
    mut tree: impl ValueTree<Value = Made>,
    bytes: impl Fn(&Made) -> Vec<u8>,
    mut fault: String,
) -> (Vec<u8>, String) {
    let (mut worst, end) = (bytes(&tree.current()), Instant::now() + REDUCTION);
    let mut can_be_simpler = tree.simplify();
    while can_be_simpler && Instant::now() < end {
        let simpler = bytes(&tree.current());
        can_be_simpler = match run(target, &simpler) {
            Err(other) => {
                (worst, fault) = (simpler, other);
                tree.simplify()
            }
            Ok(()) => tree.complicate(),
        };
    }
    (worst, fault)
}

fn fuzz(target: &Target) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            print(panic);
        }));
    });
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = corpus(target.name);
    // What is made once is not of an input.
    (target.run)(&corpus[0].1);
    for (path, bytes) in &corpus {
        if let Err(fault) = run(target, bytes) {
            report(target, bytes, &format!("{}: {fault}", path.display()));
        }
    }
    let corpus = corpus.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    let (number, mut seed) = (seed(), [0; 32]);
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let inputs = made();
    let limit = setting("PERENNIAL_FUZZ_SECONDS").map_or(USUAL, Duration::from_secs);
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < limit {
        let tree = inputs.new_tree(&mut runner).unwrap();
        let bytes = |made: &Made| made.bytes(&corpus, target.words);
        if let Err(fault) = run(target, &bytes(&tree.current())) {
            let (worst, fault) = reduce(target, tree, bytes, fault);
            report(target, &worst, &fault);
        }
        count += 1;
    }
    println!(
        "{}: {} inputs of the corpus, and {count} changes of them by the seed {number}",
        target.name,
        corpus.len()
    );
    assert!(count > 0);
}

#[test]
fn a_request_of_any_bytes_gets_a_status() {
    fuzz(&targets::REQUEST);
}

#[test]
fn a_cursor_of_any_bytes_is_a_position_or_refused() {
    fuzz(&targets::CURSOR);
}

#[test]
fn no_path_leads_out_of_a_root_and_no_glob_is_wrong_about_one() {
    fuzz(&targets::PATH);
}

#[test]
fn patterns_of_any_bytes_are_refused_or_divide_the_lines_of_a_file() {
    fuzz(&targets::FILTER);
}

#[test]
fn a_rotated_file_of_any_bytes_is_read_or_a_gap() {
    fuzz(&targets::COMPRESSED);
}

#[test]
fn no_other_text_is_taken_for_a_token() {
    fuzz(&targets::TOKEN);
}

#[test]
fn no_other_text_is_taken_for_a_jwt() {
    fuzz(&targets::JWT);
}

#[test]
fn rules_of_any_bytes_are_read_or_refused_and_allow_nothing_more() {
    fuzz(&targets::RULES);
}

#[test]
fn a_configuration_of_any_bytes_is_read_and_printed_or_refused() {
    fuzz(&targets::CONFIGURATION);
}

#[test]
fn a_log_of_any_bytes_is_opened_or_refused_and_serves_nothing_wrong() {
    fuzz(&targets::LOG);
}

#[test]
fn text_of_any_bytes_does_not_control_a_terminal() {
    fuzz(&targets::TERMINAL);
}
