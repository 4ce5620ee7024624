//! Keeps all pods as they should be: after a start, on every change, and from time to time.

use std::path::Path;
use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use weft_core::ids::SandboxId;
use weft_sys::Netns;

use super::Agent;
use super::bypass::LOOK;
use super::converge::Moment;
use super::pod::Pod;
use super::store::write_atomically;
use crate::cni::{EnrolmentFile, Missed};

impl Agent {
    /// Turns whenever decisions, proxies or pods change, and every [`verify_every`](super::AgentOptions::verify_every).
    pub(super) async fn keep_reconciled(&self) {
        let (mut decisions, mut proxies) = (self.source.changes(), self.proxies.changes());
        let mut tick = tokio::time::interval(self.options.verify_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut source_lives = true;
        let (mut look, mut bypass) = (tokio::time::interval(LOOK), None);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The first tick is at once: a round with verification right after the start.
            let verify = tokio::select! {
                _ = tick.tick() => true,
                changed = decisions.changed(), if source_lives => { source_lives = changed.is_ok(); false }
                Ok(()) = proxies.changed() => false,
                () = self.again.notified() => false,
                _ = look.tick() => {
                    if !self.notice_bypass(&mut bypass) {
                        continue;
                    }
                    true
                }
            };
            self.reconcile(verify).await;
        }
    }

    /// One round over all pods. A pod that another task works on is skipped: that task asks for another round.
    pub(super) async fn reconcile(&self, verify: bool) {
        self.write_enrolment_file();
        self.take_missed();
        let moment = if verify { Moment::Verify } else { Moment::Changed };
        let pods: Vec<_> = self.lock_pods().values().cloned().collect();
        for pod in pods {
            self.reconcile_pod(&pod, moment).await;
        }
        self.show();
    }

    async fn reconcile_pod(&self, pod: &Arc<Pod>, moment: Moment) {
        let Ok(mut state) = pod.state.try_lock() else { return };
        if state.gone {
            return;
        }
        if state.path_visible && !leads_to(&state.record.netns_path, &state.netns) {
            tracing::info!(pod = %state.record.pod, "a pod is gone without a word of the runtime");
            state.gone = true;
            let sandbox = state.record.sandbox.clone();
            drop(state);
            return self.forget(&sandbox);
        }
        // Its trouble is logged and shown.
        let _trouble = self.converge(&mut state, moment).await;
        pod.update(&state, &self.options.node);
    }

    /// Drops a pod from memory, disk and proxies; its namespace closes with the last descriptor.
    pub(super) fn forget(&self, sandbox: &SandboxId) {
        self.proxies.withdraw(sandbox);
        self.lock_pods().remove(sandbox);
        if let Err(error) = self.store.remove(sandbox) {
            tracing::warn!(%sandbox, %error, "can't remove the record of a pod; it is dropped at the next start");
        }
    }

    fn write_enrolment_file(&self) {
        let file = EnrolmentFile::new(self.source.namespaces_outside());
        let path = &self.options.enrolment_file;
        let written = match EnrolmentFile::read(path) {
            Ok(same) if same == file => return,
            _ => serde_json::to_vec_pretty(&file).map_err(Into::into).and_then(|b| write_atomically(path, &b, 0o600)),
        };
        if let Err(error) = written {
            tracing::error!(%error, "the plugin won't know which namespaces are outside when the agent is down");
        }
    }

    /// Takes over the pods that the plugin let pass while no agent was there.
    fn take_missed(&self) {
        for (note, missed) in Missed::read_all(&self.options.missed_dir) {
            let taken = match missed {
                Ok(missed) => self.take(missed),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                tracing::warn!(note = %note.display(), %error, "a pod that started without the agent is gone");
            }
            let _gone_already = std::fs::remove_file(note);
        }
    }

    fn take(&self, missed: Missed) -> std::io::Result<()> {
        let netns = Netns::open(&missed.netns_path)?;
        let attachment = missed.into_attachment();
        let pod = self.remember(attachment, netns)?;
        tracing::info!(pod = %pod.shown().pod, "a pod that started without the agent is taken over");
        Ok(())
    }
}

fn leads_to(path: &Path, netns: &Netns) -> bool {
    Netns::open(path).is_ok_and(|found| found == *netns)
}
