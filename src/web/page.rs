//! The page at `/`: files that the build embedded, compressed.
//!
//! The files are in `web/dist`. A browser keeps those below `/assets/` without asking again, because their names change
//! with their content, and asks for the others by their tag.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use tonic::body::Body;

use super::full;

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The files whose names change with their content.
const HASHED: &str = "/assets/";

/// What the page may do: load its own files, and talk to this server.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file of the page.
#[derive(Debug)]
struct Asset {
    /// Its path in URLs.
    path: &'static str,
    content_type: &'static str,
    tag: &'static str,
    plain: &'static [u8],
    /// `None` if it would not be smaller.
    gzip: Option<&'static [u8]>,
}

fn find(path: &str) -> Option<&'static Asset> {
    let path = if path == "/" { "/index.html" } else { path };
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Whether the page has a file at this path.
pub fn is_at(path: &str) -> bool {
    find(path).is_some()
}

/// The answer to a GET or HEAD of a file of the page.
pub fn answer(request: &Parts) -> Option<Response<Body>> {
    let asset = find(request.uri.path())?;
    let names = |name, value: &str| {
        let headers = request.headers.get_all(name).iter().filter_map(|header| header.to_str().ok());
        headers.flat_map(|header| header.split(',')).any(|part| {
            let part = part.trim();
            part == value || part.strip_prefix("W/") == Some(value)
        })
    };
    let accepts_gzip = accepts_gzip(request);
    let is_known = names(header::IF_NONE_MATCH, asset.tag) || names(header::IF_NONE_MATCH, "*");
    let gzip = asset.gzip.filter(|_| accepts_gzip);
    let content = gzip.unwrap_or(asset.plain);
    let has_body = !is_known && request.method != Method::HEAD;
    let body = if has_body { full(Bytes::from_static(content)) } else { Body::empty() };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static(asset.tag));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let caching =
        if asset.path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CONTENT_LENGTH, content.len().into());
    if gzip.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(response)
}

/// Whether the client takes gzip: it names it, and not with a quality of 0.
fn accepts_gzip(request: &Parts) -> bool {
    let headers = request.headers.get_all(header::ACCEPT_ENCODING).iter();
    headers.filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(',')).any(|part| {
        let (name, quality) = part.split_once(';').unwrap_or((part, ""));
        let quality = quality.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && quality.is_ok_and(|quality| quality > 0.0)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_a_client_that_takes_it() {
        for (accepted, expected) in [
            ("gzip", true),
            ("br, gzip, deflate", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0", false),
            ("identity", false),
            ("", false),
        ] {
            let request = http::Request::get("/").header(header::ACCEPT_ENCODING, accepted).body(()).unwrap();
            assert_eq!(accepts_gzip(&request.into_parts().0), expected, "{accepted}");
        }
    }
}
