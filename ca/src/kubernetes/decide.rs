//! What the leader does to the Secret next: a function of what it sees.

use std::time::SystemTime;

use weft_tls::Clock;

use crate::authority::AuthoritySettings;
use crate::error::AuthorityError;
use crate::rotate::{RotateError, Stage, Step};
use crate::state::{Branch, State};

/// The Secret, as its watch shows it.
pub(super) enum Seen<'a> {
    /// The watch has not answered yet, or what it shows cannot be read: whoever put it there has to mend it.
    Unknown,
    /// Nothing is saved.
    Nothing,
    /// A state, and what a person ordered.
    State(&'a State, Option<&'a str>),
}

/// What a decision follows from.
pub(super) struct Facts<'a> {
    pub seen: Seen<'a>,
    /// What this replica issues from.
    pub memory: Option<&'a State>,
    pub source: Source<'a>,
    /// Since when the ConfigMap has shown exactly the roots of the state that is seen.
    pub published: Option<SystemTime>,
    pub settings: &'a AuthoritySettings,
    pub clock: &'a Clock,
}

/// Where the CA certificates come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Own,
    /// Elsewhere; `None` until they have been read.
    Elsewhere(Option<&'a Branch>),
}

/// A write.
pub(super) struct Change {
    /// The state, if it changes.
    pub state: Option<State>,
    /// The answer to an order, if there was one.
    pub answer: Option<String>,
}

impl From<State> for Change {
    fn from(state: State) -> Self {
        Self { state: Some(state), answer: None }
    }
}

/// The next write, if one is due.
pub(super) fn next(facts: &Facts<'_>) -> Result<Option<Change>, RotateError> {
    // Before anything else: once the alias is taken away, nobody could read it any more.
    if let Seen::State(state, _) = facts.seen
        && let Some(renamed) = state.renamed(&facts.settings.trust_domains)
    {
        return Ok(Some(renamed.into()));
    }
    let change = match facts.seen {
        Seen::Unknown => None,
        Seen::Nothing => first(facts)?.map(Change::from),
        Seen::State(state, Some(order)) => obey(facts, state, order),
        Seen::State(state, None) => follow(facts, state)?.map(Change::from),
    };
    if let Some(state) = change.as_ref().and_then(|c| c.state.as_ref()) {
        // Never save what no replica could take over.
        state.bundle().to_trust()?;
    }
    Ok(change)
}

/// A state where none is saved: what the mesh already trusts, before anything new.
fn first(facts: &Facts<'_>) -> Result<Option<State>, AuthorityError> {
    let domain = facts.settings.trust_domains.own();
    let branch = match (facts.memory, facts.source) {
        (Some(state), _) => return Ok(Some(state.clone())),
        (None, Source::Own) => Branch::own(facts.settings, 1, facts.clock.now())?,
        (None, Source::Elsewhere(Some(branch))) => Branch { number: 1, ..branch.clone() },
        (None, Source::Elsewhere(None)) => return Ok(None),
    };
    Ok(Some(State::first(domain.clone(), branch)))
}

fn obey(facts: &Facts<'_>, state: &State, order: &str) -> Option<Change> {
    let taken = match order.parse::<Step>() {
        Ok(Step::Advance) if matches!(state.stage, Stage::Publishing { .. }) && facts.published.is_none() => {
            return None;
        }
        Ok(Step::Start) if matches!(facts.source, Source::Elsewhere(_)) => Err(RotateError::External.to_string()),
        Ok(step) => state.take(step, facts.settings, facts.clock.now()).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Some(match taken {
        Ok(next) => {
            let answer = format!("{order}: the rotation is now {}, generation {}", next.stage.name(), next.generation);
            Change { state: Some(next), answer: Some(answer) }
        }
        Err(error) => Change { state: None, answer: Some(format!("refused: {error}")) },
    })
}

/// What follows from other people's certificates, and from time.
fn follow(facts: &Facts<'_>, state: &State) -> Result<Option<State>, RotateError> {
    let now = facts.clock.now();
    let from_source = match facts.source {
        Source::Own if state.stage == Stage::Stable && state.issuing()?.root.is_none() => {
            Some(state.start_with(Branch::own(facts.settings, state.next_number(), now)?, now))
        }
        Source::Elsewhere(Some(branch)) => adopt(facts, state, branch)?,
        Source::Own | Source::Elsewhere(None) => None,
    };
    if from_source.is_some() {
        return Ok(from_source);
    }
    let next = state.due(facts.settings, now)?;
    let starts_to_issue =
        |next: &State| matches!((state.stage, next.stage), (Stage::Publishing { .. }, Stage::Issuing { .. }));
    Ok(match next {
        Some(next) if starts_to_issue(&next) && !may_issue(facts, state)? => None,
        next => next,
    })
}

/// Whether the new root has been visible for long enough: counted from when it was, not from when it was made.
fn may_issue(facts: &Facts<'_>, state: &State) -> Result<bool, AuthorityError> {
    let now = facts.clock.now();
    let Some(since) = facts.published else { return Ok(false) };
    let shown = now.duration_since(since).is_ok_and(|shown| shown >= facts.settings.propagation);
    Ok(shown || state.issuing()?.intermediate.not_after <= now)
}

/// The state after certificates came from elsewhere: at once when everybody trusts what they issue, in stages when their
/// root is new.
fn adopt(facts: &Facts<'_>, state: &State, fresh: &Branch) -> Result<Option<State>, AuthorityError> {
    let Some(last) = state.branches.last() else { return Ok(None) };
    let same =
        |a: &Branch, b: &Branch| a.intermediate.cert == b.intermediate.cert && a.above == b.above && a.roots == b.roots;
    if same(last, fresh) {
        return Ok(None);
    }
    let now = facts.clock.now();
    let own = State::first(state.trust_domain.clone(), fresh.clone()).bundle();
    let trusted = fresh.probe(&state.bundle(), facts.settings, facts.clock).is_ok();
    let old_is_trusted = last.intermediate.not_after <= now || last.probe(&own, facts.settings, facts.clock).is_ok();
    if trusted && old_is_trusted {
        let mut next = state.clone();
        if let Some(last) = next.branches.last_mut() {
            *last = Branch { number: last.number, ..fresh.clone() };
        }
        if next.bundle().roots != state.bundle().roots {
            next.generation = next.generation.saturating_add(1);
        }
        return Ok(Some(next));
    }
    if state.stage != Stage::Stable {
        tracing::warn!(stage = state.stage.name(), "certificates of yet another root wait for the end of the rotation");
        return Ok(None);
    }
    Ok(Some(state.start_with(Branch { number: state.next_number(), ..fresh.clone() }, now)))
}
