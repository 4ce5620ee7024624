//! Paths of an Ingress that its match doesn't say: in another case of letters, or going on without a slash. There, with expressions
//! on the host, it had them; here another Ingress of the host would. If that sends them to what this one protects, they are refused.

use super::backends::{Backend, Destination, destination};
use super::parts::{Part, PathItem};
use super::path::{BEGINS, EXACT, GOES_ON, Match, Plan};
use super::report::{Level, Report};
use super::routes::{Context, REFUSED, ReadPath, Rule, path_match};

/// Most letters of a match, by the Gateway API.
const MOST_LETTERS: usize = 1024;
/// Most matches; of a longer path its own is refused, too.
const MOST_MATCHES: usize = 8;

impl Context<'_> {
    /// A rule that refuses what a path of a part doesn't say and another Ingress would serve without what protects it.
    pub fn refuse_variants(&self, part: &Part, item: &PathItem, plan: &Plan, report: &mut Report) -> Option<Rule> {
        let (path, is_exact) = match &plan.matched {
            Match::Prefix(path) if path != "/" => (path.as_str(), false),
            Match::Exact(path) if path != "/" => (path.as_str(), true),
            // To what is for all paths the case of letters is no matter, nor to an expression.
            _ => return None,
        };
        if !part.is_protected() || !self.has_expressions(part) {
            return None;
        }
        let other = self.parts.iter().find(|other| self.opens(other, part, item, path))?;
        let goes_on = plan.differs.is_some_and(|how| [BEGINS, GOES_ON, EXACT].contains(&how));
        let expressions = expressions(path, is_exact, goes_on);
        let matches: Vec<_> = expressions.into_iter().map(|text| path_match(&Match::Expression(text))).collect();
        if matches.is_empty() {
            return None;
        }
        let how = if goes_on {
            "in another case of letters, or going on without a slash"
        } else {
            "in another case of letters"
        };
        let why = format!("{how}: {REFUSED}, because {} would serve it, without what protects it here", other.label);
        let remedy = "let the application tell paths by their case, or write the rule by hand";
        report.say(Level::LeftOut, (&part.label, &item.field, &item.path), why, remedy);
        Some(Rule { matches, ..Rule::default() })
    }

    /// Whether another part would serve variants of a path, with what is behind it, and is protected in another way.
    fn opens(&self, other: &Part, part: &Part, item: &PathItem, path: &str) -> bool {
        let own = (&other.namespace, &other.name) == (&part.namespace, &part.name);
        let (a, b) = (&other.settings, &part.settings);
        let same = !part.withheld && (&a.auth, &a.allow, &a.deny) == (&b.auth, &b.allow, &b.deny);
        if own || same || !other.stands_in_for(part) {
            return false;
        }
        let services = |part: &Part, item: &PathItem| match destination(part, item, self.inputs) {
            Ok(Destination::Backends(backends)) => backends.iter().map(Backend::key).collect(),
            _ => Vec::new(),
        };
        // What one that is withheld has behind it is nobody's to send to by a path of its own.
        let behind = services(part, item);
        let shares = |item: &PathItem| services(other, item).iter().any(|key| part.withheld || behind.contains(key));
        let has = |(item, read): &(&PathItem, ReadPath)| {
            read.as_ref().is_ok_and(|(plan, _)| covers(&plan.matched, path)) && shares(item)
        };
        self.read(other).iter().any(has)
    }
}

/// Whether a match may have variants of a path.
fn covers(matched: &Match, path: &str) -> bool {
    match matched {
        Match::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        }
        Match::Exact(_) => false,
        Match::Expression(_) => true,
    }
}

/// Expressions that have all paths which begin as this one does in another case of letters, and none that begins as it does; with
/// `goes_on` also those that begin as it does and go on where it ends.
fn expressions(path: &str, is_exact: bool, goes_on: bool) -> Vec<String> {
    let path = if is_exact { path } else { path.trim_end_matches('/') };
    let rest = if goes_on { ".*" } else { "(?:/.*)?" };
    // Up to a letter as it is written, that one in the other case, and the rest in any.
    let letters = path.char_indices().filter(|(_, c)| c.is_ascii_alphabetic());
    let mut all: Vec<String> = letters
        .map(|(at, c)| {
            let other = if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            let (before, after) = (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default());
            format!("{}{other}(?i:{}){rest}", escaped(before), escaped(after))
        })
        .collect();
    if goes_on {
        let on = if is_exact { ".+" } else { "[^/].*" };
        all.push(format!("{}{on}", escaped(path)));
    }
    let mut made: Vec<String> = Vec::new();
    for one in all {
        match made.last_mut() {
            Some(last) if last.len() + one.len() < MOST_LETTERS - "(?:|)".len() => {
                last.push('|');
                last.push_str(&one);
            }
            _ => made.push(one),
        }
    }
    if made.len() > MOST_MATCHES {
        return vec![format!("(?i:{}){rest}", escaped(path))];
    }
    made.into_iter().map(|text| format!("(?:{text})")).collect()
}

fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-/_~%@:,;=&'!".contains(c);
    text.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use weft_core::route::Pattern;

    use super::*;

    #[test]
    fn all_variants_of_a_path_match_and_nothing_that_its_own_rule_has() {
        let long = format!("/{}", "Ab0.x".repeat(12));
        for path in ["/admin", "/a.b/C-d+e", "/1/2", long.as_str()] {
            for (is_exact, goes_on) in [(false, false), (false, true), (true, true)] {
                let made = expressions(path, is_exact, goes_on);
                assert!(made.iter().all(|text| text.len() <= MOST_LETTERS), "{path}");
                let patterns: Vec<_> = made.iter().map(|text| Pattern::new(text).unwrap()).collect();
                let refused = |text: &str| patterns.iter().any(|pattern| pattern.is_match(text));
                let has_letters = path.bytes().any(|b| b.is_ascii_alphabetic());
                for variant in [path.to_ascii_uppercase(), path.to_ascii_lowercase()] {
                    let differs = variant != path;
                    assert_eq!(refused(&variant), differs && has_letters, "{path} {variant}");
                    assert_eq!(
                        refused(&format!("{variant}/x")),
                        (differs && has_letters) || is_exact,
                        "{path} {variant}"
                    );
                    let on = format!("{}x", variant.trim_end_matches('/'));
                    assert_eq!(refused(&on), goes_on, "{path} {on}");
                }
            }
        }
        let longer = format!("/{}", "a".repeat(300));
        let made = expressions(&longer, false, false);
        assert!(made.len() == 1 && made[0].len() < MOST_LETTERS && Pattern::new(&made[0]).unwrap().is_match(&longer));
    }
}
