//! What was tried, in front of what the kernel said.

use std::fmt::{self, Display};
use std::io;

/// Adds what was tried to an `io::Result`; the [`io::ErrorKind`] stays, so that callers can still classify.
pub trait ErrorContext<T> {
    /// `Err(e)` becomes an error of the same kind that reads `what: e`. [`os_error`] still finds its number.
    ///
    /// # Errors
    /// The error it was given, with `what` in front.
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> ErrorContext<T> for Result<T, E> {
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> io::Result<T> {
        self.map_err(|e| {
            let source: io::Error = e.into();
            io::Error::new(source.kind(), Contextual { what: what().to_string(), source })
        })
    }
}

/// The `errno` of an error, also below the contexts that this crate put in front of it.
pub fn os_error(error: &io::Error) -> Option<i32> {
    let mut error = error;
    loop {
        if let Some(number) = error.raw_os_error() {
            return Some(number);
        }
        error = &error.get_ref()?.downcast_ref::<Contextual>()?.source;
    }
}

/// Whether an error says that a file system has no room: it may have some later.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[derive(Debug)]
struct Contextual {
    what: String,
    source: io::Error,
}

impl Display for Contextual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

// No `source()`: the text already holds it, and a report that prints chains would print it twice.
impl std::error::Error for Contextual {}
