//! Another attempt, for what may pass.

use crate::options::{Event, Options};
use crate::registry::RegistryError;

/// Calls `attempt` until it succeeds, fails for good, or the attempts are used up.
///
/// A wait lies between two attempts, doubling each time.
pub(crate) async fn retry<T>(
    options: &Options,
    mut attempt: impl AsyncFnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let attempts = options.attempts.max(1);
    let (mut number, mut wait) = (1, options.backoff);
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if number >= attempts || !error.may_pass() => return Err(error),
            Err(error) => error,
        };
        tracing::debug!(%error, number, "trying again");
        options.tell(&Event::Retry { attempt: number, attempts, wait, reason: error.to_string() });
        tokio::time::sleep(wait).await;
        number += 1;
        wait *= 2;
    }
}
