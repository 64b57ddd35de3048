//! Credentials of a pull, and the challenges they answer: Basic (RFC 7617) and the distribution project's token flow (Bearer).

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use hyper::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::hosts::Host;

/// Credentials as CRI's AuthConfig has them; an empty field is unset.
#[derive(Clone, Default)]
pub struct Auth {
    /// User name, with `password`.
    pub username: String,
    /// Password.
    pub password: String,
    /// `base64(username:password)`, instead of the two.
    pub auth: String,
    /// Only send them to this registry (host, or a URL as docker's configuration has).
    pub server_address: String,
    /// An OAuth2 refresh token for the registry's token service.
    pub identity_token: String,
    /// A token to send to the registry as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// What is wrong with credentials.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// `auth` is not base64.
    #[error("auth is not base64(username:password)")]
    Auth,
    /// A token has characters that no header can carry.
    #[error("{0} has characters that are not allowed")]
    Characters(&'static str),
}

/// Checked credentials.
#[derive(Clone)]
pub(super) enum Credentials {
    /// The value of a Basic Authorization header.
    Basic(HeaderValue),
    Identity(String),
    Registry(HeaderValue),
}

impl Credentials {
    /// Checks `auth`; `None` when it is empty or not meant for `host`, which is asked for images of `domain`.
    pub(super) fn plan(auth: &Auth, domain: &str, host: &Host) -> Result<Option<Self>, AuthError> {
        if !meant_for(&auth.server_address, domain, host) {
            return Ok(None);
        }
        let header = |text: String, field| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| AuthError::Characters(field))?;
            value.set_sensitive(true);
            Ok(value)
        };
        if !auth.registry_token.is_empty() {
            return Ok(Some(Self::Registry(header(
                format!("Bearer {}", auth.registry_token),
                "registry_token",
            )?)));
        }
        if !auth.identity_token.is_empty() {
            return Ok(Some(Self::Identity(auth.identity_token.clone())));
        }
        if !auth.username.is_empty() || !auth.password.is_empty() {
            let pair = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
            return Ok(Some(Self::Basic(header(format!("Basic {pair}"), "username")?)));
        }
        if auth.auth.is_empty() {
            return Ok(None);
        }
        let pair = STANDARD.encode(pair_of(&auth.auth).ok_or(AuthError::Auth)?);
        Ok(Some(Self::Basic(header(format!("Basic {pair}"), "auth")?)))
    }
}

/// `username:password` from its base64, which files hold wrapped, in either alphabet, with more padding than is right or with
/// none, and with the zeros behind it that docker's own format had.
fn pair_of(auth: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireNone),
    );
    let digit = |character: char| match character {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    let kept = auth.chars().filter(|c| !c.is_ascii_whitespace() && *c != '\0');
    let text: String = kept.map(digit).collect();
    let mut pair = LENIENT.decode(text.trim_end_matches('=')).ok()?;
    while pair.last() == Some(&0) {
        pair.pop();
    }
    pair.contains(&b':').then_some(pair)
}

/// Whether credentials for `server_address` may be sent to a host. Without an address they are meant for the registry, not for
/// whoever mirrors it.
fn meant_for(server_address: &str, domain: &str, host: &Host) -> bool {
    let rest = server_address
        .split_once("://")
        .map_or(server_address, |(_, rest)| rest);
    let named = match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        named => named,
    };
    let is = |other: &str| named.eq_ignore_ascii_case(other);
    is(&host.authority) || (host.registry && (named.is_empty() || is(domain)))
}

/// A parsed `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header value; `None` for schemes that are not known here.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let (scheme, parameters) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut found = Self::Bearer {
            realm: String::new(),
            service: None,
            scope: None,
        };
        let Self::Bearer {
            realm,
            service,
            scope,
        } = &mut found
        else {
            return None;
        };
        for (key, value) in parse_parameters(parameters) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => *realm = value,
                "service" => *service = Some(value),
                "scope" => *scope = Some(value),
                _ => {}
            }
        }
        Some(found)
    }
}

/// `key="value", key=value, ...`; quoted values may hold commas and backslash escapes.
fn parse_parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let mut value = String::new();
        let mut end = after.len();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    other => value.push(other),
                }
            }
        } else {
            end = after.find(',').unwrap_or(after.len());
            value = after.get(..end).unwrap_or_default().trim().to_owned();
        }
        parameters.push((key, value));
        rest = after.get(end..).unwrap_or_default();
    }
    parameters
}

