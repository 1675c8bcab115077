//! Deadlines of unary calls.

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::*;

/// The paths of all methods of the contract that do not stream.
fn unary_methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().filter(|file| file.package() == "perennial.v1").flat_map(|it| &it.service);
    let methods = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    methods
        .filter(|(_, method)| !method.client_streaming() && !method.server_streaming())
        .map(|(service, method)| format!("/perennial.v1.{}/{}", service.name(), method.name()))
        .collect()
}

#[tokio::test]
async fn every_unary_method_refuses_a_call_whose_deadline_has_passed() {
    let house = House::new().await;
    let methods = unary_methods();
    assert!(methods.len() > 10, "{methods:?}");
    for method in methods {
        // An empty request. tonic's own client would not send a call whose deadline has passed.
        let request = http::Request::post(&method)
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "0n")
            .body(http_body_util::Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let response = house.answer(request).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
        let name = method.rsplit('/').next().unwrap();
        let counter = format!("calls_total{{method=\"{name}\",code=\"DEADLINE_EXCEEDED\"}}");
        assert_eq!(house.metric(&counter), 1, "{method}");
    }
}
