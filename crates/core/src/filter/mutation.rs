//! Changes of headers that somebody asks for while a request is on its way.

use http::header::{self, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{append, is_protected};

/// One change of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// Overwritten or made.
    Set(HeaderName, HeaderValue),
    /// Appended to what is there.
    Append(HeaderName, HeaderValue),
    /// Made, unless it is there.
    AddIfAbsent(HeaderName, HeaderValue),
    /// Overwritten, if it is there.
    OverwriteIfPresent(HeaderName, HeaderValue),
    /// Deleted.
    Remove(HeaderName),
}

/// Changes in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMutation(pub Vec<HeaderChange>);

impl HeaderMutation {
    /// Changes the headers. Nothing that frames the message or belongs to its connection, and not the `Host`: whoever asks
    /// for a change may say what a request has, not where it ends or where it goes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for change in &self.0 {
            change.apply(headers);
        }
    }
}

impl HeaderChange {
    /// The header.
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Set(name, _)
            | Self::Append(name, _)
            | Self::AddIfAbsent(name, _)
            | Self::OverwriteIfPresent(name, _)
            | Self::Remove(name) => name,
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        if is_protected(self.name()) || *self.name() == header::HOST {
            return;
        }
        match self {
            Self::Set(name, value) => drop(headers.insert(name, value.clone())),
            Self::Append(name, value) => append(headers, name, value),
            Self::AddIfAbsent(name, value) => {
                if let Entry::Vacant(entry) = headers.entry(name) {
                    entry.insert(value.clone());
                }
            }
            Self::OverwriteIfPresent(name, value) => {
                if let Entry::Occupied(mut entry) = headers.entry(name) {
                    entry.insert(value.clone());
                }
            }
            Self::Remove(name) => drop(headers.remove(name)),
        }
    }
}
