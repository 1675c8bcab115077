//! The bounds of each method, by its path.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use prost_types::FileDescriptorSet;

use super::elements::Field;
use crate::{
    countdown::shared,
    grpc::Config,
    lines::{MAX_GLOBS, MAX_PATTERNS},
    messages::{MAX_HEADERS, PUBLISH_COUNTS},
    proto,
};

/// The package whose streams bound their own responses, by [`Call`](crate::grpc::call::Call).
const OWN_PACKAGE: &str = "perennial.v1";

/// The bounds of a method.
#[derive(Clone, Debug)]
pub struct Method {
    /// Its requests have up to this many bytes.
    pub max_bytes: usize,
    /// Fields of its requests whose elements are counted before a request is decoded.
    pub fields: Vec<Field>,
    /// Whether the client sends more than one request.
    pub is_request_stream: bool,
    /// What the server sends.
    pub answer: Answer,
    /// The kind of the method, as metrics name it.
    pub kind: &'static str,
}

/// What the server sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// One answer.
    One,
    /// Responses of a call that bounds itself.
    OwnStream,
    /// Responses of a service of another crate.
    ForeignStream,
}

/// The bounds of all methods.
#[derive(Clone, Debug)]
pub struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    /// The bounds of paths that no contract names: the strictest.
    unknown: Arc<Method>,
}

impl Methods {
    /// The methods of the contract, of health and of reflection.
    pub fn new(config: &Config, max_patterns: usize) -> Self {
        let sets = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        for file in
            sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file)
        {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let input = method.input_type().rsplit('.').next().unwrap_or_default();
                    let publishes =
                        matches!(input, "PublishRequest" | "PublishBatchRequest" | "PublishStreamRequest");
                    let answer = match (method.server_streaming(), file.package() == OWN_PACKAGE) {
                        (false, _) => Answer::One,
                        (true, true) => Answer::OwnStream,
                        (true, false) => Answer::ForeignStream,
                    };
                    let bounds = Method {
                        max_bytes: if publishes { config.publish_bytes } else { config.request_bytes },
                        fields: fields(input, max_patterns),
                        is_request_stream: method.client_streaming(),
                        answer,
                        kind: kind(method.client_streaming(), method.server_streaming()),
                    };
                    by_path.insert(path, Arc::new(bounds));
                }
            }
        }
        let unknown = Method {
            max_bytes: config.request_bytes,
            fields: Vec::new(),
            is_request_stream: false,
            answer: Answer::ForeignStream,
            kind: "unknown",
        };
        Self { by_path, unknown: Arc::new(unknown) }
    }

    /// The paths of all methods, and the kind of each.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.by_path.iter().map(|(path, method)| (path.as_str(), method.kind))
    }

    /// The bounds of the method at this path.
    pub fn find(&self, path: &str) -> Option<&Arc<Method>> {
        self.by_path.get(path)
    }

    /// The bounds of methods that no contract names.
    pub fn unknown(&self) -> &Arc<Method> {
        &self.unknown
    }
}

fn kind(client_streams: bool, server_streams: bool) -> &'static str {
    match (client_streams, server_streams) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// The repeated fields of a request.
