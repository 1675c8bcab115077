//! Stories that a server once failed, as small as they can be.

use super::{
    stage::play,
    story::{Away, Happens, Manner, Naming, Replacement, Story},
};

/// Plays what happens to one log; the other one is only there.
fn holds(manner: Manner, names: (&'static str, &'static str), happens: &[Happens]) {
    let naming = if names.1 == "app.log.2" { Naming::Dates } else { Naming::Numbers };
    holds_by(naming, manner, names, happens);
}

fn holds_by(naming: Naming, manner: Manner, names: (&'static str, &'static str), happens: &[Happens]) {
    for in_memory in [false, true] {
        let happens = happens.iter().map(|happens| (false, *happens)).collect();
        let story = Story { manner, names, naming, in_memory, happens };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let played = runtime.block_on(play(&story));
        runtime.shutdown_background();
        played.unwrap_or_else(|fault| panic!("{story:?}\n{fault}"));
    }
}

const NODES: (&str, &str) = ("node1", "node10");

const ROTATE: Happens = Happens::Rotate { away: Away::Rotated, reopens: true };

const APPEND: Happens = Happens::Append { lines: 1, padding: 0 };

/// Longer than a file is drained.
const READ: Happens = Happens::Read { millis: 100 };

/// The file is renamed, and none is at the path.
const fn away(away: Away) -> Happens {
    Happens::Rotate { away, reopens: false }
}

#[test]
fn a_copy_that_was_made_before_a_rotation_is_not_read() {
    holds(Manner::Gentle, NODES, &[Happens::Cut, Happens::Copy, ROTATE]);
    holds(Manner::Gentle, NODES, &[Happens::Cut, ROTATE, APPEND, Happens::Copy]);
}

#[test]
fn lines_that_are_written_to_a_rotated_file_while_the_reader_is_away_are_not_lost() {
    let read = Happens::Read { millis: 300 };
    holds(Manner::Gentle, NODES, &[ROTATE, APPEND, read, Happens::Cut, Happens::Late { lines: 1 }]);
}

#[test]
fn a_log_with_the_name_of_a_rotation_of_another_log_is_not_read_as_its_history() {
    let long = Happens::Append { lines: 10, padding: 147 };
    holds(Manner::Gentle, ("app.log", "app.log.2"), &[long, Happens::Cut, ROTATE]);
    let rotate = Happens::Rotate { away: Away::Extension, reopens: false };
    holds(Manner::Rough, ("app.log", "app.log.2"), &[rotate, Happens::Cut, APPEND]);
}

#[test]
fn a_file_that_came_back_and_was_renamed_to_another_name_is_found_by_a_reader_that_was_away() {
    let gone = Happens::Rotate { away: Away::Rotated, reopens: false };
    let marked = Happens::Rotate { away: Away::Marked, reopens: false };
    let more = Happens::Append { lines: 2, padding: 17 };
    let read = Happens::Read { millis: 100 };
    holds(Manner::Rough, NODES, &[gone, read, Happens::Cut, Happens::Back, marked, more]);
}

#[test]
fn a_reader_in_an_old_file_reads_all_files_that_came_since_it_resumed() {
    let marked = Happens::Rotate { away: Away::Marked, reopens: false };
    let resume = Happens::Resume { restarts: false };
    holds(Manner::Rough, NODES, &[ROTATE, Happens::Cut, resume, APPEND, marked]);
}

#[test]
fn a_target_of_a_link_that_is_replaced_twice_loses_nothing_in_silence() {
    let [longer, thinned] = [Replacement::Longer(1), Replacement::Thinned].map(Happens::Replace);
    holds(Manner::Linked, NODES, &[longer, thinned]);
    holds(Manner::Linked, NODES, &[Happens::Replace(Replacement::Longer(0)), APPEND, Happens::Retarget(1)]);
}

#[test]
fn a_target_of_a_link_that_is_rotated_as_soon_as_it_is_saved_loses_nothing_in_silence() {
    let save = Happens::Save { edits: true, more: 2 };
    let marked = Happens::Rotate { away: Away::Marked, reopens: true };
    let link = Happens::Retarget(2);
    holds(Manner::Linked, NODES, &[APPEND, Happens::CatchUp, link, APPEND, Happens::CatchUp, save, marked]);
}

#[test]
fn files_that_are_numbered_upward_are_not_lost_in_silence_though_lines_were_written_late() {
    let happens = [Happens::Cut, ROTATE, APPEND, Happens::Late { lines: 2 }, ROTATE];
    holds_by(Naming::Upward, Manner::Rough, NODES, &happens);
}

#[test]
fn two_files_that_are_numbered_upward_are_read_in_order_though_lines_were_written_late() {
    let happens = [ROTATE, Happens::Cut, ROTATE, Happens::Late { lines: 2 }];
    holds_by(Naming::Upward, Manner::Rough, NODES, &happens);
}

