//! The token of a client: from a file, which is read again when it changes, or given once.
//!
//! A token is never in an error, in a log, or in the output of `Debug`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::Error;
use crate::pem;

/// How long a token that was read from a file is used without reading the file again.
const FRESH: Duration = Duration::from_secs(1);

/// The longest token: the headers of a request have room for it.
const MAX_BYTES: usize = 8 * 1024;

/// Where the token of a client is.
#[derive(Clone)]
pub enum Token {
    /// In a file on which only its owner has permissions. A new one in it is used by the next call.
    File(PathBuf),
    /// This is it.
    Text(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

/// The connection of a client, on which each call shows its token.
pub(super) type Authorized = InterceptedService<Channel, Bearer>;

/// Adds the token to each call.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<Arc<Source>>);

struct Source {
    token: Token,
    /// What was read last, and when.
    last: Mutex<(Instant, MetadataValue<Ascii>)>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

impl Bearer {
    /// Reads the token.
    pub(super) fn open(token: Option<Token>) -> Result<Self, Error> {
        let Some(token) = token else { return Ok(Self(None)) };
        let last = Mutex::new((Instant::now(), read(&token)?));
        Ok(Self(Some(Arc::new(Source { token, last }))))
    }

    fn header(&self) -> Option<MetadataValue<Ascii>> {
        let source = self.0.as_ref()?;
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        let mut last = source.last.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(source.token, Token::File(_)) && last.0.elapsed() > FRESH {
            // While the file is being replaced, the token before is used.
            let header = read(&source.token).unwrap_or_else(|_| last.1.clone());
            *last = (Instant::now(), header);
        }
        Some(last.1.clone())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = self.header() {
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

fn read(token: &Token) -> Result<MetadataValue<Ascii>, Error> {
    match token {
        Token::Text(text) => header(text).map_err(|fault| Error::Credentials(format!("the token {fault}"))),
        Token::File(path) => of_file(path).map_err(|error| Error::Credentials(error.to_string())),
    }
}

fn of_file(path: &Path) -> Result<MetadataValue<Ascii>, pem::Error> {
    let fault = |fault: String| pem::Error { path: path.into(), fault };
    let content = pem::read_private(path)?;
    let text = std::str::from_utf8(&content).map_err(|_| fault("the token is not text".into()))?;
    header(text).map_err(|text| fault(format!("the token {text}")))
}

fn header(text: &str) -> Result<MetadataValue<Ascii>, &'static str> {
    let token = text.trim();
    if token.is_empty() {
        return Err("is empty: `perenniald token new` makes one");
    }
    if token.len() > MAX_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is not one word of up to 8 KiB");
    }
    let mut header = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| "is not one word")?;
    // Not in HTTP/2's table of headers, and not in the output of `Debug`.
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_token_is_one_word_and_never_in_an_error_or_a_debug_text() {
        let secret = "perennial_secret";
        let token = Bearer::open(Some(Token::Text(format!(" {secret}\n")))).unwrap();
        assert_eq!(token.header().unwrap().to_str().unwrap(), format!("Bearer {secret}"));
        let shown = format!("{token:?} {:?} {:?}", Token::Text(secret.into()), token.header());
        assert!(!shown.contains(secret), "{shown}");
        for wrong in ["", " \n", "perennial_secret two", "perennial_secret\u{fc}", &"x".repeat(8193)] {
            let error = Bearer::open(Some(Token::Text(wrong.into()))).unwrap_err().to_string();
            assert!(error.starts_with("the token is ") && !error.contains(secret), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_a_new_token_in_it_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "one\n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = Bearer::open(Some(Token::File(path.clone()))).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("one"), "{error}");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let bearer = Bearer::open(Some(Token::File(path.clone()))).unwrap();
        let age = |by: Duration| bearer.0.as_ref().unwrap().last.lock().unwrap().0 -= by;
        for (content, expected) in [("two", "Bearer two"), ("", "Bearer two"), ("three", "Bearer three")] {
            fs::write(&path, content).unwrap();
            age(2 * FRESH);
            assert_eq!(bearer.header().unwrap().to_str().unwrap(), expected);
        }
    }
}
