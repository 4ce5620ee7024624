//! Header modifiers.

use http::header::{self, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::route::HeaderModifier;

/// Whether no filter may write a header: it frames the message or belongs to one connection (RFC 9110, section
/// 7.6.1, and RFC 9112, section 6). Pseudo-headers are no [`HeaderName`]s. `Host` is not protected: a modifier may
/// set it, which replaces the authority.
pub fn is_protected(name: &HeaderName) -> bool {
    const PROTECTED: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    PROTECTED.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

impl HeaderModifier {
    /// Changes the headers: set overwrites, add appends, remove deletes. Skips protected names and `Host`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let writable = |name: &HeaderName| !is_protected(name) && *name != header::HOST;
        for (name, value) in self.set.iter().filter(|(name, _)| writable(name)) {
            headers.insert(name, value.clone());
        }
        for (name, value) in self.add.iter().filter(|(name, _)| writable(name)) {
            append(headers, name, value);
        }
        for name in self.remove.iter().filter(|name| writable(name)) {
            headers.remove(name);
        }
    }

    /// The authority this modifier sets, by `Host`.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.set.iter().find(|(name, _)| *name == header::HOST).map(|(_, value)| value)
    }
}

/// Appends to what is there: one header with a comma-joined value. `Set-Cookie` cannot be joined (RFC 9110,
/// section 5.3) and gets a line of its own; cookies are joined with `; `.
pub(super) fn append(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if *name == header::SET_COOKIE {
        headers.append(name, value.clone());
        return;
    }
    match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value.clone());
        }
        Entry::Occupied(mut entry) => {
            let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b"," };
            let parts: Vec<&[u8]> = entry.iter().chain([value]).map(HeaderValue::as_bytes).collect();
            // Values that were valid stay so when joined by ASCII.
            if let Ok(joined) = HeaderValue::from_bytes(&parts.join(separator)) {
                entry.insert(joined);
            }
        }
    }
}
