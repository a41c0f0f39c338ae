//! Why a web page cannot reach this server through the browser of somebody who can.
//!
//! Owns: the judgement of `Origin` and `Host`. Must never: take a header for proof of who is asking; it only tells browsers apart. Asked by
//! `dispatch` and `http`.
//!
//! | attack | what gives it away | defence |
//! | --- | --- | --- |
//! | a page sends requests to this server's address | the browser adds `Origin` | refused unless that origin is configured |
//! | a page's own name is made to point at this machine (DNS rebinding), so nothing is cross-origin | `Host` is that name | on plaintext connections from this machine to itself, `Host` must be an address, `localhost` or configured |
//!
//! With TLS a rebound name fails at the certificate. gRPC calls are exempt from the second: no browser speaks it without TLS. What the JSON gateway
//! takes is `POST` alone, with which browsers send `Origin` even to a page's own name: so it is safe on other plaintext connections, too.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::{Authority, Uri};

/// Which web pages may do what; by default none anything.
#[derive(Clone, Debug, Default)]
pub struct BrowserPolicy {
    /// Names by which this server may be called on plaintext loopback connections, beside `localhost` and addresses. `*` is any.
    pub hosts: Vec<String>,
    /// Origins whose pages may call this server, as browsers send them (`https://console.example`). `*` is any.
    pub origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its `Origin` is not configured.
    Origin,
    /// Its `Host` is not this server's.
    Host,
}

impl BrowserPolicy {
    /// The origin to allow in the answer; `None` when the request has none.
    pub fn judge_origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        let allowed = self.origins.iter().any(|allowed| allowed == "*" || origin == allowed.as_str());
        if allowed { Ok(Some(origin.clone())) } else { Err(Refusal::Origin) }
    }

    /// Whether a request comes from a page that this server has itself served in plain text, by an address or as `localhost`. Names that are configured do not count: `*` may be
    /// among them.
    pub fn is_own_page(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = || headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(Authority::as_str).or_else(named);
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()?.strip_prefix("http://"));
        let is_same = origin.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host));
        is_same && Self::default().judge_host(uri, headers).is_ok()
    }

    /// Judges by what name the client calls this server.
    pub fn judge_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let any = self.hosts.iter().any(|allowed| allowed == "*");
        self.judge_name(uri, headers, any)
    }

    /// The same where `*` stands for no name: any one may be a web page's that leads here.
    pub fn judge_named_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.judge_name(uri, headers, false)
    }

    fn judge_name(&self, uri: &Uri, headers: &HeaderMap, any: bool) -> Result<(), Refusal> {
        let named = || headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let Some(authority) = uri.authority().cloned().or_else(named) else { return Err(Refusal::Host) };
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let own = host == "localhost"
            || host.parse::<Ipv4Addr>().is_ok()
            || bare.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
            || any
            || self.hosts.iter().any(|allowed| allowed != "*" && allowed.eq_ignore_ascii_case(host));
        if own { Ok(()) } else { Err(Refusal::Host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_own_names_and_addresses_are_hosts() {
        let policy = BrowserPolicy { hosts: vec!["etcd.local".into()], origins: Vec::new() };
        let path = Uri::from_static("/version");
        let judge = |host| policy.judge_host(&path, &headers(HOST, host)).is_ok();
        for own in
            ["localhost", "LOCALHOST:2379", "localhost.", "127.0.0.1:2379", "[::1]:2379", "ETCD.local:1"]
        {
            assert!(judge(own), "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:2379", "", "::1"] {
            assert!(!judge(foreign), "{foreign}");
        }
        assert!(policy.judge_host(&path, &HeaderMap::new()).is_err(), "a request without a host");
        // The authority of the request itself is what counts, where it has one.
        let rebound = Uri::from_static("http://evil.example/version");
        assert!(policy.judge_host(&rebound, &headers(HOST, "localhost")).is_err());
        let any = BrowserPolicy { hosts: vec!["*".into()], origins: Vec::new() };
        assert!(any.judge_host(&rebound, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn an_own_page_has_the_origin_that_it_was_served_from() {
        let any = BrowserPolicy { hosts: vec!["*".into()], origins: vec!["*".into()] };
        let judge = |host: &str, origin: &str| {
            let mut both = headers(HOST, host);
            both.extend(headers(ORIGIN, origin));
            any.is_own_page(&Uri::from_static("/status/approve"), &both)
        };
        for host in ["127.0.0.1:2379", "localhost:2379", "[::1]:2379", "localhost"] {
            assert!(judge(host, &format!("http://{host}")), "{host}");
        }
        for (host, origin) in [
            ("127.0.0.1:2379", "http://127.0.0.1:8080"),
            ("127.0.0.1:2379", "http://localhost:2379"),
            ("127.0.0.1:2379", "https://127.0.0.1:2379"),
            ("127.0.0.1:2379", "null"),
            ("evil.example:2379", "http://evil.example:2379"),
        ] {
            assert!(!judge(host, origin), "{origin} to {host}");
        }
        assert!(!any.is_own_page(&Uri::from_static("/"), &headers(HOST, "localhost")), "no origin");
    }

    #[test]
    fn origins_are_refused_unless_configured() {
        let none = BrowserPolicy::default();
        assert_eq!(none.judge_origin(&HeaderMap::new()), Ok(None));
        for origin in ["null", "http://localhost:2379", "https://console.example"] {
            assert_eq!(none.judge_origin(&headers(ORIGIN, origin)), Err(Refusal::Origin), "{origin}");
        }
        let one = BrowserPolicy { hosts: Vec::new(), origins: vec!["https://console.example".into()] };
        let granted = one.judge_origin(&headers(ORIGIN, "https://console.example")).unwrap();
        assert_eq!(granted.unwrap(), "https://console.example");
        assert!(one.judge_origin(&headers(ORIGIN, "https://console.example.evil")).is_err());
        let any = BrowserPolicy { hosts: Vec::new(), origins: vec!["*".into()] };
        assert!(any.judge_origin(&headers(ORIGIN, "null")).is_ok());
    }
}
