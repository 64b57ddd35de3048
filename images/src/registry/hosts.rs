//! Where a registry's images really come from: `hosts.toml` in containerd's format.
//!
//! For `reg.io:5000` the first of DIR/reg.io_5000_/, DIR/reg.io:5000/ and DIR/_default/ that exists is read. Its mirrors come in the
//! file's order, then `server`, which is the registry itself unless the file says otherwise. Without a file a directory's
//! `*.crt`, `*.cert` and `*.key` are used as docker does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::hosts_file::{Client, File, Ordered, Paths, Settings, Words};
use super::tls::TlsFiles;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const FILE: &str = "hosts.toml";

/// What is wrong with the registry configuration.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// Cannot be read.
    #[error("{path:?}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a wrong type; the text names it.
    #[error("{path:?}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("{path:?}: {key}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) https: bool,
    /// Host with port.
    pub(crate) authority: String,
    /// Up to the repository: `/v2`, or what `override_path` says.
    pub(crate) prefix: String,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) tls: TlsFiles,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) dial_timeout: Duration,
    /// Whether it stands for the registry itself, and not for a mirror of it.
    pub(crate) registry: bool,
    /// Whether redirects and token services in plain HTTP are followed from https, without credentials.
    pub(crate) plain_redirects: bool,
    /// Whether a layer that no host has is asked of the addresses that its descriptor names.
    pub(crate) layer_urls: bool,
    /// Mirrors are told whose image is meant (`?ns=`).
    pub(crate) namespace: Option<String>,
}

/// The hosts to ask for images of `domain`, in order.
pub(crate) fn load(directory: &Path, domain: &str) -> Result<Vec<Host>, HostsError> {
    let Some(found) = candidates(directory, domain)
        .into_iter()
        .find(|path| path.is_dir())
    else {
        return Ok(vec![Host::origin(domain)]);
    };
    let path = found.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(vec![Host {
                tls: docker_files(&found)?,
                ..Host::origin(domain)
            }]);
        }
        Err(source) => return Err(HostsError::Read { path, source }),
    };
    plan(&path, &text, domain)
}

fn candidates(directory: &Path, domain: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        names.push(format!("{host}_{port}_"));
    }
    names.push(domain.to_owned());
    names.push("_default".to_owned());
    names.into_iter().map(|name| directory.join(name)).collect()
}

