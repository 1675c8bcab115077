//! Quotes words for a POSIX shell.

/// Quotes a word so that a shell reads it back unchanged. Control characters, which could move a terminal, are escaped
/// in the `$'…'` form of bash, ksh and zsh.
pub fn word(word: &str) -> String {
    if word.chars().any(char::is_control) {
        let escape = |byte: u8| match byte {
            b'\'' | b'\\' => format!("\\{}", char::from(byte)),
            b' '..=b'~' => char::from(byte).into(),
            _ => format!("\\x{byte:02x}"),
        };
        return format!("$'{}'", word.bytes().map(escape).collect::<String>());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Joins `words` to a command line.
pub fn command(words: &[String]) -> String {
    words.iter().map(|each| word(each)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_if_a_shell_would_change_them() {
        for (given, quoted) in [
            ("logs/app.log", "logs/app.log"),
            ("", "''"),
            ("a b", "'a b'"),
            ("orders.>", "'orders.>'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("a\x1b[2J'\\ü", r"$'a\x1b[2J\'\\\xc3\xbc'"),
        ] {
            assert_eq!(word(given), quoted);
        }
    }
}
