//! What a controller tells a running server to hold.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::declared::Declarations;

/// The newest declaration that was told.
#[derive(Debug, Default)]
pub struct Orders {
    told: Mutex<Option<Declarations>>,
    news: Notify,
}

impl Orders {
    /// Takes a declaration, unless a newer one was told before.
    pub fn tell(&self, new: Declarations) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref().is_none_or(|old| old.sequence < new.sequence) {
            *told = Some(new);
            self.news.notify_one();
        }
    }

    /// Asks for a look at what is served, which may be other than it was.
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    pub(super) fn newest(&self) -> Option<Declarations> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for another declaration.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}