impl Host {
    /// The registry itself, without any configuration: https, but plain HTTP on loopback (unless the port is https's).
    pub(super) fn origin(domain: &str) -> Self {
        let authority = if domain == "docker.io" {
            "registry-1.docker.io"
        } else {
            domain
        };
        Self {
            https: !is_loopback(authority) || authority.ends_with(":443"),
            authority: authority.to_owned(),
            prefix: "/v2".to_owned(),
            pull: true,
            resolve: true,
            tls: TlsFiles::default(),
            headers: Vec::new(),
            dial_timeout: DIAL_TIMEOUT,
            registry: true,
            plain_redirects: true,
            layer_urls: false,
            namespace: None,
        }
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Checks a `hosts.toml` and turns it into the list of hosts.
fn plan(path: &Path, text: &str, domain: &str) -> Result<Vec<Host>, HostsError> {
    let file: File = toml::from_str(text).map_err(|source| HostsError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let own = Settings {
        capabilities: file.capabilities,
        ca: file.ca,
        client: file.client,
        skip_verify: file.skip_verify,
        header: file.header,
        override_path: file.override_path,
        dial_timeout: file.dial_timeout,
        plain_redirects: file.plain_redirects,
        layer_urls: file.layer_urls,
    };
    let mut hosts = Vec::new();
    for (url, settings) in file.host.0 {
        hosts.push(host(path, &format!("host.{url:?}"), &url, settings, domain)?);
    }
    let registry = Host::origin(domain);
    let url = file.server.unwrap_or_else(|| {
        format!(
            "{}://{}",
            if registry.https { "https" } else { "http" },
            registry.authority
        )
    });
    let server = host(path, "server", &url, own, domain)?;
    hosts.push(Host {
        registry: true,
        ..server
    });
    Ok(hosts)
}

fn host(path: &Path, key: &str, url: &str, settings: Settings, domain: &str) -> Result<Host, HostsError> {
    let bad = |field: &str, problem: String| HostsError::Value {
        path: path.to_owned(),
        key: if field.is_empty() {
            key.to_owned()
        } else {
            format!("{key}.{field}")
        },
        problem,
    };
    let (https, authority, url_path) = split_url(url).map_err(|problem| bad("", problem))?;
    let (pull, resolve) = capabilities(settings.capabilities).map_err(|p| bad("capabilities", p))?;
    let registry = Host::origin(domain);
    Ok(Host {
        https,
        prefix: prefix(&url_path, settings.override_path.unwrap_or(false)),
        pull,
        resolve,
        tls: tls_files(
            path.parent().unwrap_or(path),
            settings.ca,
            settings.client,
            settings.skip_verify,
        )
        .map_err(|problem| bad("client", problem))?,
        headers: headers(settings.header).map_err(|problem| bad("header", problem))?,
        dial_timeout: settings
            .dial_timeout
            .map_or(Ok(DIAL_TIMEOUT), |text| duration(&text))
            .map_err(|problem| bad("dial_timeout", problem))?,
        registry: authority == registry.authority && https == registry.https,
        plain_redirects: settings.plain_redirects.unwrap_or(true),
        layer_urls: settings.layer_urls.unwrap_or(false),
        namespace: (authority != registry.authority).then(|| domain.to_owned()),
        authority,
    })
}

fn split_url(url: &str) -> Result<(bool, String, String), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    let default_https = |authority: &str| !is_loopback(authority);
    let uri: Uri = format!("http://{rest}")
        .parse()
        .map_err(|error| format!("{url:?}: {error}"))?;
    let authority = uri
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        return Err(format!("{url:?} is not SCHEME://HOST[:PORT][/PATH]"));
    }
    let https = match scheme {
        Some("https") => true,
        Some("http") => false,
        None => default_https(&authority),
        Some(other) => return Err(format!("scheme {other:?} is neither http nor https")),
    };
    Ok((https, authority, uri.path().trim_end_matches('/').to_owned()))
}

/// The API's root below the host.
fn prefix(path: &str, override_path: bool) -> String {
    if override_path || path.ends_with("/v2") {
        path.to_owned()
    } else {
        format!("{path}/v2")
    }
}

fn capabilities(list: Option<Vec<String>>) -> Result<(bool, bool), String> {
    let Some(list) = list else { return Ok((true, true)) };
    let known = ["pull", "resolve", "push", "referrers"];
    match list.iter().find(|word| !known.contains(&word.as_str())) {
        Some(unknown) => Err(format!("{unknown:?} is none of {known:?}")),
        None => Ok((
            list.iter().any(|w| w == "pull"),
            list.iter().any(|w| w == "resolve"),
        )),
    }
}

fn headers(table: Ordered<Words>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, values) in table.0 {
        let header: HeaderName = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
        let values = match values {
            Words::One(value) => vec![value],
            Words::Many(values) => values,
        };
        for value in values {
            let value = HeaderValue::from_str(&value).map_err(|error| format!("{name:?}: {error}"))?;
            headers.push((header.clone(), value));
        }
    }
    Ok(headers)
}

fn tls_files(
    base: &Path,
    ca: Option<Paths>,
    client: Option<Client>,
    skip_verify: Option<bool>,
) -> Result<TlsFiles, String> {
    let authorities = match ca {
        None => Vec::new(),
        Some(Paths::One(path)) => vec![path],
        Some(Paths::Many(paths)) => paths,
    };
    let pairs: Vec<(PathBuf, PathBuf)> = match client {
        None => Vec::new(),
        Some(Client::One(path)) => vec![(path.clone(), path)],
        Some(Client::Many(paths)) => paths.into_iter().map(|path| (path.clone(), path)).collect(),
        Some(Client::Pairs(pairs)) => pairs
            .into_iter()
            .map(|[certificate, key]| match key.as_os_str().is_empty() {
                true => (certificate.clone(), certificate),
                false => (certificate, key),
            })
            .collect(),
    };
    if pairs.len() > 1 {
        return Err("more than one client certificate is not supported".to_owned());
    }
    Ok(TlsFiles {
        authorities: authorities.into_iter().map(|path| base.join(path)).collect(),
        client: pairs
            .into_iter()
            .next()
            .map(|(certificate, key)| (base.join(certificate), base.join(key))),
        skip_verify: skip_verify.unwrap_or(false),
    })
}

/// Go's notation for one unit, for example `500ms` or `3s`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration like \"500ms\", \"3s\" or \"1m\"");
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(bad)
}

