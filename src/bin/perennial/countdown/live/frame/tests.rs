#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
use super::*;

fn clock() -> Zoned {
    "2026-11-23T17:57:30+01:00[Europe/Berlin]".parse().unwrap()
}

fn launch() -> Shown {
    Shown {
        name: Some("launch".into()),
        state: CountdownState::Running,
        left: Some(SignedDuration::from_secs(150)),
        total: Some(SignedDuration::from_secs(600)),
        end: Some("2026-11-23T17:00:00Z".parse().unwrap()),
        number: None,
        lateness: None,
        note: None,
    }
}

fn lines(it: &Shown, columns: usize, rows: usize) -> Vec<String> {
    let lines = frame(it, Size { columns, rows }, false, &clock());
    for line in &lines {
        assert_eq!(line.width, line.text().chars().count());
        assert!(line.width <= columns, "{columns}: {line:?}");
    }
    assert!(lines.len() == 1 || lines.len() < rows, "{lines:#?}");
    lines.iter().map(|line| line.text().trim_end().to_owned()).collect()
}

#[test]
fn a_terminal_with_room_shows_large_digits_a_bar_and_the_state() {
    let it = Shown { note: Some("17:56:00 resumed".into()), number: Some(7), ..launch() };
    assert_eq!(
        lines(&it, 80, 24),
        [
            "  ██████      ██████  ██████",
            "      ██  ██      ██  ██  ██",
            "  ██████      ██████  ██  ██",
            "  ██      ██      ██  ██  ██",
            "  ██████      ██████  ██████",
            "",
            "  ██████████████████████████████░░░░░░░░░░  75 %",
            "  launch · running · ends at 18:00:00 · number 7",
            "  17:56:00 resumed",
        ]
    );
}

#[test]
fn digits_are_narrower_on_a_narrower_terminal() {
    assert_eq!(
        lines(&launch(), 20, 10),
        [
            "  ███   ███ ███",
            "    █ █   █ █ █",
            "  ███   ███ █ █",
            "  █   █   █ █ █",
            "  ███   ███ ███",
            "",
            "  █████████░░░  75 %",
            "  launch · running ·",
        ]
    );
}

#[test]
fn a_narrow_or_short_terminal_shows_one_line() {
    let words = "launch · running · ends at 18:00:00";
    assert_eq!(lines(&launch(), 80, 8), [format!("2:30  ███████████████░░░░░  75 %  {words}")]);
    assert_eq!(lines(&launch(), 50, 8), [format!("2:30  {words}")]);
    assert_eq!(lines(&launch(), 14, 24), ["2:30  launch ·"]);
    for columns in 0..100 {
        for rows in 0..14 {
            let note = Some("connection lost (\u{1b}[2J): resuming".into());
            lines(&Shown { note, lateness: Some("late".into()), ..launch() }, columns, rows);
        }
    }
}

#[test]
fn a_countdown_without_a_response_yet_shows_dashes() {
    let it = Shown { name: None, left: None, total: None, end: None, ..launch() };
    assert_eq!(lines(&it, 50, 24), ["-:--  running"]);
}

#[test]
fn the_remaining_time_is_rounded_up_and_ends_in_tenths() {
    for (text, face) in [
        ("90061s", "1d 01:01:01"),
        ("3723s", "1:02:03"),
        ("59m 59.1s", "1:00:00"),
        ("10.1s", "0:11"),
        ("10s", "0:10"),
        ("9.999s", "0:10"),
        ("9.9s", "0:09.9"),
        ("8.81s", "0:08.9"),
        ("1ns", "0:00.1"),
        ("0s", "0:00.0"),
    ] {
        assert_eq!(clock_face(time::duration(text).unwrap()), face, "{text}");
    }
}

#[test]
fn colours_are_optional_and_take_no_room() {
    let size = Size { columns: 80, rows: 5 };
    let (plain, coloured) = (frame(&launch(), size, false, &clock()), frame(&launch(), size, true, &clock()));
    assert!(!plain[0].text().contains('\u{1b}') && coloured[0].text().contains('\u{1b}'));
    assert_eq!(plain[0].width, coloured[0].width);
}
