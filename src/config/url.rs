//! URLs as etcd's settings use them: a scheme, a host and a port, and nothing else.
//!
//! Owns: their parsing and printing. Must never: resolve a name. Used by the settings of the server and by the
//! endpoints of the command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Names longer than this are no DNS names (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Plain or over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// Why a text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `http://` or `https://` in front.
    #[error("URL scheme must be http or https: {0}")]
    Scheme(String),
    /// Something follows the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
    /// Host or port is missing or malformed.
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    /// A listener needs an address; names are not looked up.
    #[error("expected an IP address or localhost in a URL to listen on: {0}")]
    NotAnAddress(String),
    /// A client cannot connect to "any address".
    #[error("clients cannot connect to an unspecified address: {0}")]
    Unspecified(String),
}

/// A URL that names where somebody can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Plain or over TLS.
    pub scheme: Scheme,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
}

impl Url {
    /// Parses `scheme://host:port`.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError::Path(text.to_owned()));
        }
        let (host, port) = split_host_port(rest).ok_or_else(|| UrlError::Address(text.to_owned()))?;
        Ok(Self { scheme, host: host.to_owned(), port })
    }

    /// Parses a URL that others are told to connect to, so that "any address" is refused.
    pub fn parse_reachable(text: &str) -> Result<Self, UrlError> {
        let url = Self::parse(text)?;
        match url.host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => Err(UrlError::Unspecified(text.to_owned())),
            _ => Ok(url),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.scheme, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
        }
    }
}

/// A URL to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// As it was written, which is also how it is advertised.
    pub url: Url,
    /// Where to bind. `localhost` is 127.0.0.1, which is what etcd binds for it.
    pub address: SocketAddr,
}

impl ListenUrl {
    /// Parses `scheme://address:port`; the only name allowed is `localhost`.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text)?;
        let ip = if url.host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            url.host.parse().map_err(|_| UrlError::NotAnAddress(text.to_owned()))?
        };
        let address = SocketAddr::new(ip, url.port);
        Ok(Self { url, address })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Splits `host:port` or `[v6]:port`; `None` when either part is malformed.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let (host, port) = text.split_once(':')?;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(name) {
            return None;
        }
        (host, port)
    };
    if !port.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::{ListenUrl, Scheme, Url, UrlError};

    #[test]
    fn good_urls_print_as_they_were_written() {
        for text in
            ["http://localhost:2379", "https://10.0.0.1:1", "http://[::1]:65535", "http://a-b.example_c:80"]
        {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_for_its_reason() {
        let scheme = ["", "localhost:2379", "ftp://a:1", "HTTP://a:1", "unix://a:1"];
        let path = ["http://a:1/", "http://a:1/v3", "http://a:1?x", "http://a:1#x"];
        let address = [
            "http://",
            "http://a",
            "http://:1",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://::1:2",
            "http://[::1]",
            "http://[a]:1",
            "http://u@a:1",
            "http://a b:1",
            "http://*:1",
        ];
        for text in scheme {
            assert_eq!(Url::parse(text), Err(UrlError::Scheme(text.to_owned())));
        }
        for text in path {
            assert_eq!(Url::parse(text), Err(UrlError::Path(text.to_owned())));
        }
        for text in address {
            assert_eq!(Url::parse(text), Err(UrlError::Address(text.to_owned())));
        }
    }

    #[test]
    fn a_listener_needs_an_address_and_localhost_is_the_ipv4_loopback() {
        let url = ListenUrl::parse("https://localhost:2379").unwrap();
        assert_eq!((url.url.scheme, url.address.to_string()), (Scheme::Https, "127.0.0.1:2379".to_owned()));
        assert_eq!(ListenUrl::parse("http://[::]:1").unwrap().address.to_string(), "[::]:1");
        let name = "http://example.com:2379";
        assert_eq!(ListenUrl::parse(name), Err(UrlError::NotAnAddress(name.to_owned())));
    }

    #[test]
    fn nobody_can_be_told_to_connect_to_any_address() {
        for text in ["http://0.0.0.0:2379", "http://[::]:2379"] {
            assert_eq!(Url::parse_reachable(text), Err(UrlError::Unspecified(text.to_owned())));
        }
        assert!(Url::parse_reachable("http://example.com:2379").is_ok());
    }
}