/// docker's layout: `*.crt` are authorities, `NAME.cert` with `NAME.key` the client's.
fn docker_files(directory: &Path) -> Result<TlsFiles, HostsError> {
    let read = |source| HostsError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut files = TlsFiles::default();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => files.authorities.push(path),
            Some("cert") => files.client = Some((path.clone(), path.with_extension("key"))),
            _ => {}
        }
    }
    files.authorities.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str, domain: &str) -> Result<Vec<Host>, String> {
        plan(Path::new("/certs/hosts.toml"), text, domain).map_err(|error| crate::chain::chain(&error))
    }

    fn urls(hosts: &[Host]) -> Vec<String> {
        hosts
            .iter()
            .map(|h| {
                format!(
                    "{}://{}{}",
                    if h.https { "https" } else { "http" },
                    h.authority,
                    h.prefix
                )
            })
            .collect()
    }

    #[test]
    fn mirrors_come_in_the_files_order_then_the_server() {
        let text = r#"
            [host."http://z.local:5000"]
            capabilities = ["pull", "resolve"]
            [host."https://a.local/cache"]
            capabilities = ["pull"]
            ca = "ca.pem"
            client = [["c.pem", "k.pem"]]
            dial_timeout = "250ms"
            [host."https://a.local/cache".header]
            x-one = "1"
            x-two = ["2", "3"]
            [host."b.local/exact/"]
            override_path = true
            skip_verify = true
        "#;
        let hosts = hosts(text, "docker.io").unwrap();
        assert_eq!(
            urls(&hosts),
            [
                "http://z.local:5000/v2",
                "https://a.local/cache/v2",
                "https://b.local/exact",
                "https://registry-1.docker.io/v2"
            ]
        );
        assert_eq!(
            (hosts[0].resolve, hosts[1].resolve, hosts[1].pull),
            (true, false, true)
        );
        assert_eq!(hosts[1].tls.authorities, [Path::new("/certs/ca.pem")]);
        assert_eq!(hosts[1].tls.client.as_ref().unwrap().1, Path::new("/certs/k.pem"));
        assert_eq!(hosts[1].headers.len(), 3);
        assert_eq!(hosts[1].dial_timeout, Duration::from_millis(250));
        assert_eq!(hosts[0].namespace.as_deref(), Some("docker.io"));
        assert!(hosts[2].tls.skip_verify && hosts[3].namespace.is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("sever = \"x\"", "sever"),
            ("[host.\"http://a\"]\ncapability = []", "capability"),
            (
                "[host.\"http://a\"]\ncapabilities = [\"fly\"]",
                "host.\"http://a\".capabilities: \"fly\"",
            ),
            ("[host.\"ftp://a\"]", "host.\"ftp://a\": scheme \"ftp\""),
            ("server = \"https://a/?x\"", "server: "),
            ("server = 5", "server"),
            ("dial_timeout = \"soon\"", "server.dial_timeout"),
            ("[header]\n\"a b\" = \"x\"", "server.header"),
            ("client = [\"a\", \"b\"]", "server.client"),
            ("[host", "hosts.toml"),
        ];
        for (text, want) in cases {
            let error = hosts(text, "reg.io").unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn the_directory_of_the_host_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, server: &str| {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            let text = format!("server = \"https://{server}\"");
            std::fs::write(directory.path().join(name).join(FILE), text).unwrap();
        };
        let load = |domain| urls(&load(directory.path(), domain).unwrap());
        assert_eq!(load("reg.io:5000"), ["https://reg.io:5000/v2"]);
        assert_eq!(load("127.0.0.1:5000"), ["http://127.0.0.1:5000/v2"]);
        assert_eq!(load("[::1]:443"), ["https://[::1]:443/v2"]);
        write("_default", "default");
        assert_eq!(load("reg.io:5000"), ["https://default/v2"]);
        write("reg.io:5000", "colon");
        assert_eq!(load("reg.io:5000"), ["https://colon/v2"]);
        write("reg.io_5000_", "port");
        assert_eq!(load("reg.io:5000"), ["https://port/v2"]);
        assert_eq!(load("reg.io"), ["https://default/v2"]);
        std::fs::remove_file(directory.path().join("_default").join(FILE)).unwrap();
        std::fs::write(directory.path().join("_default/own.crt"), "").unwrap();
        let hosts = super::load(directory.path(), "x.io").unwrap();
        assert!(hosts[0].tls.authorities[0].ends_with("own.crt"));
    }
}
