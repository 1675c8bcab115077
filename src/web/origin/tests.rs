//! Hosts and origins, as tables.
#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;

fn origins() -> Origins {
    Origins {
        listen: vec!["10.1.2.3".parse().unwrap()],
        hosts: vec!["streams.example.com".parse().unwrap()],
        origins: vec!["https://app.example.com".parse().unwrap()],
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn a_request_must_name_a_host_of_the_server() {
    for host in [
        "localhost",
        "localhost:50051",
        "LOCALHOST",
        "localhost.",
        "perennial.localhost:1",
        "127.0.0.1:50051",
        "127.9.9.9",
        "[::1]:50051",
        "[::1]",
        "10.1.2.3",
        "10.1.2.3:80",
        "[::ffff:10.1.2.3]",
        "streams.example.com",
        "Streams.Example.com:443",
    ] {
        assert_eq!(origins().check(&request("/", &[("host", host)])).unwrap(), Sender::Own, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "10.1.2.4",
        "example.com",
        "127.0.0.1.evil.example",
        "0.0.0.0",
    ] {
        let request = request("/", &[("host", host)]);
        assert!(matches!(origins().check(&request), Err(Foreign::Host(_))), "{host}");
    }
    for host in ["", ":80", "localhost:", "localhost:99999", "localhost:x", "a@localhost", "a:b@localhost"] {
        let request = request("/", &[("host", host)]);
        assert!(matches!(origins().check(&request), Err(Foreign::NoHost)), "{host}");
    }
    let none = request("/", &[]);
    assert!(matches!(origins().check(&none), Err(Foreign::NoHost)));
    let twice = request("/", &[("host", "localhost"), ("host", "localhost")]);
    assert!(matches!(origins().check(&twice), Err(Foreign::NoHost)));
    let both = request("http://localhost/", &[("host", "evil.example")]);
    assert!(matches!(origins().check(&both), Err(Foreign::NoHost)));
    let everywhere = Origins { listen: vec!["0.0.0.0".parse().unwrap()], ..Origins::default() };
    assert!(everywhere.check(&request("/", &[("host", "192.0.2.7:50051")])).is_ok());
    assert!(everywhere.check(&request("/", &[("host", "evil.example")])).is_err());
}

#[test]
fn a_page_must_be_of_the_server_or_of_an_allowed_origin() {
    let own = ["http://localhost:50051", "https://localhost:50051", "HTTP://LOCALHOST:50051"];
    for origin in own {
        let request = request("/", &[("host", "localhost:50051"), ("origin", origin)]);
        assert_eq!(origins().check(&request).unwrap(), Sender::Own, "{origin}");
    }
    let behind_a_proxy =
        request("/", &[("host", "streams.example.com"), ("origin", "https://streams.example.com")]);
    assert_eq!(origins().check(&behind_a_proxy).unwrap(), Sender::Own);
    for origin in [
        "null",
        "",
        "http://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:50051",
        "http://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "file://",
    ] {
        let request = request("/", &[("host", "localhost:50051"), ("origin", origin)]);
        assert!(matches!(origins().check(&request), Err(Foreign::Origin(_))), "{origin}");
    }
    for origin in ["https://app.example.com", "https://app.example.com:443"] {
        let request = request("/", &[("host", "localhost:50051"), ("origin", origin)]);
        assert_eq!(origins().check(&request).unwrap(), Sender::Allowed(origin.parse().unwrap()), "{origin}");
    }
}

#[test]
fn a_request_of_another_site_without_an_origin_is_refused_unless_it_is_a_link_to_the_page() {
    let of = |path: &str, site: &str, mode: &str| {
        let request =
            request(path, &[("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)]);
        origins().check(&request).is_ok()
    };
    assert!(of("/v1/countdown", "same-origin", "cors") && of("/v1/countdown", "none", "navigate"));
    assert!(!of("/v1/countdown", "cross-site", "no-cors") && !of("/v1/countdown", "same-site", "no-cors"));
    assert!(!of("/v1/countdown", "cross-site", "navigate"));
    let has_page = crate::web::page::is_at("/");
    assert_eq!((of("/", "cross-site", "navigate"), of("/", "cross-site", "no-cors")), (has_page, false));
}

#[test]
fn an_origin_and_a_host_are_read_or_refused() {
    let shown = |text: &str| text.parse::<Origin>().map(|origin| origin.to_string());
    assert_eq!(shown("HTTPS://App.Example.com:443").unwrap(), "https://app.example.com");
    assert_eq!(shown("http://localhost:3000").unwrap(), "http://localhost:3000");
    for text in
        ["*", "app.example.com", "https://app.example.com/", "https://a@b", "https://", "ftp://x", "null"]
    {
        assert!(shown(text).unwrap_err().contains("https://app.example.com"), "{text}");
    }
    for text in ["", "a:80", "https://a", "a/b", "a@b", "*"] {
        let read = text.parse::<Host>();
        assert!(
            read.as_ref().err().is_some_and(|fault| fault.contains("streams.example.com")),
            "{text}: {read:?}"
        );
    }
    assert_eq!("[::1]".parse::<Host>().unwrap().to_string(), "[::1]");
}