fn fields(input: &str, max_patterns: usize) -> Vec<Field> {
    let field = |number, name, noun, limit, fields| Field { number, name, noun, limit, fields };
    let headers = |number, limit| field(number, "headers", "headers", Some(limit), Vec::new());
    let messages = |fields| field(1, "messages", "messages", Some(*PUBLISH_COUNTS.end()), fields);
    match input {
        "MessagesRequest" => vec![field(1, "topics", "patterns", Some(max_patterns), Vec::new())],
        "ReadLinesRequest" => {
            let patterns = |number, name| field(number, name, "patterns", Some(MAX_PATTERNS), Vec::new());
            vec![patterns(25, "include"), patterns(26, "exclude")]
        }
        "WatchFilesRequest" => vec![field(1, "globs", "globs", Some(MAX_GLOBS), Vec::new())],
        "PublishRequest" => vec![headers(5, MAX_HEADERS)],
        "PublishBatchRequest" => vec![messages(vec![headers(5, MAX_HEADERS)])],
        // A message with too many headers gets an error of its own, and the stream continues.
        "PublishStreamRequest" => vec![messages(Vec::new())],
        "CreateCountdownRequest" => {
            vec![field(8, "on_end", "", None, vec![headers(3, shared::MAX_HEADERS)])]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use prost_types::{DescriptorProto, field_descriptor_proto::Label};

    use super::*;

    fn methods() -> Methods {
        Methods::new(&Config::default(), 64)
    }

    #[test]
    fn methods_are_known_by_their_contracts() {
        let methods = methods();
        let bounds = |path: &str| {
            let Method { max_bytes, is_request_stream, answer, .. } = &**methods.find(path).unwrap();
            (*max_bytes, *is_request_stream, *answer)
        };
        let (small, large) = (64 * 1024, 4 * 1024 * 1024);
        assert_eq!(bounds("/perennial.v1.MessageService/Messages"), (small, false, Answer::OwnStream));
        assert_eq!(bounds("/perennial.v1.MessageService/Publish"), (large, false, Answer::One));
        assert_eq!(bounds("/perennial.v1.MessageService/PublishBatch"), (large, false, Answer::One));
        assert_eq!(bounds("/perennial.v1.MessageService/PublishStream"), (large, true, Answer::OwnStream));
        assert_eq!(bounds("/perennial.v1.MessageService/ListTopics"), (small, false, Answer::One));
        assert_eq!(bounds("/grpc.health.v1.Health/Check"), (small, false, Answer::One));
        assert_eq!(bounds("/grpc.health.v1.Health/Watch"), (small, false, Answer::ForeignStream));
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(bounds(&path), (small, true, Answer::ForeignStream));
        }
        assert!(methods.find("/other").is_none());
        assert_eq!(methods.unknown().answer, Answer::ForeignStream);
    }

    /// The repeated fields of a message and of the messages in it, as in `messages.headers`.
    fn repeated(
        messages: &HashMap<String, DescriptorProto>,
        message: &DescriptorProto,
    ) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for field in &message.field {
            let number = u64::try_from(field.number()).unwrap();
            if field.label() == Label::Repeated {
                found.push((field.name().to_owned(), number));
            }
            let inner = field.type_name().rsplit('.').next().unwrap_or_default();
            for (name, number) in
                messages.get(inner).map(|inner| repeated(messages, inner)).unwrap_or_default()
            {
                found.push((format!("{}.{name}", field.name()), number));
            }
        }
        found
    }

    fn bounded(fields: &[Field]) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for field in fields {
            if field.limit.is_some() {
                found.push((field.name.to_owned(), field.number));
            }
            let inner = bounded(&field.fields).into_iter();
            found.extend(inner.map(|(name, number)| (format!("{}.{name}", field.name), number)));
        }
        found
    }

    #[test]
    fn every_repeated_field_of_a_request_is_bounded_before_it_is_decoded() {
        let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let files = set.file.into_iter().filter(|file| file.package() == OWN_PACKAGE);
        let messages = files.flat_map(|file| file.message_type).map(|it| (it.name().to_owned(), it));
        let messages = messages.collect::<HashMap<_, _>>();
        let mut requests = 0;
        for (name, message) in messages.iter().filter(|(name, _)| name.ends_with("Request")) {
            let mut found = repeated(&messages, message);
            // See `fields`.
            found.retain(|(field, _)| {
                (name.as_str(), field.as_str()) != ("PublishStreamRequest", "messages.headers")
            });
            let (mut found, mut expected) = (bounded(&fields(name, 64)), found);
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{name}");
            requests += usize::from(!found.is_empty());
        }
        assert!(requests >= 5, "{requests}");
    }
}
