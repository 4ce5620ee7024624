//! Compares a page with the catalogue, for tests.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::find;
use crate::family::{Component, Family, Kind};

/// What is wrong with a component's page in the text format: families that the catalogue doesn't have or gives to others,
/// another kind, other labels, a family twice or in pieces, samples without a head. Empty when all is well.
pub fn check(page: &str, component: Component) -> Vec<String> {
    let mut checked = Checked { component, current: None, seen: BTreeSet::new(), wrong: BTreeSet::new() };
    page.lines().for_each(|line| checked.line(line));
    checked.wrong.into_iter().collect()
}

struct Checked<'a> {
    component: Component,
    current: Option<(&'a str, Option<&'static Family>)>,
    seen: BTreeSet<&'a str>,
    wrong: BTreeSet<String>,
}

impl<'a> Checked<'a> {
    fn line(&mut self, line: &'a str) {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
            self.head(name, kind);
        } else if !line.is_empty() && !line.starts_with('#') {
            self.sample(line);
        }
    }

    fn head(&mut self, name: &'a str, kind: &str) {
        if !self.seen.insert(name) {
            self.wrong.insert(format!("{name} is there twice"));
        }
        let family = find(name);
        self.current = Some((name, family));
        let Some(family) = family else {
            self.wrong.insert(format!("{name} isn't in the catalogue"));
            return;
        };
        if family.kind.as_str() != kind {
            self.wrong.insert(format!("{name} is a {kind}, in the catalogue a {}", family.kind.as_str()));
        }
        if !family.components.contains(&self.component) {
            self.wrong.insert(format!("{name} isn't the {}'s", self.component.as_str()));
        }
    }

    fn sample(&mut self, line: &str) {
        let Some((sampled, labels)) = split(line) else {
            self.wrong.insert(format!("not a sample: {line}"));
            return;
        };
        let (family, is_histogram) = match self.current {
            Some((_, Some(family))) => (family, family.kind == Kind::Histogram),
            // What the catalogue doesn't have was told of.
            Some((name, None)) if sampled.starts_with(name) => return,
            _ => {
                self.wrong.insert(format!("{sampled} has no head"));
                return;
            }
        };
        let suffix = sampled.strip_prefix(family.name);
        let fits = match suffix {
            Some("") => !is_histogram,
            Some("_bucket" | "_sum" | "_count") => is_histogram,
            _ => false,
        };
        if !fits {
            self.wrong.insert(format!("{sampled} stands among the samples of {}", family.name));
            return;
        }
        let expected: BTreeSet<&str> =
            family.label_names().chain((suffix == Some("_bucket")).then_some("le")).collect();
        let found: BTreeSet<&str> = labels.keys().copied().collect();
        if found != expected {
            self.wrong.insert(format!("{sampled} has the labels {found:?}, in the catalogue {expected:?}"));
        }
    }
}

/// The name and the labels of a sample.
fn split(line: &str) -> Option<(&str, BTreeMap<&str, &str>)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = BTreeMap::new();
    if rest.starts_with(' ') {
        return Some((name, labels));
    }
    loop {
        rest = rest.get(1..)?;
        let (label, value) = rest.split_once("=\"")?;
        let close = closing(value)?;
        labels.insert(label, value.get(..close)?);
        rest = value.get(close + 1..)?;
        match rest.bytes().next()? {
            b',' => {}
            b'}' => return Some((name, labels)),
            _ => return None,
        }
    }
}

/// Where a value ends: at the first quote that isn't escaped.
fn closing(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{ca, proxy};

    #[test]
    fn a_page_of_the_catalogue_has_nothing_wrong() {
        let page = ca::ISSUED.head()
            + "weft_ca_issued_total{caller=\"a\\\"},b\"} 1\n"
            + &ca::LEADER.head()
            + "weft_ca_leader 1\n";
        assert_eq!(check(&page, Component::Ca), Vec::<String>::new());
        let page = proxy::HANDSHAKE_DURATION.head()
            + "weft_tls_handshake_duration_seconds_bucket{role=\"client\",le=\"+Inf\"} 1\n\
               weft_tls_handshake_duration_seconds_sum{role=\"client\"} 1\n\
               weft_tls_handshake_duration_seconds_count{role=\"client\"} 1\n";
        assert_eq!(check(&page, Component::Proxy), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_told() {
        let told = |page: &str| check(page, Component::Ca).join("; ");
        assert_eq!(told("# TYPE weft_new_total counter\nweft_new_total 1\n"), "weft_new_total isn't in the catalogue");
        assert!(told("# TYPE weft_ca_leader counter\n").contains("is a counter, in the catalogue a gauge"));
        assert!(told("# TYPE weft_pods gauge\n").contains("isn't the ca's"));
        assert!(told("weft_ca_leader 1\n").contains("has no head"));
        let twice = ca::LEADER.head() + &ca::LEADER.head();
        assert!(told(&twice).contains("is there twice"));
        let other = ca::ISSUED.head() + "weft_ca_issued_total{who=\"a\"} 1\n";
        assert!(told(&other).contains(r#"has the labels {"who"}, in the catalogue {"caller"}"#), "{}", told(&other));
        let strange = ca::LEADER.head() + "weft_ca_bound_pods 1\n";
        assert!(told(&strange).contains("stands among the samples of weft_ca_leader"));
        let cut = ca::ISSUED.head() + "weft_ca_issued_total{caller=\"a\n";
        assert!(told(&cut).contains("not a sample"));
    }
}