/// What a token service answers.
#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    /// The Authorization header for it.
    pub(super) fn header(self) -> Option<HeaderValue> {
        // Some services fill one of the two and leave the other empty.
        let given = [self.token, self.access_token];
        let token = given.into_iter().flatten().find(|token| !token.is_empty())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Percent-encodes a query or form value (RFC 3986, 2.3 says what stays).
pub(super) fn percent_encode(text: &str) -> String {
    const ESCAPED: AsciiSet = NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, &ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            percent_encode("repository:a/b:pull x"),
            "repository%3Aa%2Fb%3Apull%20x"
        );
    }

    #[test]
    fn challenges_are_parsed() {
        let bearer = r#"Bearer realm="https://auth.io/token?a=b,c",service="reg io", scope="repository:a/b:pull,push",error=x"#;
        assert_eq!(
            Challenge::parse(bearer).unwrap(),
            Challenge::Bearer {
                realm: "https://auth.io/token?a=b,c".to_owned(),
                service: Some("reg io".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            }
        );
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        for odd in ["Bearer", "Bearer realm=\"", "Bearer =,=\"\\", "Bearer realm"] {
            let _ = Challenge::parse(odd);
        }
    }

    fn host(authority: &str, registry: bool) -> Host {
        Host {
            authority: authority.to_owned(),
            registry,
            ..Host::origin("a.io")
        }
    }

    #[test]
    fn credentials_only_go_to_their_registry() {
        let plan = |server: &str, host: &Host| {
            let auth = Auth {
                username: "u".to_owned(),
                password: "p".to_owned(),
                server_address: server.to_owned(),
                ..Auth::default()
            };
            Credentials::plan(&auth, "a.io", host).unwrap().is_some()
        };
        let (registry, elsewhere) = (host("a.io", true), host("10.0.0.1:5000", true));
        for server in ["", "a.io", "A.io", "https://a.io/v2/"] {
            assert!(plan(server, &registry) && plan(server, &elsewhere), "{server}");
        }
        assert!(!plan("b.io", &registry) && !plan("b.io", &elsewhere));
        let mirror = host("m.io", false);
        assert!(plan("m.io", &mirror) && plan("https://m.io/", &mirror));
        for server in ["", "a.io", "https://a.io/v2/", "b.io"] {
            assert!(!plan(server, &mirror), "{server}");
        }
        let secret = Auth {
            password: "secret".to_owned(),
            ..Auth::default()
        };
        assert!(!format!("{secret:?}").contains("secret"));
    }

    #[test]
    fn auth_is_read_however_it_is_padded() {
        let plan = |text: &str| {
            let auth = Auth {
                auth: text.to_owned(),
                ..Auth::default()
            };
            Credentials::plan(&auth, "a.io", &host("a.io", true))
        };
        // user:pass, of which the last has zeros behind it; and u:~?~? in both alphabets
        for text in [
            "dXNlcjpwYXNz",
            " dXNlcjpwYXNz\n",
            "dXNl\ncjpw\r\nYXNz",
            "dXNlcjpwYXNz==",
            "dXNlcjpwYXNzAAA=",
            "dXNlcjpwYXNzAA",
        ] {
            match plan(text).unwrap() {
                Some(Credentials::Basic(value)) => assert_eq!(value, "Basic dXNlcjpwYXNz", "{text}"),
                _ => panic!("{text}"),
            }
        }
        for text in ["dTp-P34_", "dTp+P34/"] {
            match plan(text).unwrap() {
                Some(Credentials::Basic(value)) => assert_eq!(value, "Basic dTp+P34/", "{text}"),
                _ => panic!("{text}"),
            }
        }
        for bad in ["no base64!", "dXNlcg==", "="] {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_that_is_not_empty_counts() {
        let header = |text: &str| serde_json::from_str::<Token>(text).unwrap().header();
        for text in [
            r#"{"token":"","access_token":"t"}"#,
            r#"{"token":null,"access_token":"t"}"#,
            r#"{"token":"t","access_token":""}"#,
            r#"{"access_token":"t","expires_in":"300"}"#,
        ] {
            assert_eq!(header(text).unwrap(), "Bearer t", "{text}");
        }
        assert!(header(r#"{"token":""}"#).is_none());
    }
}
