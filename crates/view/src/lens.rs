//! What a reader may view, and wants to.

use std::collections::BTreeSet;

/// Stands for what is in a namespace that a reader may not view.
pub const HIDDEN: &str = "another namespace";

/// The namespaces that a reader may view, and those of them that were asked for. What lies in others is left out; where a call
/// crosses the border, the other end is [`HIDDEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lens {
    /// `None`: all.
    may: Option<BTreeSet<String>>,
    /// `None`: all that may be viewed.
    chosen: Option<BTreeSet<String>>,
}

impl Lens {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// These namespaces, and no others.
    pub fn only<N: Into<String>>(namespaces: impl IntoIterator<Item = N>) -> Self {
        Self { may: Some(namespaces.into_iter().map(Into::into).collect()), chosen: None }
    }

    /// Of what may be viewed, what concerns these namespaces. None of them: all that may be viewed.
    #[must_use]
    pub fn choosing<N: Into<String>>(mut self, namespaces: impl IntoIterator<Item = N>) -> Self {
        let chosen: BTreeSet<String> = namespaces.into_iter().map(Into::into).collect();
        self.chosen = Some(chosen).filter(|chosen| !chosen.is_empty());
        self
    }

    /// Whether things in a namespace may be named.
    pub fn may_view(&self, namespace: &str) -> bool {
        self.may.as_ref().is_none_or(|may| may.contains(namespace))
    }

    /// Whether they are asked for, and may be.
    pub fn wants(&self, namespace: &str) -> bool {
        self.may_view(namespace) && self.chosen.as_ref().is_none_or(|chosen| chosen.contains(namespace))
    }
}
