//! The doors below `/v1/`: which path and method of HTTP is which call.

use std::sync::{Arc, LazyLock};

use http::Method as Verb;
use percent_encoding::percent_decode_str;

use super::json::Method;
use crate::grpc::status::Failure;

/// What answers to plain HTTP, for errors.
pub const PATHS: &str = "GET / with the page, GET /v1/countdown, GET /v1/countdowns/NAME, GET /v1/lines/ROOT/PATH, \
                         GET /v1/files, GET /v1/messages, POST /v1/messages/TOPIC, and POST and DELETE /v1/session";

/// The beginning of all doors.
pub const PREFIX: &str = "/v1/";

/// A call that a path and a method of HTTP stand for.
#[derive(Clone, Debug)]
pub struct Door {
    pub method: Arc<Method>,
    /// The label in the metrics.
    pub name: &'static str,
    /// The field that the path has, and its value.
    pub bound: Vec<(&'static str, String)>,
}

/// A row of the table: verb, path, field in the rest of the path, service, method, and label.
struct Row {
    verb: Verb,
    path: &'static str,
    field: Option<&'static str>,
    name: &'static str,
    method: Arc<Method>,
}

static ROWS: LazyLock<[Row; 6]> = LazyLock::new(|| {
    let row = |verb, path, field, name, service, method| Row {
        verb,
        path,
        field,
        name,
        method: Arc::new(Method::find(service, method)),
    };
    [
        row(Verb::GET, "/v1/countdown", None, "countdown", "CountdownService", "Countdown"),
        row(Verb::GET, "/v1/countdowns/", Some("name"), "countdowns", "CountdownService", "Countdown"),
        row(Verb::GET, "/v1/lines/", Some("path"), "lines", "LineService", "ReadLines"),
        row(Verb::GET, "/v1/files", None, "files", "LineService", "WatchFiles"),
        row(Verb::GET, "/v1/messages", None, "messages", "MessageService", "Messages"),
        row(Verb::POST, "/v1/messages/", Some("topic"), "publish", "MessageService", "Publish"),
    ]
});

/// Reads the table, so that a fault in it shows at the start.
pub fn prepare() {
    LazyLock::force(&ROWS);
}

/// What is wrong with a request to a door.
#[derive(Debug)]
pub enum Fault {
    /// No door has this path.
    Nothing,
    /// The door at this path answers this method.
    Verb(&'static Verb),
    /// The path is malformed.
    Path(Failure),
}

/// The door at a path.
///
/// # Errors
/// No door answers this path and method, or the path is malformed.
pub fn find(verb: &Verb, path: &str) -> Result<Door, Fault> {
    let rest = |row: &Row| match row.field {
        None => (path == row.path).then_some(""),
        Some(_) => path.strip_prefix(row.path).filter(|rest| !rest.is_empty()),
    };
    let mut other = None;
    for row in &*ROWS {
        let Some(rest) = rest(row) else { continue };
        if row.verb != *verb {
            other = Some(&row.verb);
            continue;
        }
        let text = percent_decode_str(rest).decode_utf8();
        let malformed = |field| Failure::field(field, "is not UTF-8 after its percent signs are decoded");
        let bound = match row.field {
            None => Vec::new(),
            Some(field) => vec![(field, text.map_err(|_| Fault::Path(malformed(field)))?.into_owned())],
        };
        return Ok(Door { method: row.method.clone(), name: row.name, bound });
    }
    match other {
        Some(allowed) => Err(Fault::Verb(allowed)),
        None => Err(Fault::Nothing),
    }
}
