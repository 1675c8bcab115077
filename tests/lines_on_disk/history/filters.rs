//! Filters on the lines of all generations.

use perennial::lines::{Patterns, Query, Start};

use super::{gaps, gzip, history, lines, numbers, rotated_and_compressed};
use crate::bed::{Bed, LOG};

fn with(include: &str, most: usize) -> Query {
    let patterns = Patterns { include: vec![include.into()], ..Patterns::default() };
    let mut query = Query { patterns, ..history(Start::Head) };
    query.batching.max_items = most;
    query
}

#[tokio::test]
async fn a_filter_chooses_lines_of_all_generations_also_for_a_reader_that_is_cut() {
    for bed in Bed::both() {
        rotated_and_compressed(&bed);
        let expected = numbers(0..400).into_iter().filter(|line| line.ends_with('7')).collect::<Vec<_>>();
        for most in [1, 5, 1000] {
            let reading = super::read_in_parts_of(&bed, with("7$", most)).await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (expected.clone(), vec![]), "{most}");
        }
    }
}

#[tokio::test]
async fn a_line_that_a_rotation_split_is_chosen_by_its_first_part() {
    for bed in Bed::both() {
        bed.append("app.log.2", "one\nred");
        bed.append("app.log.1", " and blue");
        bed.append(LOG, " and red\nblue\nred");
        for compressed in [None, Some("app.log.2"), Some("app.log.1")] {
            if let Some(name) = compressed {
                gzip(&bed, name);
            }
            for most in [1, 1000] {
                let red = super::read_in_parts_of(&bed, with("red", most)).await;
                assert_eq!(
                    red.shown(),
                    ["red>", " and blue<>", " and red<", "red$"],
                    "{compressed:?} {most}"
                );
                let blue = super::read_in_parts_of(&bed, with("blue", most)).await;
                assert_eq!(blue.shown(), ["blue"], "{compressed:?} {most}");
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_short_archive_that_a_filter_does_not_admit_ends_nothing() {
    for bed in Bed::both() {
        bed.append("app.log.1", lines(0..20_000));
        gzip(&bed, "app.log.1");
        let whole = std::fs::read(bed.path("app.log.1.gz")).unwrap();
        super::faults::write_old(&bed, "app.log.1.gz", &whole[..whole.len() - 100]);
        bed.append(LOG, "last\n");
        let mut reading = bed.open(with("last|never", 1000)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events).len()), (vec!["last".to_owned()], 1));
    }
}
