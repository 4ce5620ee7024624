//! Regular expressions of matches.

use regex::Regex;

/// A compiled regular expression; equal if its source is.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// Every text that matches starts with this, so that most of many expressions cost one comparison.
    literal_prefix: Box<str>,
}

impl Pattern {
    /// Compiles `source`, anchored at both ends; memory is bounded to 1 MiB.
    ///
    /// # Errors
    /// The syntax error, or that the expression is too large.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        // On its own first: `a)|(?:b` is only an expression inside the anchors, and would slip out of them.
        regex::RegexBuilder::new(source).size_limit(1 << 20).build()?;
        let anchored = format!("^(?:{source})$");
        let regex = regex::RegexBuilder::new(&anchored).size_limit(1 << 20).build()?;
        Ok(Self { regex, literal_prefix: literal_prefix(source).into() })
    }

    /// The user's expression, without the anchors.
    pub fn source(&self) -> &str {
        let anchored = self.regex.as_str();
        anchored.strip_prefix("^(?:").and_then(|s| s.strip_suffix(")$")).unwrap_or(anchored)
    }

    /// What every match starts with, as far as that is easily seen.
    pub fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        text.starts_with(&*self.literal_prefix) && self.regex.is_match(text)
    }
}

/// What every match starts with: the characters before the first that means something, without one that may be
/// repeated zero times. Nothing where there is an alternative, at whatever depth.
fn literal_prefix(source: &str) -> &str {
    const SPECIAL: &[char] = &['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$', '#', ' '];
    if source.contains('|') {
        return "";
    }
    let literal = source.split(SPECIAL).next().unwrap_or_default();
    let optional = source.strip_prefix(literal).is_some_and(|rest| rest.starts_with(['*', '?', '{']));
    match literal.char_indices().next_back() {
        Some((last, _)) if optional => literal.get(..last).unwrap_or_default(),
        _ => literal,
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_prefix_is_what_every_match_starts_with() {
        for (source, prefix) in [
            ("/team-7/[0-9]+", "/team-7/"),
            ("/a.*", "/a"),
            ("/ab*", "/a"),
            ("/ab?c", "/a"),
            ("/ab{0,2}", "/a"),
            ("/ab+", "/ab"),
            ("/é?", "/"),
            ("é*", ""),
            ("/a|/b", ""),
            ("/a(b|c)", ""),
            ("(?i)/a", ""),
            ("/a(?i)b", "/a"),
            ("/a\\.b", "/a"),
            ("^/a$", ""),
            ("", ""),
        ] {
            assert_eq!(literal_prefix(source), prefix, "{source}");
        }
        for (source, text) in [("/ab*", "/a"), ("/ab?c", "/ac"), ("/ab{0,2}", "/a"), ("/a|/b", "/b"), ("(?i)/a", "/A")]
        {
            assert!(Pattern::new(source).unwrap().is_match(text), "{source} {text}");
        }
    }

    #[test]
    fn an_expression_cannot_slip_out_of_its_anchors() {
        assert!(Pattern::new("a)|(?:b").is_err());
        let either = Pattern::new("a|b").unwrap();
        assert!(either.is_match("b") && !either.is_match("xb") && !either.is_match("ax"));
        assert_eq!(either.source(), "a|b");
    }
}
