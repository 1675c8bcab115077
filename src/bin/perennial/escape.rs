//! Escapes for characters that cannot be typed on a command line: `\0`, `\n`, `\r`, `\t`, `\\` and `\xNN`.

use std::str::Chars;

/// Reads the characters after a `\`.
pub fn after_backslash(rest: &mut Chars<'_>) -> Result<u8, String> {
    Ok(match rest.next() {
        Some('0') => 0,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('\\') => b'\\',
        Some('x') => {
            let digits = rest.by_ref().take(2).collect::<String>();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            byte.ok_or_else(|| format!("\\x{digits} is not a byte; try \\x1e"))?
        }
        Some(other) => return Err(format!("\\{other} is unknown; try \\0, \\n, \\r, \\t, \\\\ or \\xNN")),
        None => return Err("a \\ at the end; write \\\\ for a backslash".into()),
    })
}
