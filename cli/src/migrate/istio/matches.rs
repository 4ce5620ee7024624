//! Which requests a rule is for, as a value: what two matches have in common, and which of them comes first by the Gateway API.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_core::route::Pattern;

/// A text that must be the same, or match an expression as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Text {
    Exact(String),
    Regex(String),
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    Exact(String),
    Regex(String),
    /// Whole segments, without a slash at the end: empty for all paths.
    Prefix(String),
}

/// One match of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub path: Path,
    pub method: Option<String>,
    /// By names in lower case.
    pub headers: BTreeMap<String, Text>,
    pub query: BTreeMap<String, Text>,
    /// The path of the match that this one is a part of: what a rewrite takes away.
    pub base: Path,
}

/// What two conditions have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common<T> {
    Nothing,
    This(T),
    /// Nobody can tell.
    Unknown,
}

/// Where a match stands among others; less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

impl Default for Match {
    fn default() -> Self {
        let all = Path::Prefix(String::new());
        Self { path: all.clone(), method: None, headers: BTreeMap::new(), query: BTreeMap::new(), base: all }
    }
}

/// What every text that matches an expression begins with; `None` if it is no expression.
fn pattern(source: &str) -> Option<Pattern> {
    Pattern::new(source).ok()
}

/// Whether a path is the prefix or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Text {
    fn common(&self, other: &Self) -> Common<Self> {
        match (self, other) {
            (a, b) if a == b => Common::This(a.clone()),
            (Self::Exact(_), Self::Exact(_)) => Common::Nothing,
            (exact @ Self::Exact(text), Self::Regex(source)) | (Self::Regex(source), exact @ Self::Exact(text)) => {
                match pattern(source).map(|it| it.is_match(text)) {
                    Some(true) => Common::This(exact.clone()),
                    Some(false) => Common::Nothing,
                    None => Common::Unknown,
                }
            }
            // Any value but none at all: what a header that only has to be there is written as.
            (Self::Regex(any), other) | (other, Self::Regex(any)) if any == ".*" => Common::This(other.clone()),
            (Self::Regex(_), Self::Regex(_)) => Common::Unknown,
        }
    }

    fn value(&self, name: &str) -> Value {
        match self {
            Self::Exact(text) => json!({ "name": name, "value": text }),
            Self::Regex(text) => json!({ "type": "RegularExpression", "name": name, "value": text }),
        }
    }
}

impl Path {
    fn common(&self, other: &Self) -> Common<Self> {
        match (self, other) {
            (a, b) if a == b => Common::This(a.clone()),
            (Self::Exact(_), Self::Exact(_)) => Common::Nothing,
            (Self::Exact(path), Self::Prefix(prefix)) | (Self::Prefix(prefix), Self::Exact(path)) => {
                if is_below(path, prefix) { Common::This(Self::Exact(path.clone())) } else { Common::Nothing }
            }
            (Self::Prefix(a), Self::Prefix(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                if is_below(long, short) { Common::This(Self::Prefix(long.clone())) } else { Common::Nothing }
            }
            (Self::Exact(path), Self::Regex(source)) | (Self::Regex(source), Self::Exact(path)) => {
                match pattern(source).map(|it| it.is_match(path)) {
                    Some(true) => Common::This(Self::Exact(path.clone())),
                    Some(false) => Common::Nothing,
                    None => Common::Unknown,
                }
            }
            (Self::Regex(source), Self::Prefix(prefix)) | (Self::Prefix(prefix), Self::Regex(source)) => {
                let Some(known) = pattern(source) else { return Common::Unknown };
                let known = known.literal_prefix();
                if prefix.is_empty() || known.starts_with(&format!("{prefix}/")) {
                    return Common::This(Self::Regex(source.clone()));
                }
                let may = prefix.starts_with(known) || known.starts_with(prefix.as_str());
                if may { Common::Unknown } else { Common::Nothing }
            }
            (Self::Regex(a), Self::Regex(b)) => match (pattern(a), pattern(b)) {
                (Some(a), Some(b)) => {
                    let (a, b) = (a.literal_prefix(), b.literal_prefix());
                    if a.starts_with(b) || b.starts_with(a) { Common::Unknown } else { Common::Nothing }
                }
                _ => Common::Unknown,
            },
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Exact(path) => json!({ "type": "Exact", "value": path }),
            Self::Regex(source) => json!({ "type": "RegularExpression", "value": source }),
            Self::Prefix(prefix) if prefix.is_empty() => json!({ "type": "PathPrefix", "value": "/" }),
            Self::Prefix(prefix) => json!({ "type": "PathPrefix", "value": prefix }),
        }
    }
}

/// Both conditions by name.
fn both(a: &BTreeMap<String, Text>, b: &BTreeMap<String, Text>) -> Common<BTreeMap<String, Text>> {
    let mut made = a.clone();
    let mut unknown = false;
    for (name, text) in b {
        let common = match a.get(name) {
            None => Common::This(text.clone()),
            Some(other) => other.common(text),
        };
        match common {
            Common::Nothing => return Common::Nothing,
            Common::Unknown => unknown = true,
            Common::This(text) => drop(made.insert(name.clone(), text)),
        }
    }
    if unknown { Common::Unknown } else { Common::This(made) }
}

impl Match {
    /// The requests that both match, as one match; its `base` is this one's.
    pub fn common(&self, other: &Self) -> Common<Self> {
        let method = match (&self.method, &other.method) {
            (Some(a), Some(b)) if a != b => return Common::Nothing,
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        let path = self.path.common(&other.path);
        let (headers, query) = (both(&self.headers, &other.headers), both(&self.query, &other.query));
        match (path, headers, query) {
            (Common::Nothing, ..) | (_, Common::Nothing, _) | (.., Common::Nothing) => Common::Nothing,
            (Common::This(path), Common::This(headers), Common::This(query)) => {
                Common::This(Self { path, method, headers, query, base: self.base.clone() })
            }
            _ => Common::Unknown,
        }
    }

    /// Whether it matches all that the other does; `false` also if nobody can tell.
    pub fn covers(&self, other: &Self) -> bool {
        match self.common(other) {
            Common::This(both) => both.is_same(other),
            Common::Nothing | Common::Unknown => false,
        }
    }

    /// Whether the conditions are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.path.clone(), it.method.clone(), it.headers.clone(), it.query.clone());
        parts(self) == parts(other)
    }

    /// Its rank, as `weft_core::matching` orders matches.
    pub fn rank(&self) -> Rank {
        let (kind, length) = match &self.path {
            Path::Exact(_) => (0, 0),
            Path::Regex(source) => (1, source.chars().count()),
            Path::Prefix(prefix) => (2, prefix.chars().count()),
        };
        Rank(kind, Reverse(length), self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    /// As an HTTPRoute has it.
    pub fn value(&self) -> Value {
        let mut made = Map::from_iter([("path".to_owned(), self.path.value())]);
        let list = |map: &BTreeMap<String, Text>| map.iter().map(|(name, text)| text.value(name)).collect::<Vec<_>>();
        if !self.headers.is_empty() {
            made.insert("headers".to_owned(), json!(list(&self.headers)));
        }
        if !self.query.is_empty() {
            made.insert("queryParams".to_owned(), json!(list(&self.query)));
        }
        if let Some(method) = &self.method {
            made.insert("method".to_owned(), json!(method));
        }
        Value::Object(made)
    }
}
