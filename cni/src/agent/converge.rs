//! Brings one pod to what it should be: the only place where rules are set and proxies are told.

use std::io;
use std::time::Duration;

use weft_api::weft::agent::v1 as wire;

use super::Agent;
use super::enrolment::{Decision, Enrolled, Undecided};
use super::pod::PodState;
use super::proxies::Answer;
use super::route;
use super::store::Applied;
use crate::cni::Code;
use crate::rules::{RuleSet, RulesError};

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The pod is being made: nothing runs in it. Waits for the proxy.
    Added,
    /// Something may have changed.
    Changed,
    /// As `Changed`, and the rules are compared with what they should be.
    Verify,
}

/// Why a pod isn't as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Undecided(#[from] Undecided),
    #[error("nobody decided in {0:?} whether the pod is in the mesh")]
    DecideDeadline(Duration),
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("rules were set but aren't there: {0}")]
    Unverified(String),
    #[error("{0}")]
    Proxy(Answer),
    #[error("write the agent's state: {0}")]
    State(#[from] io::Error),
}

impl Trouble {
    /// For the runtime: whether trying again may help by itself.
    fn code(&self) -> Code {
        match self {
            Self::Undecided(_) | Self::DecideDeadline(_) | Self::Proxy(_) => Code::TryAgainLater,
            Self::Rules(_) | Self::Unverified(_) => Code::Rules,
            Self::State(_) => Code::Io,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Undecided(_) | Self::DecideDeadline(_) => {
                "the agent has no configuration for this pod; see whether the controller is reachable"
            }
            Self::Proxy(_) => "see the node proxy of this node and its log",
            Self::Rules(_) | Self::Unverified(_) => {
                "see the agent's log; it needs CAP_NET_ADMIN, CAP_SYS_ADMIN and nft"
            }
            Self::State(_) => "see whether the agent's state directory is writable and not full",
        }
    }

    pub(super) fn failure(&self) -> wire::Failure {
        wire::Failure { code: self.code().number(), message: self.to_string(), details: self.advice().to_owned() }
    }
}

impl Agent {
    /// Makes the pod what it should be, as far as it can be now. What is missing is kept as its trouble.
    pub(super) async fn converge(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        let result = self.try_converge(state, moment).await;
        let trouble = result.as_ref().err().map(ToString::to_string);
        if trouble != state.trouble {
            match &trouble {
                Some(why) => tracing::warn!(pod = %state.record.pod, why, "a pod isn't as it should be"),
                None => tracing::info!(pod = %state.record.pod, "a pod is as it should be again"),
            }
            state.trouble = trouble;
        }
        result
    }

    async fn try_converge(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        if moment == Moment::Added {
            // Without news in time the source is asked all the same: it may know enough, or why it doesn't.
            let news = self.source.arrived(&state.record.pod);
            let _in_time = tokio::time::timeout(self.options.decide_deadline, news).await;
        }
        let asked = tokio::time::timeout(self.options.decide_deadline, self.source.decide(&state.record.pod)).await;
        let asked = asked.map_err(|_| Trouble::DecideDeadline(self.options.decide_deadline));
        let decision = match (asked.and_then(|d| Ok(d?)), &state.record.decision) {
            (Ok(decision), _) => decision,
            // A source that lost its data changes nothing for a pod that it once decided.
            (Err(_), Some(former)) if moment != Moment::Added => former.clone(),
            (Err(undecided), former) => match self.source.presumed(&state.record.pod) {
                // Only for one that starts now: without an agent the plugin would have let it pass as well.
                Some(why) if moment == Moment::Added && !matches!(former, Some(Decision::Enrolled(_))) => {
                    Decision::Outside(why)
                }
                _ => return Err(undecided),
            },
        };
        let changed = state.record.decision.as_ref() != Some(&decision);
        // Other rules may follow from it, such as those that close older connections.
        let moment = if changed && moment == Moment::Changed { Moment::Verify } else { moment };
        if changed {
            tracing::info!(pod = %state.record.pod, ?decision, "decided");
            state.record.decision = Some(decision.clone());
            self.store.save(&state.record)?;
        }
        match decision {
            Decision::Outside(_) => self.leave_alone(state).await,
            Decision::Enrolled(enrolled) => self.protect(state, &enrolled, moment).await,
        }
    }