#[test]
fn three_files_that_are_numbered_upward_are_read_in_order_though_lines_were_written_late() {
    let late = Happens::Late { lines: 3 };
    let happens = [ROTATE, APPEND, away(Away::Rotated), Happens::InParts, Happens::Cut, late, ROTATE];
    holds_by(Naming::Upward, Manner::Gentle, NODES, &happens);
}

#[test]
fn files_that_are_numbered_upward_are_not_lost_in_silence_though_the_clock_was_set_back() {
    let happens = [ROTATE, Happens::Cut, Happens::ClockStep, APPEND, away(Away::Rotated)];
    holds_by(Naming::Upward, Manner::Gentle, NODES, &happens);
}

#[test]
fn a_numbered_file_is_not_lost_though_its_birth_and_late_lines_say_that_it_is_older() {
    let [late, more] = [Happens::Late { lines: 2 }, Happens::Append { lines: 12, padding: 166 }];
    let gone = away(Away::Rotated);
    let happens = [gone, Happens::ClockStep, Happens::Reopen, more, gone, Happens::ClockStep, READ, late];
    holds(Manner::Gentle, NODES, &[&happens[..], &[Happens::Cut]].concat());
    let back = [APPEND, away(Away::Elsewhere), Happens::Back, Happens::ClockStep, ROTATE, gone];
    let more = [Happens::Late { lines: 1 }, Happens::CatchUp, APPEND, late, Happens::Cut];
    holds(Manner::Rough, NODES, &[&back[..], &more].concat());
}

#[test]
fn a_rotation_that_is_changed_from_dates_to_numbers_is_a_gap() {
    let marked = Happens::Rotate { away: Away::Marked, reopens: true };
    for is_early in [false, true] {
        let early = if is_early { Happens::ClockStep } else { Happens::Reopen };
        holds(Manner::Rough, NODES, &[early, Happens::Cut, marked, APPEND, away(Away::Rotated)]);
    }
}

#[test]
fn a_file_that_was_rotated_after_one_that_was_moved_elsewhere_is_a_gap() {
    let happens = [APPEND, away(Away::Elsewhere), READ, Happens::Cut, Happens::InParts, away(Away::Rotated)];
    holds(Manner::Rough, NODES, &happens);
}

#[test]
fn a_file_that_was_deleted_while_its_writer_went_on_is_read_though_the_one_before_came_back() {
    let [resume, delete] = [Happens::Resume { restarts: false }, Happens::Delete { reopens: false }];
    let late = Happens::Late { lines: 1 };
    holds(Manner::Rough, NODES, &[ROTATE, Happens::Cut, resume, delete, Happens::Back, late]);
    let happens =
        [away(Away::Extension), Happens::Cut, resume, Happens::Reopen, APPEND, delete, Happens::Back];
    holds(Manner::Rough, NODES, &[&happens[..], &[late]].concat());
}

#[test]
fn a_file_with_an_early_birth_that_was_left_after_the_reader_resumed_is_read() {
    let resume = Happens::Resume { restarts: false };
    let happens = [away(Away::Rotated), Happens::ClockStep, Happens::Cut, Happens::Reopen, APPEND, resume];
    for last in [Happens::Delete { reopens: true }, ROTATE] {
        let manner = Manner::Rough;
        holds_by(Naming::Dates, manner, NODES, &[&happens[..], &[last]].concat());
    }
}

#[test]
fn lines_that_are_written_to_the_old_target_of_a_link_while_the_reader_is_away_are_read() {
    let [link, late] = [Happens::Retarget(2), Happens::Late { lines: 2 }];
    holds(Manner::Linked, NODES, &[link, APPEND, Happens::CatchUp, Happens::Cut, late]);
    let back = [Happens::Retarget(0), APPEND, Happens::Retarget(2), APPEND];
    holds(Manner::Linked, NODES, &[&[link, APPEND, Happens::CatchUp, Happens::Cut][..], &back].concat());
}

#[test]
fn a_file_that_is_deleted_at_once_while_its_writer_goes_on_is_read_or_a_gap() {
    let out = Happens::Rotate { away: Away::Directory, reopens: true };
    let more = Happens::Append { lines: 3, padding: 161 };
    let delete = Happens::Delete { reopens: false };
    holds(Manner::Rough, NODES, &[out, delete, Happens::Read { millis: 2 }, more]);
}

#[test]
fn a_target_that_is_truncated_as_soon_as_the_link_is_pointed_back_to_it_loses_nothing_in_silence() {
    let (there, back) = (Happens::Retarget(1), Happens::Retarget(0));
    let happens = [there, APPEND, Happens::CatchUp, back, APPEND, Happens::CopyTruncate];
    holds(Manner::Linked, NODES, &[&happens[..], &[APPEND]].concat());
}
