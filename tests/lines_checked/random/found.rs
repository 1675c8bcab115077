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
#[ignore = "known fault: late lines of one can come after the lines of a newer one"]
fn two_files_that_are_numbered_upward_are_read_in_order_though_lines_were_written_late() {
    let happens = [ROTATE, Happens::Cut, ROTATE, Happens::Late { lines: 2 }];
    holds_by(Naming::Upward, Manner::Rough, NODES, &happens);
}

#[test]
fn a_file_that_is_deleted_at_once_while_its_writer_goes_on_is_read_or_a_gap() {
    let out = Happens::Rotate { away: Away::Directory, reopens: true };
    let more = Happens::Append { lines: 3, padding: 161 };
    let delete = Happens::Delete { reopens: false };
    holds(Manner::Rough, NODES, &[out, delete, Happens::Read { millis: 2 }, more]);
}