    async fn leave_alone(&self, state: &mut PodState) -> Result<(), Trouble> {
        if state.record.set != Applied::Nothing {
            self.rules.remove(&state.netns).await?;
            state.record.set = Applied::Nothing;
            self.store.save(&state.record)?;
        }
        // After the rules: the proxy still answers what was redirected a moment ago.
        self.proxies.withdraw(&state.record.sandbox);
        Ok(())
    }

    async fn protect(&self, state: &mut PodState, enrolled: &Enrolled, moment: Moment) -> Result<(), Trouble> {
        if moment == Moment::Added && state.record.set == Applied::Nothing {
            self.rules.apply(&state.netns, RuleSet::Closed).await?;
            state.record.set = Applied::Closed;
            self.store.save(&state.record)?;
        }
        self.look_up_node_addresses(state).await?;
        self.proxies.offer(state.workload(enrolled, &self.options.node), state.netns.clone());
        let answer = self.answer(state, moment).await;
        let want = match (state.record.set, &answer) {
            (Applied::Redirecting, _) | (_, Answer::Acked) => Applied::Redirecting,
            (held, _) => held,
        };
        let set = match want {
            Applied::Nothing => return Err(Trouble::Proxy(answer)),
            Applied::Closed => RuleSet::Closed,
            Applied::Redirecting => RuleSet::Redirecting { older_flows: enrolled.older_flows },
        };
        let moved = state.record.set != want;
        if moved {
            // Before the rules: an agent that dies in between finds a difference and repairs it.
            state.record.set = want;
            self.store.save(&state.record)?;
        }
        if moved || moment != Moment::Changed || state.trouble.is_some() {
            self.enforce(state, set).await?;
        }
        match answer {
            Answer::Acked => Ok(()),
            other => Err(Trouble::Proxy(other)),
        }
    }

    /// Once for a pod: a proxy that is told something else about it starts it anew.
    async fn look_up_node_addresses(&self, state: &mut PodState) -> Result<(), Trouble> {
        if !self.options.node_addresses || state.record.node_addresses.is_some() {
            return Ok(());
        }
        match route::sources_towards(&self.home, &state.record.ips()).await {
            Ok(addresses) => {
                state.record.node_addresses = Some(addresses);
                self.store.save(&state.record)?;
            }
            Err(error) => {
                tracing::warn!(pod = %state.record.pod, %error, "probes of the node can't be told from other traffic to this pod");
            }
        }
        Ok(())
    }

    async fn answer(&self, state: &PodState, moment: Moment) -> Answer {
        let sandbox = &state.record.sandbox;
        if moment != Moment::Added {
            return self.proxies.answer(sandbox);
        }
        let settled = tokio::time::timeout(self.options.ack_deadline, self.proxies.settled(sandbox));
        settled.await.unwrap_or_else(|_| self.proxies.answer(sandbox))
    }

    /// Sets what differs, and looks again.
    async fn enforce(&self, state: &PodState, set: RuleSet) -> Result<(), Trouble> {
        let drift = self.rules.verify(&state.netns, set).await?;
        if drift.is_empty() {
            return Ok(());
        }
        tracing::info!(pod = %state.record.pod, ?drift, ?set, "setting rules");
        self.rules.apply(&state.netns, set).await?;
        let drift = self.rules.verify(&state.netns, set).await?;
        if drift.is_empty() {
            return Ok(());
        }
        let drift: Vec<_> = drift.iter().map(ToString::to_string).collect();
        Err(Trouble::Unverified(drift.join("; ")))
    }
}
