//! Every transition of a reader's state by its name, and that no state has one that is not its own.

use std::time::Duration;

use super::*;
use crate::lines::{
    history::{generation::Generation, rotation::Rotation},
    reader::{Tail, late::Before},
};

const DRAINED: Leaving = Leaving { drained: Drained::Yes, foreign_from: None, waits_since: None };

fn paused(state: State) -> Paused {
    Paused {
        rotation: Rotation::nothing(Generation::none(1), Identity::default()),
        checkpoint: Checkpoint::start(),
        state,
        tail: Tail::new(Duration::ZERO),
        before: Before::now(false),
    }
}

fn late() -> State {
    State::visit_late_lines(paused(State::AtPath))
}

/// The name of a state, as in the diagram.
fn name(state: &State) -> &'static str {
    match state {
        State::AtPath => "AtPath",
        State::Draining(_) => "Draining",
        State::Absent { .. } => "Absent",
        State::LateLines { .. } => "LateLines",
    }
}

/// One of each state, which left its path, if it did, at `left`.
fn each(left: Instant) -> [State; 4] {
    [State::AtPath, State::Draining(Leaving::default()), State::absent(Some(left)), late()]
}

fn later(instant: Instant) -> Instant {
    instant + Duration::from_secs(1)
}

#[test]
fn at_path_to_draining_when_the_file_is_renamed() {
    let names = each(Instant::now()).map(|mut state| {
        state.notice_renamed();
        name(&state)
    });
    assert_eq!(names, ["Draining", "Draining", "Absent", "LateLines"]);
}

#[test]
fn draining_and_absent_are_drained_by_a_last_read_that_finds_nothing() {
    for mut state in [State::Draining(Leaving::default()), State::absent(None)] {
        state.record_read(true);
        assert!(!state.is_drained(), "it was not quiet for the grace");
        state.ask_for_last_read();
        assert!(!state.is_drained());
        state.record_read(false);
        assert!(!state.is_drained(), "a late line came with the last read");
        state.record_read(true);
        assert!(!state.is_drained(), "another last read was not asked for");
        state.ask_for_last_read();
        state.record_read(true);
        assert!(state.is_drained());
        state.record_read(true);
        assert!(state.is_drained());
        state.record_read(false);
        assert!(!state.is_drained(), "a late line came after the last read");
    }
}

#[test]
fn at_path_and_late_lines_have_no_last_read() {
    for mut state in [State::AtPath, late()] {
        state.ask_for_last_read();
        state.record_read(true);
        assert!(!state.is_drained());
    }
}

#[test]
fn a_file_that_is_given_up_is_drained_unless_it_is_read_for_late_lines() {
    let drained = each(Instant::now()).map(|mut state| {
        state.give_up_file();
        (name(&state), state.is_drained())
    });
    assert_eq!(drained, [("Draining", true), ("Draining", true), ("Absent", true), ("LateLines", false)]);
}

#[test]
fn draining_to_absent_when_the_file_has_no_successor_and_it_is_reported_once() {
    let left = Instant::now();
    let mut state = State::Draining(DRAINED);
    assert!(state.report_absent(Some(left)));
    assert!(matches!(state, State::Absent { since, .. } if since == Some(left)));
    assert!(!state.is_drained(), "its writer may go on");
    assert!(!state.report_absent(Some(later(left))));
    assert!(matches!(state, State::Absent { since, .. } if since == Some(left)));
}

#[test]
fn absent_to_at_path_when_the_file_is_at_the_path_again() {
    let left = Instant::now();
    let mut state = State::absent(Some(left));
    assert!(!state.come_back(Some(left)), "it is still away");
    assert!(state.come_back(None));
    assert_eq!(name(&state), "AtPath");
    assert!(!state.come_back(None));
}

#[test]
fn absent_to_draining_when_the_file_was_at_the_path_and_left_it_again() {
    let left = Instant::now();
    let mut state = State::Absent { since: Some(left), leaving: DRAINED };
    assert!(state.come_back(Some(later(left))));
    assert!(name(&state) == "Draining" && !state.is_drained());
    assert!(state.report_absent(Some(later(left))), "this is another absence");
}

#[test]
fn draining_to_at_path_when_the_file_comes_back_before_its_absence_was_reported() {
    let mut state = State::Draining(DRAINED);
    assert!(!state.come_back(Some(Instant::now())), "it is still away");
    assert_eq!(name(&state), "Draining");
    assert!(state.come_back(None));
    assert_eq!(name(&state), "AtPath");
}

#[test]
fn at_path_and_late_lines_do_not_come_back() {
    for left in [None, Some(Instant::now())] {
        for mut state in [State::AtPath, late()] {
            let before = name(&state);
            assert!(!state.come_back(left));
            assert_eq!(name(&state), before);
        }
    }
}

#[test]
fn a_file_becomes_foreign_only_away_from_its_path_and_is_its_logs_again_when_it_comes_back() {
    for mut state in each(Instant::now()) {
        assert_eq!(state.foreign_from(), None);
        state.become_foreign(7);
        assert!(name(&state) != "AtPath" && state.foreign_from() == Some(7));
        if name(&state) == "Draining" {
            state.report_absent(None);
            assert_eq!(state.foreign_from(), Some(7), "absence does not change whose lines they are");
        }
        if state.come_back(Some(Instant::now())) || state.come_back(None) {
            assert_eq!(state.foreign_from(), None);
        }
    }
}

#[test]
fn every_state_to_late_lines_and_back() {
    let left = Instant::now();
    for state in each(left).into_iter().filter(|state| !state.is_late()) {
        let before = format!("{state:?}");
        let mut late = State::visit_late_lines(paused(state));
        assert!(late.is_late() && !late.is_absent() && !late.is_drained());
        let resume_at = late.resume_at().map(|(identity, _)| identity);
        assert_eq!(resume_at, Some(Identity::default()));
        let paused = late.return_from_late_lines();
        assert_eq!(paused.map(|paused| format!("{:?}", paused.state)), Some(before));
        assert_eq!(name(&late), "AtPath");
    }
}

#[test]
fn only_late_lines_have_something_to_return_to() {
    for mut state in each(Instant::now()).into_iter().filter(|state| !state.is_late()) {
        let before = format!("{state:?}");
        assert!(state.resume_at().is_none() && state.return_from_late_lines().is_none());
        assert_eq!(format!("{state:?}"), before);
    }
}

/// A file that is written to without end must not keep the reader from the next one.
#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_late_lines_of_other_files_for_a_time_only() {
    let limit = Duration::from_secs(5);
    let mut state = State::Draining(DRAINED);
    for _ in 0..5 {
        assert!(state.may_wait_for_late_lines(limit));
        let continued = State::visit_late_lines(paused(state)).return_from_late_lines();
        state = continued.map_or(State::AtPath, |paused| paused.state);
        assert!(matches!(state, State::Draining(_)));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!state.may_wait_for_late_lines(limit));
    // The next file has its own time.
    assert!(State::Draining(DRAINED).may_wait_for_late_lines(limit));
}
