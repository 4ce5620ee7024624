//! Background work inside a namespace, ended by a guard.

use std::future::Future;
use std::thread::JoinHandle;

use anyhow::{Result, bail};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::netns::Netns;

/// A future on a thread of its own inside a [`Netns`]. Dropping the task drops the future at its next await and waits
/// for that, so that its sockets are gone afterwards.
#[derive(Debug)]
pub struct Task<T> {
    cancel: Option<DropGuard>,
    thread: Option<JoinHandle<Result<Option<T>>>>,
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn<F: Future<Output = T>>(place: Netns, make: impl FnOnce() -> F + Send + 'static) -> Self {
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let thread = std::thread::spawn(move || {
            place.enter()?;
            let work = async { make().await };
            Ok(runtime().block_on(cancelled.run_until_cancelled_owned(work)))
        });
        Self { cancel: Some(cancel.drop_guard()), thread: Some(thread) }
    }

    /// Waits for the future's result.
    ///
    /// # Errors
    /// When the namespace couldn't be entered or the future panicked.
    pub fn join(mut self) -> Result<T> {
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            Some(Ok(Ok(Some(value)))) => Ok(value),
            Some(Ok(Err(e))) => Err(e),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(Ok(None))) | None => bail!("the task was stopped"),
        }
    }

    /// Whether the future has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        drop(self.cancel.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A runtime like a proxy worker's: one thread, all drivers.
pub(crate) fn runtime() -> Runtime {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => panic!("tokio runtime: {e}"),
    }
}
