//! A time in digits that are several lines high.

/// The height of a digit in lines.
pub const ROWS: usize = 5;

/// The lit points, one number per row: the highest of `width` bits is the leftmost point.
struct Glyph {
    width: usize,
    rows: [u8; ROWS],
}

fn glyph(char: char) -> Glyph {
    let (width, rows) = match char {
        '0' => (3, [0b111, 0b101, 0b101, 0b101, 0b111]),
        '1' => (3, [0b010, 0b110, 0b010, 0b010, 0b111]),
        '2' => (3, [0b111, 0b001, 0b111, 0b100, 0b111]),
        '3' => (3, [0b111, 0b001, 0b111, 0b001, 0b111]),
        '4' => (3, [0b101, 0b101, 0b111, 0b001, 0b001]),
        '5' => (3, [0b111, 0b100, 0b111, 0b001, 0b111]),
        '6' => (3, [0b111, 0b100, 0b111, 0b101, 0b111]),
        '7' => (3, [0b111, 0b001, 0b001, 0b001, 0b001]),
        '8' => (3, [0b111, 0b101, 0b111, 0b101, 0b111]),
        '9' => (3, [0b111, 0b101, 0b111, 0b001, 0b111]),
        'd' => (3, [0b001, 0b001, 0b111, 0b101, 0b111]),
        ':' => (1, [0, 1, 0, 1, 0]),
        '.' => (1, [0, 0, 0, 0, 1]),
        _ => (1, [0; ROWS]),
    };
    Glyph { width, rows }
}

/// The lines of a text of digits, `d`, `:`, `.` and spaces. Each point is `columns` wide.
pub fn lines(text: &str, columns: usize) -> [String; ROWS] {
    let glyphs = text.chars().map(glyph).collect::<Vec<_>>();
    std::array::from_fn(|row| {
        let letters = glyphs.iter().map(|glyph| {
            let points = glyph.rows.get(row).copied().unwrap_or_default();
            let point = |bit| if points >> bit & 1 == 1 { "█" } else { " " };
            (0..glyph.width).rev().map(|bit| point(bit).repeat(columns)).collect::<String>()
        });
        letters.collect::<Vec<_>>().join(&" ".repeat(columns)).trim_end().to_owned()
    })
}

/// The width of those lines in columns.
pub fn width(text: &str, columns: usize) -> usize {
    let points = text.chars().map(|char| glyph(char).width + 1).sum::<usize>();
    points.saturating_sub(1) * columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_drawn_in_blocks() {
        assert_eq!(lines("1:2.", 1), [" █    ███", "██  █   █", " █    ███", " █  █ █", "███   ███ █"]);
        assert_eq!(lines("1", 2), ["  ██", "████", "  ██", "  ██", "██████"]);
    }

    #[test]
    fn no_line_is_wider_than_the_width() {
        for text in ["0123456789", "12d 03:04:05", "0:09.9", ""] {
            for columns in [1, 2] {
                let widest = lines(text, columns).iter().map(|line| line.chars().count()).max();
                assert!(widest <= Some(width(text, columns)), "{text}");
            }
        }
    }
}
