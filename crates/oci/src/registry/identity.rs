//! Identity tokens, which `docker login` leaves in place of a password for some registries, such as
//! Azure's. They open nothing themselves: the token service that the registry names takes them in exchange
//! for an access token, by OAuth 2: <https://distribution.github.io/distribution/spec/auth/oauth/>.

use oci_distribution::{Reference, RegistryOperation};
use serde::Deserialize;

use super::RegistryError;
use crate::credentials::Credential;

/// Who asks.
const CLIENT: &str = "anneal";

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    token: Option<String>,
}

/// A way to a registry before it is logged in to.
pub(super) struct Door<'a> {
    pub(super) http: &'a reqwest::Client,
    pub(super) scheme: &'a str,
    pub(super) reference: &'a Reference,
    pub(super) credential: &'a Credential,
}

impl Door<'_> {
    /// An access token for the repository; none where the registry wants no tokens.
    pub(super) async fn exchange(
        &self,
        identity: &str,
        operation: &RegistryOperation,
    ) -> Result<Option<String>, RegistryError> {
        let url = format!("{}://{}/v2/", self.scheme, self.reference.resolve_registry());
        let challenge = self.http.get(url).send().await.map_err(|error| self.broken(error))?;
        let challenge = challenge.headers().get(reqwest::header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|header| header.to_str().ok()).unwrap_or_default();
        let Some(realm) = parameter(challenge, "realm").filter(|_| is_bearer(challenge)) else {
            return Ok(None);
        };
        // The token goes where the registry says, and over no weaker connection than to the registry.
        if self.scheme == "https" && !realm.starts_with("https://") {
            return Err(self.refused(401, "the token service is not reached over https"));
        }
        let actions = match operation {
            RegistryOperation::Pull => "pull",
            RegistryOperation::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let service = parameter(challenge, "service").unwrap_or_default();
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service.as_str()),
            ("scope", scope.as_str()),
            ("client_id", CLIENT),
            ("refresh_token", identity),
        ];
        let form = reqwest::Url::parse_with_params("http://form/", fields);
        let body = form.ok().and_then(|form| form.query().map(str::to_owned)).unwrap_or_default();
        let kind = "application/x-www-form-urlencoded";
        let request = self.http.post(&realm).header("Content-Type", kind).body(body);
        let answer = request.send().await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.broken(error))?;
        if !status.is_success() {
            // Services differ in how they say that a token is no longer good.
            let refused = if status.is_client_error() { 401 } else { status.as_u16() };
            return Err(self.refused(refused, &text));
        }
        let answer: Option<Answer> = serde_json::from_str(&text).ok();
        let token = answer.and_then(|answer| answer.access_token.or(answer.token));
        let none = || self.refused(401, "the token service gave no token");
        token.map(Some).ok_or_else(none)
    }

    fn broken(&self, error: reqwest::Error) -> RegistryError {
        RegistryError::from_client("log in to", self.reference, self.credential, error.into())
    }

    fn refused(&self, status: u16, body: &str) -> RegistryError {
        RegistryError::from_answer("log in to", self.reference, self.credential, status, body)
    }
}

fn is_bearer(challenge: &str) -> bool {
    challenge.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
}

/// A quoted parameter of a challenge such as `Bearer realm="https://…",service="…"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let challenge = r#"Bearer realm="https://a.example/oauth2/token",service="a.example""#;
        assert!(is_bearer(challenge) && !is_bearer("Basic realm=\"x\"") && !is_bearer(""));
        assert_eq!(
            parameter(challenge, "realm").as_deref(),
            Some("https://a.example/oauth2/token")
        );
        assert_eq!(parameter(challenge, "service").as_deref(), Some("a.example"));
        assert_eq!(parameter(challenge, "scope"), None);
    }
}
