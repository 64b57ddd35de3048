//! Answers to a registry's challenges, with a token service's help where it names one.

use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};

use super::Client;
use crate::registry::RegistryError;
use crate::registry::auth::{Challenge, Credentials, Token, percent_encode};
use crate::registry::body::read_document;

const TOKEN_MAX: u64 = 1 << 20;

impl Client {
    pub(super) async fn answer(
        &self,
        challenges: &[Challenge],
    ) -> Result<Option<HeaderValue>, RegistryError> {
        for challenge in challenges {
            match (challenge, &self.credentials) {
                (_, Some(Credentials::Registry(_))) => return Ok(None),
                (Challenge::Basic, Some(Credentials::Basic(basic))) => return Ok(Some(basic.clone())),
                (Challenge::Basic, _) => {}
                (
                    Challenge::Bearer {
                        realm,
                        service,
                        scope,
                    },
                    _,
                ) => {
                    let scope = scope
                        .clone()
                        .unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                    return self.token(realm, service.as_deref(), &scope).await.map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Asks the token service (distribution spec of the docker registry, "token authentication").
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<HeaderValue, RegistryError> {
        let bad = || RegistryError::BadRealm {
            host: self.host.authority.clone(),
            realm: realm.to_owned(),
        };
        let base: Uri = realm.parse().map_err(|_| bad())?;
        let downgrade = self.host.https && base.scheme_str() != Some("https");
        if !matches!(base.scheme_str(), Some("http" | "https")) || (downgrade && !self.host.plain_redirects) {
            return Err(bad());
        }
        // A registry reached over TLS must not send credentials elsewhere in the clear.
        let credentials = self.credentials.as_ref().filter(|_| !downgrade);
        let service = service
            .map(|s| format!("service={}&", percent_encode(s)))
            .unwrap_or_default();
        let fields = format!("{service}scope={}", percent_encode(scope));
        let separator = if realm.contains('?') { '&' } else { '?' };
        let with_query: Uri = format!("{realm}{separator}{fields}").parse().map_err(|_| bad())?;
        let request = match credentials {
            Some(Credentials::Identity(refresh)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=coracle&{fields}&refresh_token={}",
                    percent_encode(refresh)
                );
                let request = Request::builder().method(Method::POST).uri(&base);
                request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form))
            }
            Some(Credentials::Basic(basic)) => Request::builder()
                .uri(&with_query)
                .header(AUTHORIZATION, basic.clone())
                .body(Full::default()),
            _ => Request::builder().uri(&with_query).body(Full::default()),
        };
        let response = self.send(request.map_err(|_| bad())?).await?;
        let response = self.checked(&base, response).await?;
        let bytes = read_document(&base, response, TOKEN_MAX).await?;
        let token = serde_json::from_slice::<Token>(&bytes)
            .ok()
            .and_then(Token::header);
        token.ok_or_else(|| RegistryError::BadToken {
            realm: realm.to_owned(),
        })
    }
}
