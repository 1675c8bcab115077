//! Escapes what people type into URLs and what the grammar of URLs excludes: `demo.>` for `demo.%3E`.
//!
//! Browsers escape by themselves, and curl does not. hyper refuses such a target before any code of this server sees it,
//! with an answer that names nothing. So the bytes of HTTP/1.1 pass here on their way to hyper, and the target of each
//! request line is escaped. To find the next request line, this follows the lengths of bodies; after a body whose length
//! it does not know, it escapes nothing more on the connection.

/// These are excluded from the target of a request (RFC 3986, appendix A), and hyper refuses them.
const EXCLUDED: &[u8] = b"\"<>^`";

/// The longest line of a header whose name and value are read: longer than `content-length` and any length.
const MAX_LINE_BYTES: usize = 64;

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    RequestLine,
    Headers,
    /// In a body, of which this many bytes are still to come.
    Body(u64),
    /// In a body of unknown length.
    Unknown,
}

/// Follows the requests of a connection.
#[derive(Debug)]
pub struct Escaping {
    at: At,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// The length of the body that follows; `None` if it is unknown.
    body: Option<u64>,
}

impl Default for Escaping {
    fn default() -> Self {
        Self { at: At::RequestLine, line: Vec::new(), body: Some(0) }
    }
}

impl Escaping {
    /// The bytes that hyper gets instead of these; `None` if they are the same.
    pub fn escape(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut escaped = None::<Vec<u8>>;
        let mut index = 0;
        while let Some(byte) = bytes.get(index) {
            match self.at {
                At::Unknown => {
                    if let Some(escaped) = &mut escaped {
                        escaped.extend_from_slice(bytes.get(index..).unwrap_or_default());
                    }
                    return escaped;
                }
                At::Body(left) => {
                    let rest = bytes.get(index..).unwrap_or_default();
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if let Some(escaped) = &mut escaped {
                        escaped.extend_from_slice(rest.get(..taken).unwrap_or_default());
                    }
                    let left = left - taken as u64;
                    self.at = if left == 0 { At::RequestLine } else { At::Body(left) };
                    index += taken;
                    continue;
                }
                At::RequestLine if EXCLUDED.contains(byte) => {
                    let so_far = || bytes.get(..index).unwrap_or_default().to_vec();
                    escaped.get_or_insert_with(so_far).extend(format!("%{byte:02X}").bytes());
                    index += 1;
                    self.keep(*byte);
                    continue;
                }
                At::RequestLine | At::Headers => self.follow(*byte),
            }
            if let Some(escaped) = &mut escaped {
                escaped.push(*byte);
            }
            index += 1;
        }
        escaped
    }

    fn keep(&mut self, byte: u8) {
        if self.line.len() < MAX_LINE_BYTES {
            self.line.push(byte);
        }
    }

    fn follow(&mut self, byte: u8) {
        if byte != b'\n' {
            self.keep(byte);
            return;
        }
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii();
        self.at = match (self.at, line.is_empty()) {
            // Empty lines before a request are passed over.
            (At::RequestLine, true) => At::RequestLine,
            (At::RequestLine, false) => At::Headers,
            (_, true) => match self.body.replace(0) {
                None => At::Unknown,
                Some(0) => At::RequestLine,
                Some(length) => At::Body(length),
            },
            (at, false) => {
                self.read_header(line);
                at
            }
        };
    }

    fn read_header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.body = None;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value.get(1..).unwrap_or_default()).unwrap_or_default();
            self.body = self.body.and(value.trim().parse().ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(escaping: &mut Escaping, text: &str) -> String {
        let escaped = escaping.escape(text.as_bytes()).unwrap_or_else(|| text.as_bytes().to_vec());
        String::from_utf8_lossy(&escaped).into_owned()
    }

    /// Each text, and what hyper gets.
    const ALL: [(&str, &str); 7] = [
        (
            "GET /v1/messages?topic=demo.>&earliest HTTP/1.1\r\nhost: a>b\r\n\r\n",
            "GET /v1/messages?topic=demo.%3E&earliest HTTP/1.1\r\nhost: a>b\r\n\r\n",
        ),
        ("\r\nGET /\"<>^` HTTP/1.1\nx: y\n\n", "\r\nGET /%22%3C%3E%5E%60 HTTP/1.1\nx: y\n\n"),
        (
            "POST /> HTTP/1.1\r\nContent-Length: 12\r\n\r\n<a>\n\n<b>GET>GET /> HTTP/1.1\r\n\r\n",
            "POST /%3E HTTP/1.1\r\nContent-Length: 12\r\n\r\n<a>\n\n<b>GET>GET /%3E HTTP/1.1\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.1\r\n\r\nGET /> HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\n\r\nGET /%3E HTTP/1.1\r\n\r\n",
        ),
        (
            "POST /> HTTP/1.1\r\ncontent-length: many\r\n\r\nGET /> HTTP/1.1\r\n",
            "POST /%3E HTTP/1.1\r\ncontent-length: many\r\n\r\nGET /> HTTP/1.1\r\n",
        ),
        (
            "POST /> HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\nGET />",
            "POST /%3E HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\nGET />",
        ),
        ("nothing", "nothing"),
    ];

    #[test]
    fn targets_are_escaped_and_nothing_else_however_the_bytes_arrive() {
        for (text, expected) in ALL {
            assert_eq!(escape(&mut Escaping::default(), text), expected);
            for size in [1, 2, 7] {
                let mut escaping = Escaping::default();
                let pieces =
                    text.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap_or_default());
                assert_eq!(pieces.map(|piece| escape(&mut escaping, piece)).collect::<String>(), expected);
            }
        }
    }

    #[test]
    fn bytes_without_such_a_target_are_not_copied() {
        let mut escaping = Escaping::default();
        assert!(escaping.escape(b"GET /v1/lines/a HTTP/1.1\r\ncookie: <>\r\n\r\n").is_none());
        assert_eq!(escaping.at, At::RequestLine);
        let long =
            format!("x-content-length: {}\r\ncontent-length:{}7\r\n\r\n", "1".repeat(99), " ".repeat(99));
        assert!(escaping.escape(format!("POST / HTTP/1.1\r\n{long}").as_bytes()).is_none());
        assert_eq!(escaping.at, At::Unknown, "a length that was not read");
    }
}
