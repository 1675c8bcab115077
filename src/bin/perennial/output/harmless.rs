//! Text that goes to a terminal: control characters are escaped, so that it can neither move the cursor nor change a
//! setting. It uses the standard library alone, because the fuzz targets include this file.

/// Writes the text of a JSON value with the control characters escaped that JSON does not escape: DEL and C1.
pub fn escape_json(out: &mut Vec<u8>, text: &str) {
    for char in text.chars() {
        if matches!(char, '\u{7f}'..='\u{9f}') {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(char)).as_bytes());
        } else {
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Writes control characters except the tab, and bytes that are not UTF-8, as `\x1b`.
pub fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() && char != '\t' {
                out.extend_from_slice(format!("\\x{:02x}", u32::from(char)).as_bytes());
            } else {
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
}

/// Text without control characters, so that it cannot move the cursor of a terminal.
pub fn harmless(text: &str) -> String {
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if n > 0 {
            out.push(b'\n');
        }
        escape(&mut out, line.as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (given, expected) in [
            (&b"plain\ttext"[..], "plain\ttext"),
            ("ünïcode — 😀".as_bytes(), "ünïcode — 😀"),
            (b"\x1b[2J\x07\r\n", "\\x1b[2J\\x07\\x0d\\x0a"),
            (b"\x7f\xc2\x9b31m", "\\x7f\\x9b31m"),
            (b"a\xff\xc3", "a\\xff\\xc3"),
        ] {
            let mut out = Vec::new();
            escape(&mut out, given);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
