//! Signing in: a browser cannot send a header with every request, as with `EventSource`, so it keeps the token in a cookie.
//!
//! Scripts cannot read the cookie, and a browser sends it only with requests of pages of the same site. It is the token
//! itself: the server keeps no sessions, and a token that is revoked or expires ends the session.

use std::{fmt::Display, time::Duration};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tonic::body::Body;

use super::{
    BoxError, refuse, refuse_method,
    rest::{self, Refusal},
};
use crate::grpc::{
    call::Connection,
    gate::Gate,
    status::{self, Failure},
};

/// Where a browser signs in and out.
pub const PATH: &str = "/v1/session";

/// The largest request, in bytes: several times the largest token.
const MAX_BYTES: usize = 16 * 1024;

/// A request must be complete within this time.
const TIME: Duration = Duration::from_secs(10);

/// The names of the cookie: without TLS, and with it. A browser takes the second one only over TLS and of this host.
const COOKIES: [&str; 2] = ["perennial-token", "__Host-perennial-token"];

/// The body of a request to sign in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    token: String,
}

/// Signs in or out.
pub async fn answer<B>(
    gate: &Gate,
    connection: &Connection,
    is_secure: bool,
    request: Request<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + Unpin + 'static,
{
    let (parts, body) = request.into_parts();
    let token = match parts.method {
        // A page of another site would need the answer to a preflight request.
        Method::DELETE => return done(cookie(is_secure, "", "; Max-Age=0")),
        Method::POST => match token(&parts.headers, body).await {
            Ok(token) => token,
            Err(refusal) => return *refusal.0,
        },
        method => return refuse_method(&method, PATH, &[&Method::POST, &Method::DELETE]),
    };
    let credential = HeaderValue::try_from(format!("Bearer {token}"));
    // A cookie cannot hold everything that a header can.
    let credential = credential
        .ok()
        .filter(|_| token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)));
    let Some(mut credential) = credential else { return refuse(field_fault("is not a token")) };
    credential.set_sensitive(true);
    match gate.sign_in(connection, credential) {
        Ok(()) => done(cookie(is_secure, &token, "")),
        Err(failure) => refuse(failure),
    }
}

/// The token never appears in an error.
fn field_fault(fault: &str) -> Failure {
    Failure::field("token", format!("{fault}: send {{\"token\": \"…\"}} with one that the operator gave you"))
}

async fn token<B>(headers: &HeaderMap, body: B) -> Result<String, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + Unpin + 'static,
{
    rest::is_json(headers)?;
    let refused = |fault: &str| Refusal::from(status::malformed(fault));
    let collected = tokio::time::timeout(TIME, Limited::new(body, MAX_BYTES).collect()).await;
    let collected = collected.map_err(|_| refused("was not complete after 10 s: send it again"))?;
    let collected = collected.map_err(|_| refused("is larger than a token, or was cut"))?;
    let request = serde_json::from_slice::<SignIn>(collected.to_bytes().chunk());
    request.map(|request| request.token).map_err(|_| field_fault("is missing").into())
}

fn cookie(is_secure: bool, token: &str, end: &str) -> Option<HeaderValue> {
    let [plain, secure] = COOKIES;
    let (name, flag) = if is_secure { (secure, "; Secure") } else { (plain, "") };
    let mut cookie =
        HeaderValue::try_from(format!("{name}={token}; Path=/; HttpOnly; SameSite=Strict{flag}{end}"))
            .ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

fn done(cookie: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}

/// Makes the credential of a signed-in browser the credential of its request. A header that is there is used instead.
pub fn credential(headers: &mut HeaderMap, is_secure: bool) {
    let [plain, secure] = COOKIES;
    let name = if is_secure { secure } else { plain };
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let mut cookies =
        cookies.flat_map(|cookie| cookie.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let token = cookies.find(|(known, _)| *known == name).map(|(_, token)| format!("Bearer {token}"));
    headers.remove(header::COOKIE);
    if headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    if let Some(mut credential) = token.and_then(|token| HeaderValue::try_from(token).ok()) {
        credential.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, credential);
    }
}
