//! Requests that wait for an answer, so that one which its client gives up until then is told of as well.

use std::ops::Deref;

use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::reason::Reason;

use super::finish::{Answered, Asked, report};
use super::trail::Trail;

/// Tells of a request when it is dropped with it: nobody asks for the answer any more. [`Waiting::over`]: there is one.
pub(super) struct Waiting<'a> {
    asked: &'a mut Asked,
    rule: Option<&'a RuleKey>,
    backend: Option<&'a ServicePortKey>,
    protocol: &'static str,
    over: bool,
}

impl<'a> Waiting<'a> {
    /// From now on. `rule` and `backend`: where it goes, if that is known.
    pub(super) fn new(
        asked: &'a mut Asked,
        (rule, backend): (Option<&'a RuleKey>, Option<&'a ServicePortKey>),
        protocol: &'static str,
    ) -> Self {
        Self { asked, rule, backend, protocol, over: false }
    }

    /// Whatever came of it is told of elsewhere.
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl Deref for Waiting<'_> {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        self.asked
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A panic has a metric of its own.
        if self.over || std::thread::panicking() {
            return;
        }
        let target = self.asked.progress.target();
        let trail = Trail { backend: self.backend.cloned(), answered: false, ..Trail::default() };
        let answered = Answered {
            labelled: self.asked.conn.labelled(self.rule, target.as_ref(), self.protocol),
            status: 0,
            reason: Reason::DownstreamReset,
            detail: "before there was an answer".to_owned(),
            grpc_status: None,
            tries: u32::from(target.is_some()),
            upstream: self.asked.started.elapsed(),
            trail: Some(Box::new(trail)),
        };
        report(self.asked, &answered, 0);
    }
}
