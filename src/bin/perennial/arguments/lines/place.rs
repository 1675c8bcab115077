//! What an argument of `perennial lines` names: a file, or those that match a glob.

/// The characters that make a glob of an argument, unless there is a `\` before them.
const WILD: [char; 4] = ['*', '?', '[', '{'];

/// The characters before which a `\` stands in a glob, to be as they are.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// An argument.
#[derive(Debug, Eq, PartialEq)]
pub enum Place {
    /// `ROOT/PATH`.
    Path(String),
    /// `ROOT/GLOB`.
    Glob(String),
}

impl Place {
    /// Reads an argument. Without any of `*?[{`, it is a path as it is.
    pub fn read(text: &str) -> Self {
        if !text.contains(WILD) {
            return Self::Path(text.to_owned());
        }
        let (mut plain, mut rest) = (String::new(), text.chars());
        while let Some(char) = rest.next() {
            match char {
                '\\' => plain.extend(rest.next()),
                _ if WILD.contains(&char) => return Self::Glob(text.to_owned()),
                _ => plain.push(char),
            }
        }
        Self::Path(plain)
    }
}

/// The argument that names this path.
pub fn argument(path: &str) -> String {
    if !path.contains(WILD) {
        return path.to_owned();
    }
    let escaped = |char: char| SPECIAL.contains(&char).then_some('\\').into_iter().chain([char]);
    path.chars().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_glob_if_a_character_of_globs_is_not_escaped() {
        for path in ["logs/app.log", "logs/a\\b", "logs/a]b}", "logs/app[1].log", "logs/\\*{", "logs/?"] {
            assert_eq!(Place::read(&argument(path)), Place::Path(path.into()), "{path}");
        }
        for glob in ["logs/*.log", "logs/**/a", "logs/a?", "logs/[ab]", "logs/{a,b}", "logs/\\*/*"] {
            assert_eq!(Place::read(glob), Place::Glob(glob.into()));
        }
        assert_eq!(argument("logs/a\\b"), "logs/a\\b");
        assert_eq!(argument("logs/app[1].log"), "logs/app\\[1\\].log");
    }
}
