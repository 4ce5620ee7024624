//! From "the first rule that matches" to "the most specific match".
//!
//! Istio tries rules in the order of their list; the Gateway API takes the most specific match and looks at the order only between
//! equals. Where a later rule would come first for some requests, the earlier rule gets a match for just these requests: it is at
//! least as specific, so that it comes first.

use super::matches::{Common, Match};

/// Most matches of a rule (HTTPRouteRule).
pub const MOST_MATCHES: usize = 64;

/// Why an order can't be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unordered {
    /// The rule that is tried earlier.
    pub first: usize,
    /// The one that would come first.
    pub second: usize,
}

/// Takes out matches that an earlier one covers: no request gets to them. Those of rule `n` are `rules[n]`.
pub fn without_dead(rules: &mut [Vec<Match>]) {
    for i in 0..rules.len() {
        let (before, rest) = rules.split_at_mut(i);
        let Some(own) = rest.first_mut() else { continue };
        let mut kept: Vec<Match> = Vec::new();
        for it in own.drain(..) {
            let earlier = before.iter().flatten().chain(&kept);
            if !earlier.into_iter().any(|other| other.covers(&it)) {
                kept.push(it);
            }
        }
        *own = kept;
    }
}

/// Adds the matches that keep the order of the list.
///
/// # Errors
/// Two rules of which nobody can say what they have in common, or that would need too many matches.
pub fn keep(rules: &mut [Vec<Match>]) -> Result<(), Unordered> {
    while let Some((rule, needed, second)) = missing(rules)? {
        let Some(own) = rules.get_mut(rule) else { break };
        own.push(needed);
        if own.len() > MOST_MATCHES {
            return Err(Unordered { first: rule, second });
        }
    }
    Ok(())
}

/// A match that an earlier rule needs, to come before a later one: the rule, the match, and the later rule.
fn missing(rules: &[Vec<Match>]) -> Result<Option<(usize, Match, usize)>, Unordered> {
    for (second, later) in rules.iter().enumerate() {
        for (first, earlier) in rules.iter().enumerate().take(second) {
            let sooner = rules.get(..=first).unwrap_or_default();
            for b in later {
                let settled =
                    |needed: &Match| sooner.iter().flatten().any(|it| it.covers(needed) && it.rank() <= b.rank());
                for a in earlier.iter().filter(|a| b.rank() < a.rank()) {
                    match known(sooner, (first, a), b) {
                        Common::Nothing => {}
                        Common::Unknown => return Err(Unordered { first, second }),
                        Common::This((_, needed)) if settled(&needed) => {}
                        Common::This((rule, needed)) => return Ok(Some((rule, needed, second))),
                    }
                }
            }
        }
    }
    Ok(None)
}

/// What a match of rule `first` has in common with a later one; where nobody can say, what one has that covers it.
fn known(sooner: &[Vec<Match>], (first, a): (usize, &Match), b: &Match) -> Common<(usize, Match)> {
    match a.common(b) {
        Common::Nothing => Common::Nothing,
        Common::This(both) => Common::This((first, both)),
        Common::Unknown => {
            let all = sooner.iter().enumerate().flat_map(|(rule, list)| list.iter().map(move |it| (rule, it)));
            let mut wider = all.filter(|(_, it)| it.covers(a)).filter_map(|(rule, it)| match it.common(b) {
                Common::This(both) => Some((rule, both)),
                Common::Nothing | Common::Unknown => None,
            });
            wider.next().map_or(Common::Unknown, Common::This)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::migrate::istio::matches::{Path, Text};

    fn path(path: Path) -> Match {
        Match { path: path.clone(), base: path, ..Match::default() }
    }

    fn prefix(text: &str) -> Match {
        path(Path::Prefix(text.into()))
    }

    fn with_header(mut it: Match, name: &str, value: &str) -> Match {
        it.headers.insert(name.into(), Text::Exact(value.into()));
        it
    }

    /// The rule that the Gateway API would take for a request.
    fn winner(rules: &[Vec<Match>], path: &str, headers: &BTreeMap<String, Text>) -> Option<usize> {
        let request = Match { path: Path::Exact(path.into()), headers: headers.clone(), ..Match::default() };
        let all = rules.iter().enumerate().flat_map(|(i, list)| list.iter().map(move |it| (it.rank(), i, it)));
        let matching = all.filter(|(_, _, it)| it.covers(&request));
        matching.min_by_key(|(rank, i, _)| (*rank, *i)).map(|(_, i, _)| i)
    }

    #[test]
    fn whatever_the_order_of_the_list_the_first_rule_that_matches_is_taken() {
        let kinds = [
            prefix(""),
            prefix("/api"),
            prefix("/api/v1"),
            path(Path::Exact("/api/v1".into())),
            path(Path::Regex("/api/v[0-9]+".into())),
            with_header(prefix(""), "user", "jason"),
            with_header(prefix("/api"), "beta", "yes"),
            with_header(path(Path::Exact("/api".into())), "user", "jason"),
        ];
        let header = |name: &str, value: &str| (name.to_owned(), Text::Exact(value.to_owned()));
        let requests: Vec<(&str, BTreeMap<_, _>)> = ["/", "/api", "/api/v1", "/api/v2", "/api/v1/x", "/apiary"]
            .into_iter()
            .flat_map(|path| {
                let sets = [
                    vec![],
                    vec![header("user", "jason")],
                    vec![header("beta", "yes")],
                    vec![header("user", "jason"), header("beta", "yes")],
                ];
                sets.into_iter().map(move |set| (path, set.into_iter().collect()))
            })
            .collect();
        let (mut kept, mut refused) = (0, 0);
        for a in &kinds {
            for b in &kinds {
                for c in &kinds {
                    let listed = vec![vec![a.clone()], vec![b.clone()], vec![c.clone()]];
                    let mut rules = listed.clone();
                    without_dead(&mut rules);
                    if keep(&mut rules).is_err() {
                        refused += 1;
                        continue;
                    }
                    kept += 1;
                    for (path, headers) in &requests {
                        let request =
                            Match { path: Path::Exact((*path).into()), headers: headers.clone(), ..Match::default() };
                        let first = listed.iter().position(|list| list.iter().any(|it| it.covers(&request)));
                        assert_eq!(winner(&rules, path, headers), first, "{path} {headers:?} {listed:#?}");
                    }
                }
            }
        }
        assert!(kept > 400 && refused > 0, "{kept} {refused}");
    }

    #[test]
    fn what_no_request_gets_to_is_taken_out() {
        let mut rules = vec![vec![prefix("")], vec![prefix("/api"), path(Path::Regex("/x.*".into()))]];
        without_dead(&mut rules);
        assert_eq!(rules, [vec![prefix("")], vec![]]);
    }
}
