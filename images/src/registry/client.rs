//! Requests to one registry host: authorization, redirects, timeouts and bounded retries.
//!
//! ```text
//!  get -> 401 + challenge -> token service -> get again
//!      -> 3xx -> the storage it points to (without our credentials)
//!      -> 408, 425, 429, 5xx, broken connection -> wait, again (at most ATTEMPTS times)
//! ```

mod redirect;
mod token;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioExecutor;

use super::RegistryError;
use super::auth::{Challenge, Credentials, percent_encode};
use super::body::{read_all, shown, words};
use super::connect::Connector;
use super::hosts::Host;
use super::proxy::Proxies;
use super::tls;
use redirect::redirected;

const ATTEMPTS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest a server's Retry-After is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: u32 = 10;
const ERROR_BODY_MAX: u64 = 8 << 10;

type Http = hyper_util::client::legacy::Client<Connector, Full<Bytes>>;

/// What is wanted of a registry.
pub(super) struct Wanted<'a> {
    /// Below the repository, for example `blobs/sha256:...`.
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// First byte wanted.
    pub(super) from: u64,
    /// Only the headers.
    pub(super) head: bool,
}

/// One registry host for one repository.
pub(super) struct Client {
    pub(super) host: Host,
    repository: String,
    /// The only address that is asked, when this is no registry.
    address: Option<Uri>,
    http: Http,
    proxies: Arc<Proxies>,
    credentials: Option<Credentials>,
    /// What answered the last challenge.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Client {
    pub(super) fn new(
        host: Host,
        repository: &str,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        let proxies = Arc::new(Proxies::from_environment()?);
        let connector = Connector {
            tls: tls::config(&host.tls)?,
            timeout: host.dial_timeout,
            proxies: Arc::clone(&proxies),
        };
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let authorization = match &credentials {
            Some(Credentials::Registry(token)) => Some(token.clone()),
            _ => None,
        };
        Ok(Self {
            host,
            repository: repository.to_owned(),
            address: None,
            http,
            proxies,
            credentials,
            authorization: Mutex::new(authorization),
        })
    }

    /// A server that has one thing at one address, and is told nothing of whoever asks.
    pub(super) fn of_address(url: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::BadUrl { url: url.to_owned() };
        let address: Uri = url.parse().map_err(|_| bad())?;
        let host = match (address.scheme_str(), address.authority()) {
            (Some("http" | "https"), Some(authority)) => Host {
                https: address.scheme_str() == Some("https"),
                ..Host::origin(authority.as_str())
            },
            _ => return Err(bad()),
        };
        Ok(Self {
            address: Some(address),
            ..Self::new(host, "", None)?
        })
    }

    /// Gets something of the repository; the response has status 200 or 206.
    pub(super) async fn get(&self, wanted: &Wanted<'_>) -> Result<Response<Incoming>, RegistryError> {
        let uri = self.uri(wanted.path)?;
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let result = self.authorized(&uri, wanted).await;
            let pause = match &result {
                Ok(response) => retry_pause(response, wait),
                // Nobody there, or nobody to be trusted: worth one more try at most, there may be another host.
                Err(error) if error.is_connect() => (attempt == 1 && !error.is_tls()).then_some(wait),
                Err(error) if error.is_transient() => Some(wait),
                Err(_) => None,
            };
            match pause {
                Some(pause) if attempt < ATTEMPTS => tokio::time::sleep(pause).await,
                _ => return self.checked(&uri, result?).await,
            }
            attempt += 1;
            wait *= 3;
        }
    }

    fn uri(&self, path: &str) -> Result<Uri, RegistryError> {
        if let Some(address) = &self.address {
            return Ok(address.clone());
        }
        let scheme = if self.host.https { "https" } else { "http" };
        let namespace = self
            .host
            .namespace
            .as_ref()
            .map(|ns| format!("?ns={}", percent_encode(ns)))
            .unwrap_or_default();
        let (host, prefix) = (&self.host.authority, &self.host.prefix);
        let text = format!("{scheme}://{host}{prefix}/{}/{path}{namespace}", self.repository);
        text.parse().map_err(|_| RegistryError::BadUrl { url: text })
    }

    /// Sends the request; answers one challenge.
    async fn authorized(&self, uri: &Uri, wanted: &Wanted<'_>) -> Result<Response<Incoming>, RegistryError> {
        let known = self.authorization();
        let response = self.follow(uri, wanted, known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        // An earlier answer may have expired: answer again, once.
        let Some(answer) = self.answer(&challenges).await? else {
            return Ok(response);
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.clone());
        self.follow(uri, wanted, Some(answer)).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends the request, following redirects. Credentials and own headers only go to the host they are for.
    async fn follow(
        &self,
        uri: &Uri,
        wanted: &Wanted<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut at = uri.clone();
        for _ in 0..REDIRECTS_MAX {
            let own = (at.scheme(), at.authority()) == (uri.scheme(), uri.authority());
            let mut request = Request::builder()
                .method(if wanted.head { Method::HEAD } else { Method::GET })
                .uri(&at)
                .header(ACCEPT, wanted.accept)
                .header(ACCEPT_ENCODING, "identity");
            if wanted.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", wanted.from));
            }
            if own {
                for (name, value) in &self.host.headers {
                    request = request.header(name, value);
                }
                if let Some(authorization) = &authorization {
                    request = request.header(AUTHORIZATION, authorization);
                }
            }
            let request = request
                .body(Full::default())
                .map_err(|_| RegistryError::BadUrl { url: at.to_string() })?;
            let response = self.send(request).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            at = redirected(&at, response.headers(), self.host.plain_redirects)?;
        }
        Err(RegistryError::Redirects { url: uri.to_string() })
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RegistryError> {
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("coracle/", env!("CARGO_PKG_VERSION"))),
        );
        // A plain request is the proxy's to read; inside a CONNECT it would be the registry's.
        let plain = request.uri().scheme_str() == Some("http");
        if let Some(proxy) = self.proxies.of(request.uri()).filter(|_| plain)
            && let Some(authorization) = &proxy.authorization
        {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let url = shown(request.uri());
        match tokio::time::timeout(HEADER_TIMEOUT, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Request { url, source }),
            Err(_) => Err(RegistryError::Timeout {
                url,
                seconds: HEADER_TIMEOUT.as_secs(),
            }),
        }
    }

    /// Turns a status that is no success into an error with the registry's own words.
    async fn checked(
        &self,
        uri: &Uri,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let body = read_all(uri, response, ERROR_BODY_MAX).await.unwrap_or_default();
        Err(RegistryError::Status {
            url: shown(uri),
            status,
            words: words(&body),
        })
    }
}

/// Whether and how long to wait before asking again.
fn retry_pause(response: &Response<Incoming>, wait: Duration) -> Option<Duration> {
    let status = response.status();
    let later = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if !later.contains(&status) && !status.is_server_error() {
        return None;
    }
    let asked = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Some(asked.map_or(wait, Duration::from_secs).min(LONGEST_WAIT))
}
