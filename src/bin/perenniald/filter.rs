//! The filter of `--log`: the directives of tracing, and two rules of our own that keep a log from being silent.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The target of the lines of the audit log.
pub const AUDIT: &str = "audit";

/// Why a text is no filter. The message is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("log is {text:?}: {reason}: write info, or perennial=debug")]
pub struct Error {
    text: String,
    reason: String,
}

/// The filter that a text stands for. Refusals are logged with each of them, unless the text names the target `audit`
/// or is `off`.
///
/// # Errors
/// The text is empty or not a filter, or has a word without a level that is no level, as `warning`. tracing takes such a word for
/// a target, and a log with this target alone has no line. The error quotes the text and says what to write.
pub fn parse(text: &str) -> Result<EnvFilter, Error> {
    let fault = |reason: String| Error { text: text.into(), reason };
    let mut directives = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    if directives.clone().next().is_none() {
        return Err(fault("it is empty, and `off` logs nothing".into()));
    }
    let is_word = |it: &&str| it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some(word) = directives.clone().filter(is_word).find(|it| it.parse::<LevelFilter>().is_err()) {
        return Err(fault(format!("`{word}` is not a level (error, warn, info, debug, trace or off)")));
    }
    let filter = EnvFilter::builder().parse(text).map_err(|error| fault(error.to_string()))?;
    let is_named = directives.any(|it| {
        let target = it.split(['=', '[']).next().unwrap_or_default();
        target == AUDIT
    });
    if is_named || filter.max_level_hint() == Some(LevelFilter::OFF) {
        return Ok(filter);
    }
    let refusals = format!("{AUDIT}=info").parse().map_err(|_| fault("it is not a filter".into()))?;
    Ok(filter.add_directive(refusals))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_by_name() {
        for text in ["warning", "inof", "info,debgu", "perennial", "perennial=debug, warning"] {
            let error = parse(text).unwrap_err().to_string();
            let word =
                text.split(',').map(str::trim).find(|it| !["info", "perennial=debug"].contains(it)).unwrap();
            assert!(error.contains(&format!("`{word}`")) && error.contains("perennial=debug"), "{error}");
        }
        assert!(parse(" ,").unwrap_err().to_string().contains("it is empty"));
        assert!(parse("perennial=loud").unwrap_err().to_string().contains("perennial=loud"));
    }

    #[test]
    fn refusals_are_logged_unless_the_filter_says_otherwise() {
        for (text, expected) in [
            ("info", true),
            ("WARN", true),
            ("perennial=debug", true),
            ("perennial[{topic=a}]=debug", true),
            ("info,audit=debug", false),
            ("info,audit=off", false),
            ("off", false),
        ] {
            let added = parse(text).unwrap().to_string().split(',').any(|it| it == "audit=info");
            assert_eq!(added, expected, "{text}");
        }
    }
}
