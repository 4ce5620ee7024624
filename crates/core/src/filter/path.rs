//! Path modifiers of redirects and rewrites.

use std::borrow::Cow;

use crate::route::PathModifier;

/// The path after a modifier; `prefix_len` is the matched prefix without its trailing slash, `None` if the match
/// was no prefix.
///
/// `None` if a prefix is to be replaced and there was none: the API refuses such a rule.
pub fn replace_path<'a>(modifier: &'a PathModifier, path: &str, prefix_len: Option<usize>) -> Option<Cow<'a, str>> {
    match modifier {
        PathModifier::Full(full) if full.starts_with('/') => Some(Cow::Borrowed(full)),
        PathModifier::Full(full) => Some(Cow::Owned(format!("/{full}"))),
        PathModifier::Prefix(replacement) => {
            let rest = match (prefix_len?, path) {
                // The prefix `/` is this whole path.
                (0, "/") => "",
                (len, _) => path.get(len..).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
            };
            // A trailing slash of the replacement is ignored, as that of a prefix is.
            let replacement = replacement.trim_end_matches('/');
            match (replacement, rest) {
                ("", "") => Some(Cow::Borrowed("/")),
                (_, "") => Some(Cow::Borrowed(replacement)),
                _ => Some(Cow::Owned(format!("{replacement}{rest}"))),
            }
        }
    }
}
