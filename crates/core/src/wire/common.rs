//! Texts that many resources have in common: namespaces, nodes, zones, Gateways. What is read shares them.
//!
//! A cluster of 10,000 pods has as many copies of each of a few hundred names in it otherwise, several for every pod.

use std::cell::RefCell;
use std::sync::Arc;

use foldhash::fast::FixedState;

/// Texts that a thread remembers, each where its hash says: two that meet there share with nobody, which costs memory and
/// nothing else. So it never grows, and needs nobody to clean it up.
const REMEMBERED: usize = 2048;
/// Longest text remembered, bytes: the longest name that Kubernetes has.
const LONGEST: usize = 253;

thread_local! {
    static TEXTS: RefCell<Vec<Option<Arc<str>>>> = const { RefCell::new(Vec::new()) };
}

/// The text, shared with an equal one that was read not long ago on this thread.
pub(super) fn common(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    TEXTS.with_borrow_mut(|texts| {
        if texts.is_empty() {
            texts.resize(REMEMBERED, None);
        }
        let hash = std::hash::BuildHasher::hash_one(&FixedState::default(), text);
        // The remainder fits.
        let at = usize::try_from(hash % (REMEMBERED as u64)).unwrap_or_default();
        let Some(slot) = texts.get_mut(at) else { return text.into() };
        match slot {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::clone(slot.insert(text.into())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_shared_and_others_never_are() {
        let texts: Vec<String> = (0..10 * REMEMBERED).map(|n| format!("team-{n}")).collect();
        for text in &texts {
            let (one, other) = (common(text), common(text));
            assert!(Arc::ptr_eq(&one, &other) && *one == **text, "{text}");
        }
        let remembered = TEXTS.with_borrow(|texts| texts.iter().flatten().count());
        assert!(remembered <= REMEMBERED, "{remembered}");
        let long = "x".repeat(LONGEST + 1);
        assert!(*common(&long) == *long && !Arc::ptr_eq(&common(&long), &common(&long)));
    }
}
