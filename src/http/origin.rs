//! Whom a request is meant for, and whether a web page sent it. Over TCP a request must name this device by a name that no name server
//! gives out (a loopback address, or `localhost`): otherwise a page whose name was made to point here could read the answers of a browser
//! on the device. A request that a page of another origin sent is refused whatever it asks. A browser does not reach a Unix socket.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answers::Problem;
use super::peer::Peer;

/// Lets a request through that names this device and that no page of another origin sent.
pub(super) async fn only_own(request: Request, next: Next) -> Response {
    let port = request.extensions().get::<Peer>().map(Peer::port);
    if port != Some(None) {
        let (uri, version, headers) = (request.uri(), request.version(), request.headers());
        if let Err(problem) = is_own(uri, version, headers, port.flatten()) {
            return problem.into_response();
        }
    }
    next.run(request).await
}

pub(super) fn is_own(uri: &Uri, version: Version, headers: &HeaderMap, port: Option<u16>) -> Result<(), Problem> {
    let foreign = || Problem::new(StatusCode::FORBIDDEN, "`Host` names another device: use 127.0.0.1, [::1] or localhost");
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        // Before HTTP/1.1 there was no such header. A browser always sends it.
        (None, _) if version < Version::HTTP_11 => {}
        (None, _) => return Err(Problem::bad("`Host` is missing")),
        (Some(_), Some(_)) => return Err(Problem::bad("`Host` is given twice")),
        (Some(host), None) => drop(host.to_str().ok().and_then(loopback).ok_or_else(foreign)?),
    }
    if let Some(authority) = uri.authority() {
        loopback(authority.as_str()).ok_or_else(foreign)?;
    }
    let page = || Problem::new(StatusCode::FORBIDDEN, "requests that a page of another origin sends are refused");
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")).and_then(loopback);
        if own.is_none_or(|named| Some(named.unwrap_or(80)) != port) {
            return Err(page());
        }
    }
    // What browsers say of a request that has no `Origin`, a picture's for example.
    let is_of_a_page = |site: &axum::http::HeaderValue| site != "same-origin" && site != "none";
    if headers.get_all("sec-fetch-site").iter().any(is_of_a_page) {
        return Err(page());
    }
    Ok(())
}

/// The port, if there is one, after a name that is always this device's.
fn loopback(text: &str) -> Option<Option<u16>> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (name, rest) = text.split_once(']')?;
            name.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_loopback)?;
            (None, rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Some(name), rest)
        }
    };
    let is_loopback =
        |name: &str| name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if name.is_some_and(|name| !is_loopback(name)) {
        return None;
    }
    if rest.is_empty() {
        return Some(None);
    }
    let port = rest.strip_prefix(':')?;
    port.bytes().all(|digit| digit.is_ascii_digit()).then(|| port.parse().ok()).flatten().map(Some)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn judged(version: Version, headers: &[(&'static str, &'static str)]) -> Option<StatusCode> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        is_own(&Uri::from_static("/readyz"), version, &all, Some(8000)).err().map(|problem| problem.into_response().status())
    }

    #[test]
    fn only_names_that_are_always_this_devices_are_answered() {
        for host in ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3:9", "[::1]", "[::1]:8000"] {
            assert_eq!(judged(Version::HTTP_11, &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.nip.io",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "192.168.1.4:8000",
            "0.0.0.0:8000",
            "[::]:8000",
            "[::1].evil.example",
            "[::1",
            "127.0.0.1:",
            "127.0.0.1:+80",
            "127.0.0.1:80:80",
            "0127.0.0.1",
            "2130706433",
            "",
        ] {
            assert_eq!(judged(Version::HTTP_11, &[("host", host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(judged(Version::HTTP_11, &[]), Some(StatusCode::BAD_REQUEST));
        assert_eq!(judged(Version::HTTP_10, &[]), None);
        assert_eq!(judged(Version::HTTP_10, &[("host", "evil.example")]), Some(StatusCode::FORBIDDEN));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(judged(Version::HTTP_11, &twice), Some(StatusCode::BAD_REQUEST));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let absolute = Uri::from_static("http://evil.example/readyz");
        assert!(is_own(&absolute, Version::HTTP_11, &headers, Some(8000)).is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        for (name, value, is_refused) in [
            ("origin", "http://evil.example", true),
            ("origin", "null", true),
            ("origin", "", true),
            ("origin", "https://localhost:8000", true),
            ("origin", "http://localhost:3000", true),
            ("origin", "http://localhost", true),
            ("origin", "http://localhost:8000", false),
            ("origin", "http://127.0.0.1:8000", false),
            ("sec-fetch-site", "cross-site", true),
            ("sec-fetch-site", "same-site", true),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "none", false),
        ] {
            let status = judged(Version::HTTP_11, &[("host", "127.0.0.1:8000"), (name, value)]);
            assert_eq!(status, is_refused.then_some(StatusCode::FORBIDDEN), "{name}: {value}");
        }
    }
}
