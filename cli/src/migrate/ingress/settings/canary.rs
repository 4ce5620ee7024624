//! Canary Ingresses of ingress-nginx: another backend for some requests of a main Ingress.

use weft_core::route::Pattern;

use crate::migrate::ingress::annotations::Annotations;

/// Which requests go to the canary, in the order in which it is decided: header, cookie, weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    pub header: Option<HeaderRule>,
    pub cookie: Option<String>,
    /// Share and total.
    pub weight: Option<(u32, u32)>,
}

/// A header that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// `always` or `never`.
    Word(String),
    /// A name and its value.
    Value(String, String),
    /// A name and an expression for its value.
    Pattern(String, String),
}

const PARTS: [&str; 6] = [
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-header-pattern",
    "canary-by-cookie",
    "canary-weight",
    "canary-weight-total",
];

/// What a canary says; `None` if the Ingress is none.
pub fn canary(a: &mut Annotations<'_>) -> Option<Canary> {
    if a.flag("canary") != Some(true) {
        a.unneeded("canary", "is none by default");
        a.ineffective(&PARTS, "the Ingress is no canary");
        return None;
    }
    a.became("canary", "rules of the main Ingress's route, and a weight beside its backend");
    let mut made = Canary { header: header(a), ..Canary::default() };
    if let Some(cookie) = a.get("canary-by-cookie") {
        a.became("canary-by-cookie", "matches[].headers of Cookie: always to the canary, never to the other");
        made.cookie = Some(cookie);
    }
    let total = a.number("canary-weight-total").filter(|total| *total > 0).unwrap_or(100);
    if let Some(weight) = a.number("canary-weight") {
        a.became("canary-weight", "weights of backendRefs");
        made.weight = Some((weight.min(total), total));
    }
    a.became("canary-weight-total", "weights of backendRefs");
    Some(made)
}

fn header(a: &mut Annotations<'_>) -> Option<HeaderRule> {
    let Some(name) = a.get("canary-by-header") else {
        a.ineffective(&["canary-by-header-value", "canary-by-header-pattern"], "there is no canary-by-header");
        return None;
    };
    a.became("canary-by-header", "matches[].headers");
    if let Some(value) = a.get("canary-by-header-value") {
        a.became("canary-by-header-value", "matches[].headers");
        a.ineffective(&["canary-by-header-pattern"], "canary-by-header-value comes first");
        return Some(HeaderRule::Value(name, value));
    }
    let Some(pattern) = a.get("canary-by-header-pattern") else { return Some(HeaderRule::Word(name)) };
    // There it need only be found somewhere in the value.
    let whole = format!(".*(?:{pattern}).*");
    if Pattern::new(&whole).is_err() {
        let remedy = "write the match by hand";
        a.left_out("canary-by-header-pattern", "is not an expression in RE2 syntax", remedy);
        return None;
    }
    a.became("canary-by-header-pattern", "matches[].headers, RegularExpression");
    Some(HeaderRule::Pattern(name, whole))
}

/// What else a canary has: the controller takes it from the main Ingress.
pub fn rest(a: &mut Annotations<'_>) {
    for (name, _) in a.starting("") {
        a.ineffective(&[name.as_str()], "a canary has this of its main Ingress");
    }
}
