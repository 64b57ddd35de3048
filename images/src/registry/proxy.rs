//! The way out over a proxy: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's programs read them.
//!
//! ```text
//!  http://reg/  -> the proxy, which is told the whole URL
//!  https://reg/ -> the proxy, CONNECT reg:443 (RFC 9110, 9.3.6), then TLS with the registry itself
//! ```

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A proxy's answer to CONNECT is read so far.
const ANSWER_MAX: usize = 16 << 10;

/// Why a proxy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The variable is no address of a proxy.
    #[error("{variable}: not an address of a proxy, http://HOST:PORT or https://HOST:PORT")]
    Address {
        /// Which one; its value may hold a password.
        variable: &'static str,
    },
    /// It does not make the connection.
    #[error("proxy {proxy} answers CONNECT {target} with {answer:?}")]
    Refused {
        /// Host and port.
        proxy: String,
        /// Where to.
        target: String,
        /// The first line it sent.
        answer: String,
    },
}

/// Which proxy is used for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    direct: Vec<Direct>,
}

/// A proxy's address.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Value of Proxy-Authorization.
    pub(super) authorization: Option<HeaderValue>,
}

/// An entry of NO_PROXY: what is reached without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    All,
    /// Addresses that have the first bits of this one.
    Network(IpAddr, u32),
    Host {
        /// In lower case, without a leading dot.
        name: String,
        /// Also the name itself, not only what is below it.
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    pub(super) fn from_environment() -> Result<Self, ProxyError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ProxyError> {
        let either = |upper: &'static str, lower| {
            let value = |name| variable(name).filter(|value| !value.trim().is_empty());
            value(upper).or_else(|| value(lower))
        };
        let proxy = |upper, lower| match either(upper, lower) {
            Some(text) => Proxy::parse(text.trim())
                .ok_or(ProxyError::Address { variable: upper })
                .map(Some),
            None => Ok(None),
        };
        let direct = either("NO_PROXY", "no_proxy").unwrap_or_default();
        Ok(Self {
            http: proxy("HTTP_PROXY", "http_proxy")?,
            https: proxy("HTTPS_PROXY", "https_proxy")?,
            direct: direct
                .split([',', ' '])
                .filter_map(|entry| Direct::parse(entry.trim()))
                .collect(),
        })
    }

    /// The proxy for an address; `None` when it is reached directly, as this machine itself always is.
    pub(super) fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let https = uri.scheme_str() == Some("https");
        let proxy = if https { &self.https } else { &self.http };
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let address: Option<IpAddr> = host.parse().ok();
        let own = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let direct = own || self.direct.iter().any(|entry| entry.fits(host, address, port));
        proxy.as_ref().filter(|_| !direct)
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let place: hyper::http::uri::Authority = place.parse().ok()?;
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            let pair = [plain(name), plain(password)].join(&b':');
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Some(Self {
            tls,
            host: place.host().trim_matches(['[', ']']).to_owned(),
            port: place.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authorization: authorization.flatten(),
        })
    }

    /// Has the proxy connect `stream` with `target` (HOST:PORT).
    pub(super) async fn connect(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        target: &str,
    ) -> io::Result<()> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the empty line is the registry's.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < ANSWER_MAX {
            answer.push(stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&answer);
        let line = text.lines().next().unwrap_or_default();
        let status = line.split(' ').nth(1).unwrap_or_default();
        if line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
            return Ok(());
        }
        Err(io::Error::other(ProxyError::Refused {
            proxy: format!("{}:{}", self.host, self.port),
            target: target.to_owned(),
            answer: line.chars().filter(|c| !c.is_control()).take(200).collect(),
        }))
    }
}

impl Direct {
    fn parse(entry: &str) -> Option<Self> {
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            return Some(Self::Network(address.parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self::Network(address, 128));
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let name = name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase();
        let below = name.strip_prefix('.');
        Some(Self::Host {
            itself: below.is_none(),
            name: below.unwrap_or(&name).trim_matches(['[', ']']).to_owned(),
            port,
        })
    }

    fn fits(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => address.is_some_and(|address| within(address, *network, *bits)),
            Self::Host {
                name,
                itself,
                port: only,
            } => {
                let below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                only.is_none_or(|only| only == port) && ((*itself && host == name) || below)
            }
        }
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (own, other, length) = match (address.to_canonical(), network.to_canonical()) {
        (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let ignored = length - bits.min(length);
    let cut = |number: u128| number.checked_shr(ignored).unwrap_or(0);
    cut(own) == cut(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &'static [(&'static str, &'static str)]) -> Result<Proxies, ProxyError> {
        let value = |name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxies::read(value)
    }

    fn used(proxies: &Proxies, uri: &str) -> Option<String> {
        let proxy = proxies.of(&uri.parse().unwrap())?;
        Some(format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = proxies(&[
            ("HTTP_PROXY", "http://u:p%40ss@one:3128/"),
            ("https_proxy", "two:8080"),
        ])
        .unwrap();
        assert_eq!(used(&both, "http://reg.io/v2/").as_deref(), Some("one:3128"));
        assert_eq!(
            used(&both, "https://reg.io:5000/v2/").as_deref(),
            Some("two:8080")
        );
        let authorization = both.http.unwrap().authorization.unwrap();
        assert_eq!(authorization, format!("Basic {}", STANDARD.encode("u:p@ss")));
        for own in ["http://localhost:5000/", "http://127.0.0.9/", "http://[::1]:80/"] {
            assert_eq!(used(&proxies(&[("HTTP_PROXY", "p:1")]).unwrap(), own), None);
        }
        let upper = proxies(&[("HTTPS_PROXY", "https://p"), ("https_proxy", "q")]).unwrap();
        assert_eq!(used(&upper, "https://reg.io/").as_deref(), Some("p:443"));
        assert_eq!(used(&upper, "http://reg.io/"), None);
        assert!(used(&proxies(&[("HTTP_PROXY", " ")]).unwrap(), "http://reg.io/").is_none());
        for bad in [
            proxies(&[("HTTP_PROXY", "socks5://user:secret@p:1")]),
            proxies(&[("HTTP_PROXY", "http://user:secret@")]),
        ] {
            let error = bad.unwrap_err().to_string();
            assert!(
                error.contains("HTTP_PROXY") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_no_proxy_names_is_reached_directly() {
        let all = "example.org,.below.org, *.star.org,port.org:5000,10.0.0.0/8,192.0.2.7,fd00::/8,x/y";
        let listed = Proxies {
            direct: all
                .split(',')
                .filter_map(|entry| Direct::parse(entry.trim()))
                .collect(),
            ..proxies(&[("HTTP_PROXY", "p:1")]).unwrap()
        };
        for direct in [
            "http://example.org/",
            "http://EXAMPLE.org:5000/",
            "http://a.example.org/",
            "http://a.below.org/",
            "http://a.star.org/",
            "http://port.org:5000/",
            "http://10.1.2.3:5000/",
            "http://192.0.2.7/",
            "http://[fd00::1]/",
        ] {
            assert_eq!(used(&listed, direct), None, "{direct}");
        }
        for proxied in [
            "http://notexample.org/",
            "http://below.org/",
            "http://star.org/",
            "http://port.org/",
            "http://11.1.2.3/",
            "http://192.0.2.8/",
            "http://[fe00::1]/",
        ] {
            assert!(used(&listed, proxied).is_some(), "{proxied}");
        }
        let none = proxies(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(used(&none, "http://reg.io/"), None);
    }
}
