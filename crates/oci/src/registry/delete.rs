//! Removing a manifest, for which the other client has no call.
//!
//! Registries with tokens give the right to delete only to who asks for it by name.

use oci_distribution::secrets::RegistryAuth;
use reqwest::{RequestBuilder, Response, StatusCode, header};

use super::{Connection, RegistryError};

/// Completes "cannot …" in errors.
const DOING: &str = "remove";

impl Connection {
    /// Removes the manifest of this digest, and with it its tags. One that is gone is no error.
    pub(crate) async fn delete(&self, digest: &str) -> Result<(), RegistryError> {
        let reference = &self.reference;
        let (registry, repository) = (reference.resolve_registry(), reference.repository());
        let url = format!("{}://{registry}/v2/{repository}/manifests/{digest}", self.scheme);
        let mut answer = self.send(self.basic(self.http.delete(&url))).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = self.token(&answer).await?
        {
            answer = self.send(self.http.delete(&url).bearer_auth(token)).await?;
        }
        match answer.status() {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            status => {
                let body = answer.text().await.unwrap_or_default();
                Err(self.answer(DOING, status.as_u16(), &body))
            }
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request.send().await.map_err(|e| self.fault(DOING, e.into()))
    }

    fn basic(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credential.auth {
            RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
            RegistryAuth::Bearer(token) => request.bearer_auth(token),
            RegistryAuth::Anonymous => request,
        }
    }

    /// A token with the right to delete, where the answer says who gives one.
    async fn token(&self, answer: &Response) -> Result<Option<String>, RegistryError> {
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((realm, service)) = bearer(challenge) else { return Ok(None) };
        let Ok(mut url) = reqwest::Url::parse(&realm) else { return Ok(None) };
        let scope = format!("repository:{}:pull,push,delete", self.reference.repository());
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let given = self.send(self.basic(self.http.get(url))).await?;
        let text = given.text().await.unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let token = value.get("token").or_else(|| value.get("access_token"));
        Ok(token.and_then(|token| token.as_str()).map(str::to_owned))
    }
}

/// Realm and service of a challenge such as `Bearer realm="https://…",service="…"`.
fn bearer(challenge: &str) -> Option<(String, Option<String>)> {
    let (scheme, rest) = challenge.split_once(' ')?;
    let field = |name: &str| {
        let (_, value) = rest.split_once(&format!("{name}=\""))?;
        value.split_once('"').map(|(value, _)| value.to_owned())
    };
    scheme.eq_ignore_ascii_case("bearer").then_some(())?;
    Some((field("realm")?, field("service")))
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn the_token_service_is_read_from_a_challenge() {
        let text = r#"Bearer realm="https://a.b/token",service="a.b",scope="repository:x:delete""#;
        let expected = ("https://a.b/token".to_owned(), Some("a.b".to_owned()));
        assert_eq!(bearer(text), Some(expected));
        assert_eq!(bearer(r#"bearer realm="https://a.b/""#), Some(("https://a.b/".into(), None)));
        assert_eq!(bearer(r#"Basic realm="x""#), None);
    }
}
