//! Brings one pod to what it should be: the only place where rules are set and proxies are told.

use std::io;
use std::time::Duration;

use weft_api::weft::agent::v1 as wire;

use super::Agent;
use super::bypass::Bypass;
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
    #[error("`weft node bypass` of {0} opened it: its traffic is in the clear until `weft node bypass --off`")]
    Bypassed(String),
    #[error("write the agent's state: {0}")]
    State(#[from] io::Error),
}

impl Trouble {
    /// For the runtime: whether trying again may help by itself.
    fn code(&self) -> Code {
        match self {
            Self::Undecided(_) | Self::DecideDeadline(_) | Self::Proxy(_) | Self::Bypassed(_) => Code::TryAgainLater,
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
            Self::Bypassed(_) => "see bypass.log in the agent's directory of state",
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

    /// Writes what is known of a pod. One that is being made doesn't start without; one that runs is made what it should be
    /// on a full disk too, and its record is written in a later round.
    fn keep(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        match self.store.save(&state.record) {
            Err(error) if moment != Moment::Added && weft_sys::is_disk_full(&error) => {
                if !std::mem::replace(&mut state.unsaved, true) {
                    tracing::error!(pod = %state.record.pod, %error, "the record of a pod is written when there is room");
                }
                Ok(())
            }
            saved => {
                state.unsaved = saved.is_err();
                Ok(saved?)
            }
        }
    }

    async fn try_converge(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        if state.unsaved {
            self.keep(state, moment)?;
        }
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
            self.keep(state, moment)?;
        }
        match decision {
            Decision::Outside(_) => self.leave_alone(state, moment).await,
            Decision::Enrolled(enrolled) => match self.bypass().filter(|bypass| bypass.opens(&enrolled)) {
                Some(bypass) => self.open_up(state, bypass, moment).await,
                None => self.protect(state, &enrolled, moment).await,
            },
        }
    }

    /// As root on this node ordered it. A pod that is made now starts; of one that runs it is a trouble that everybody sees.
    async fn open_up(&self, state: &mut PodState, bypass: Bypass, moment: Moment) -> Result<(), Trouble> {
        let opened = state.record.bypassed && state.record.set == Applied::Nothing;
        if !opened || moment != Moment::Changed {
            self.rules.remove(&state.netns).await?;
        }
        if !opened {
            state.record.set = Applied::Nothing;
            state.record.bypassed = true;
            self.keep(state, moment)?;
        }
        self.proxies.withdraw(&state.record.sandbox);
        if moment == Moment::Added { Ok(()) } else { Err(Trouble::Bypassed(bypass.by)) }
    }

    async fn leave_alone(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        if state.record.set != Applied::Nothing {
            self.rules.remove(&state.netns).await?;
            state.record.set = Applied::Nothing;
            self.keep(state, moment)?;
        }
        // After the rules: the proxy still answers what was redirected a moment ago.
        self.proxies.withdraw(&state.record.sandbox);
        Ok(())
    }

    async fn protect(&self, state: &mut PodState, enrolled: &Enrolled, moment: Moment) -> Result<(), Trouble> {
        if moment == Moment::Added && state.record.set == Applied::Nothing {
            self.rules.apply(&state.netns, RuleSet::Closed).await?;
            state.record.set = Applied::Closed;
            self.keep(state, moment)?;
        }
        self.look_up_node_addresses(state, moment).await?;
        self.proxies.offer(state.workload(enrolled, &self.options.node), state.netns.clone());
        let answer = self.answer(state, moment).await;
        let returned = state.record.bypassed;
        let want = match (state.record.set, &answer) {
            (Applied::Redirecting, _) | (_, Answer::Acked) => Applied::Redirecting,
            // It takes no plaintext, and was opened against that: closed at once, whether anybody serves it or not.
            (Applied::Nothing, _) if returned && enrolled.strict != Some(false) => Applied::Redirecting,
            (held, _) => held,
        };
        let set = match want {
            Applied::Nothing => {
                self.given_back(state, moment)?;
                return Err(Trouble::Proxy(answer));
            }
            Applied::Closed => RuleSet::Closed,
            Applied::Redirecting => RuleSet::Redirecting { older_flows: enrolled.older_flows },
        };
        let moved = state.record.set != want;
        if moved {
            // Before the rules: an agent that dies in between finds a difference and repairs it.
            state.record.set = want;
            self.keep(state, moment)?;
        }
        if moved || moment != Moment::Changed || state.trouble.is_some() {
            self.enforce(state, set).await?;
        }
        self.given_back(state, moment)?;
        match answer {
            Answer::Acked => Ok(()),
            other => Err(Trouble::Proxy(other)),
        }
    }

    /// Notes that a pod is again what it should be after `weft node bypass`, so that whoever took the order back can see it.
    fn given_back(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        if std::mem::take(&mut state.record.bypassed) { self.keep(state, moment) } else { Ok(()) }
    }

    /// Once for a pod: a proxy that is told something else about it starts it anew.
    async fn look_up_node_addresses(&self, state: &mut PodState, moment: Moment) -> Result<(), Trouble> {
        if !self.options.node_addresses || state.record.node_addresses.is_some() {
            return Ok(());
        }
        match route::sources_towards(&self.home, &state.record.ips()).await {
            Ok(addresses) => {
                state.record.node_addresses = Some(addresses);
                self.keep(state, moment)?;
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
