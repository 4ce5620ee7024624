//! Names, versions and bytes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The type of a resource, as `type.googleapis.com/<message>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeUrl(Arc<str>);

impl TypeUrl {
    /// Wraps the text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TypeUrl {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Type and name of a resource.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName {
    /// Its type.
    pub type_url: TypeUrl,
    /// Its name within the type.
    pub name: Arc<str>,
}

impl ResourceName {
    /// The name of a resource of a type.
    pub fn new(type_url: TypeUrl, name: impl AsRef<str>) -> Self {
        Self { type_url, name: Arc::from(name.as_ref()) }
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.type_url, self.name)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A version: a hash of the content, so that it means the same on every replica and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of some content.
    pub fn of(body: &[u8]) -> Self {
        let digest = Sha256::digest(body);
        Self(digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte)))
    }

    /// Reads the text of a version; `None` if it isn't one of ours, which then differs from all of them.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A resource as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its name.
    pub name: ResourceName,
    /// Its encoded message.
    pub body: Bytes,
}

/// A change of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// New or different.
    Set(Encoded),
    /// Gone.
    Remove(ResourceName),
}

impl Update {
    /// The name of what changed.
    pub fn name(&self) -> &ResourceName {
        match self {
            Self::Set(encoded) => &encoded.name,
            Self::Remove(name) => name,
        }
    }
}
