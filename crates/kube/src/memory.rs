//! Answers of the API server about tokens and rights, kept for a while: nobody who asks often costs it more than one question.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::ReviewError;

/// Longest token looked at, in bytes.
pub(crate) const MAX_TOKEN: usize = 16 << 10;

/// The hash of a question: the tokens themselves aren't kept.
pub(crate) type Key = [u8; 32];

/// The key of a question.
pub(crate) fn key_of(question: impl AsRef<[u8]>) -> Key {
    Sha256::digest(question.as_ref()).into()
}

/// The key of a token that is worth asking about.
///
/// # Errors
/// [`ReviewError::Invalid`] if it is empty, or has more than [`MAX_TOKEN`] bytes.
pub(crate) fn key_of_token(token: &str) -> Result<Key, ReviewError> {
    match token.len() {
        1..=MAX_TOKEN => Ok(key_of(token)),
        bytes => Err(ReviewError::Invalid(format!("the token has {bytes} bytes"))),
    }
}

/// Answers of late by the hash of the question, so many at most.
pub(crate) struct Memory<T> {
    believed: Duration,
    most: usize,
    kept: Mutex<HashMap<Key, (Instant, T)>>,
}

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("believed", &self.believed).field("most", &self.most).finish_non_exhaustive()
    }
}

impl<T: Clone> Memory<T> {
    /// Believes an answer for so long, and keeps `most` of them.
    pub(crate) fn new(believed: Duration, most: usize) -> Self {
        Self { believed, most, kept: Mutex::default() }
    }

    /// The answer, if it is there and still believed.
    pub(crate) fn known(&self, key: &Key) -> Option<T> {
        let kept = self.kept.lock();
        kept.get(key).filter(|(asked, _)| asked.elapsed() < self.believed).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer from when it was asked for: what is older than that may have been changed since.
    pub(crate) fn remember(&self, key: Key, asked: Instant, answer: T) {
        let mut kept = self.kept.lock();
        if kept.len() >= self.most {
            kept.retain(|_, (asked, _)| asked.elapsed() < self.believed);
        }
        // A flood of tokens costs the memory of this, never more.
        if kept.len() < self.most {
            kept.insert(key, (asked, answer));
        }
    }

    /// Keeps an answer no longer.
    pub(crate) fn forget(&self, key: &Key) {
        self.kept.lock().remove(key);
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.lock().len()
    }
}
