//! Answers the CNI plugin.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use weft_api::weft::agent::v1::{self as wire, plugin_request::Verb};
use weft_core::ids::SandboxId;
use weft_sys::{Message, Netns, SeqPacket, SeqPacketListener};

use super::Agent;
use super::converge::Moment;
use super::enrolment::{Decision, PodRef};
use super::pod::{Pod, PodState};
use super::store::{Applied, Record, is_container_id};
use crate::cni::{Code, Failed};
use crate::rules::RuleSet;

/// The plugin sends its request at once.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Why an enrolled pod isn't redirected.
const BYPASSED: &str = "`weft node bypass` is in force on this node";
/// accept() fails only for lack of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

impl Agent {
    /// Serves the plugin's socket until the returned future is dropped.
    pub(super) fn serve_plugin(self: Arc<Self>) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = SeqPacketListener::bind(&self.options.plugin_socket, 0o600)?;
        Ok(async move {
            let mut calls = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(socket) => { calls.spawn(self.clone().call(socket)); }
                        Err(error) => {
                            tracing::warn!(%error, "can't accept the CNI plugin");
                            tokio::time::sleep(ACCEPT_BACKOFF).await;
                        }
                    },
                    Some(_ended) = calls.join_next() => {}
                }
            }
        })
    }

    async fn call(self: Arc<Self>, socket: SeqPacket) {
        let message = match tokio::time::timeout(REQUEST_DEADLINE, socket.recv(1)).await {
            Ok(Ok(Some(message))) => message,
            _ => return tracing::debug!("a plugin call without a request"),
        };
        let reply = match self.answer_call(message).await {
            Ok(done) => wire::plugin_reply::Result::Done(done),
            Err(failure) => wire::plugin_reply::Result::Failure(failure),
        };
        let reply = wire::PluginReply { result: Some(reply) }.encode_to_vec();
        if let Err(error) = socket.send(&reply, &[]).await {
            tracing::warn!(%error, "the CNI plugin didn't wait for its answer");
        }
    }

    async fn answer_call(&self, message: Message) -> Result<wire::Done, wire::Failure> {
        let Message { bytes, fds } = message;
        let request = wire::PluginRequest::decode(bytes.as_slice());
        let verb = request.ok().and_then(|request| request.verb);
        let verb = verb.ok_or_else(|| Failed::new(Code::Decode, "the agent doesn't know this call of the plugin"))?;
        let netns = fds.into_iter().next().map(Netns::from_fd);
        let (began, named) = (Instant::now(), name(&verb));
        let answer = self.carry_out(verb, netns).await;
        count(named, &answer, began);
        answer
    }

    async fn carry_out(&self, verb: Verb, netns: Option<io::Result<Netns>>) -> Result<wire::Done, wire::Failure> {
        let netns = || {
            let netns = netns.transpose().map_err(|e| Failed::new(Code::InvalidEnvironment, e))?;
            netns.ok_or_else(|| Failed::new(Code::InvalidEnvironment, "no network namespace came with the call"))
        };
        match verb {
            Verb::Add(attachment) => self.add(attachment, netns()?).await,
            Verb::Check(attachment) => {
                let checked = self.check(&attachment, netns()?).await;
                // A round that met the pod while this call had it to itself has passed it over.
                self.again.notify_one();
                checked
            }
            Verb::Del(detachment) => Ok(self.del(&detachment).await),
            Verb::Status(_) => Ok(done(false, format!("{} proxies are connected", self.proxies.connected()))),
            Verb::Gc(valid) => {
                let collected = self.gc(&valid.valid_attachments).await;
                self.again.notify_one();
                Ok(collected)
            }
        }
    }

    async fn add(&self, attachment: wire::Attachment, netns: Netns) -> Result<wire::Done, wire::Failure> {
        let pod = self.remember(attachment, netns).map_err(|e| Failed::new(Code::InvalidEnvironment, e))?;
        let mut state = pod.state.lock().await;
        if state.gone {
            return Err(Failed::new(Code::TryAgainLater, "the pod is being deleted").into());
        }
        let result = self.converge(&mut state, Moment::Added).await;
        pod.update(&state, &self.options.node);
        let (decision, bypassed) = (state.record.decision.clone(), state.record.bypassed);
        drop(state);
        self.show();
        // Something may have changed while this call had the pod to itself.
        self.again.notify_one();
        match (result, decision) {
            (Err(trouble), _) => Err(trouble.failure()),
            (Ok(()), Some(Decision::Outside(why))) => Ok(done(false, why.to_string())),
            (Ok(()), _) if bypassed => Ok(done(false, BYPASSED.to_owned())),
            (Ok(()), _) => Ok(done(true, "redirected to the node proxy".to_owned())),
        }
    }

    /// Puts a pod among the known ones, or adds an interface to it.
    pub(super) fn remember(&self, attachment: wire::Attachment, netns: Netns) -> io::Result<Arc<Pod>> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !is_container_id(&attachment.container_id) {
            return Err(invalid(format!("{:?} is not a container id", attachment.container_id)));
        }
        if netns == self.home {
            return Err(invalid("the namespace is the node's own, not a pod's".to_owned()));
        }
        let ips = attachment.ips.iter().map(|ip| ip.parse().map_err(|e| invalid(format!("address {ip:?}: {e}"))));
        let ips = ips.collect::<io::Result<Vec<_>>>()?;
        let who = PodRef::from(attachment.pod.ok_or_else(|| invalid("the call names no pod".to_owned()))?);
        let sandbox = SandboxId::from(attachment.container_id);
        let mut pods = self.lock_pods();
        if let Some(known) = pods.get(&sandbox) {
            // Somebody at work on it: the same call made again, which waits for its turn.
            let Ok(mut state) = known.state.try_lock() else { return Ok(known.clone()) };
            if state.netns == netns && !state.gone {
                if state.record.interfaces.get(&attachment.interface) != Some(&ips) {
                    state.record.node_addresses = None;
                }
                state.record.interfaces.insert(attachment.interface, ips);
                state.record.pod = who;
                self.store.save(&state.record)?;
                return Ok(known.clone());
            }
            state.gone = true;
            self.proxies.withdraw(&sandbox);
        }
        let interfaces = BTreeMap::from([(attachment.interface, ips)]);
        let visible = self.visible_path(Path::new(&attachment.netns_path), &netns);
        let path_visible = visible.is_some();
        let netns_path = visible.unwrap_or_else(|| Path::new(&attachment.netns_path).to_owned());
        let record = Record {
            sandbox: sandbox.clone(),
            pod: who,
            interfaces,
            netns_path,
            netns_dev: netns.id().dev,
            netns_ino: netns.id().ino,
            decision: None,
            set: Applied::Nothing,
            adopted: false,
            node_addresses: None,
            bypassed: false,
        };
        self.store.save(&record)?;
        let pod = Arc::new(Pod::new(PodState::new(record, netns, path_visible), &self.options.node));
        pods.insert(sandbox, pod.clone());
        Ok(pod)
    }

    async fn check(&self, attachment: &wire::Attachment, netns: Netns) -> Result<wire::Done, wire::Failure> {
        let sandbox = SandboxId::from(attachment.container_id.as_str());
        let pod = self.lock_pods().get(&sandbox).cloned();
        let pod = pod.ok_or_else(|| Failed::new(Code::UnknownContainer, "the agent doesn't know this pod"))?;
        let mut state = pod.state.lock().await;
        if state.netns != netns {
            let what = format!("the pod has namespace {}, the call names {}", state.netns.id(), netns.id());
            return Err(Failed::new(Code::UnknownContainer, what).into());
        }
        // A CHECK compares; it repairs nothing (CNI spec, "CHECK").
        let set = match (&state.record.decision, state.record.set) {
            (Some(Decision::Enrolled(enrolled)), Applied::Redirecting) => {
                RuleSet::Redirecting { older_flows: enrolled.older_flows }
            }
            (Some(Decision::Outside(why)), _) => return Ok(done(false, why.to_string())),
            (_, Applied::Nothing) if state.record.bypassed => return Ok(done(false, BYPASSED.to_owned())),
            _ => {
                let why = state.trouble.clone().unwrap_or_default();
                return Err(Failed::new(Code::TryAgainLater, format!("the pod isn't redirected: {why}")).into());
            }
        };
        let drift = self.rules.verify(&state.netns, set).await.map_err(|e| Failed::new(Code::Rules, e))?;
        if drift.is_empty() {
            return Ok(done(true, "redirected to the node proxy".to_owned()));
        }
        let drift: Vec<_> = drift.iter().map(ToString::to_string).collect();
        state.trouble = Some(drift.join("; "));
        Err(Failed::new(Code::Rules, drift.join("; ")).into())
    }

    async fn del(&self, detachment: &wire::Detachment) -> wire::Done {
        let sandbox = SandboxId::from(detachment.container_id.as_str());
        let Some(pod) = self.lock_pods().get(&sandbox).cloned() else {
            return done(false, "the agent didn't know this pod".to_owned());
        };
        let mut state = pod.state.lock().await;
        state.record.interfaces.remove(&detachment.interface);
        if !state.record.interfaces.is_empty() {
            let saved = self.store.save(&state.record);
            self.again.notify_one();
            return done(
                true,
                format!("other interfaces are left{}", saved.err().map(|e| format!("; {e}")).unwrap_or_default()),
            );
        }
        self.remove(&mut state).await;
        drop(state);
        self.show();
        done(false, "removed".to_owned())
    }

    /// Takes rules away, as well as possible, and forgets the pod.
    async fn remove(&self, state: &mut PodState) {
        state.gone = true;
        if state.record.set != Applied::Nothing
            && let Err(error) = self.rules.remove(&state.netns).await
        {
            tracing::warn!(pod = %state.record.pod, %error, "rules stay in a pod's namespace until it is gone");
        }
        self.forget(&state.record.sandbox);
    }

    /// Forgets what the runtime no longer has.
    async fn gc(&self, valid: &[wire::Detachment]) -> wire::Done {
        let pods: Vec<_> = self.lock_pods().values().cloned().collect();
        let mut removed = 0;
        for pod in pods {
            let mut state = pod.state.lock().await;
            if state.record.adopted {
                // Whether the runtime means it can't be told for certain; it is forgotten when its namespace is gone.
                continue;
            }
            let sandbox = state.record.sandbox.clone();
            let is_valid = |interface: &String| {
                valid.iter().any(|v| v.container_id == sandbox.as_str() && v.interface == *interface)
            };
            state.record.interfaces.retain(|interface, _| is_valid(interface));
            if state.record.interfaces.is_empty() && !state.gone {
                self.remove(&mut state).await;
                removed += 1;
            }
        }
        self.show();
        done(false, format!("{removed} pods removed"))
    }
}

/// As metrics name it.
const fn name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Add(_) => "add",
        Verb::Check(_) => "check",
        Verb::Del(_) => "del",
        Verb::Status(_) => "status",
        Verb::Gc(_) => "gc",
    }
}

fn count(verb: &'static str, answer: &Result<wire::Done, wire::Failure>, began: Instant) {
    let result = match answer {
        Ok(done) if done.enrolled => "enrolled",
        Ok(_) => "passed",
        Err(_) => "failed",
    };
    metrics::counter!("weft_agent_cni_calls_total", "verb" => verb, "result" => result).increment(1);
    metrics::histogram!("weft_agent_cni_call_seconds", "verb" => verb).record(began.elapsed().as_secs_f64());
}

fn done(enrolled: bool, note: String) -> wire::Done {
    wire::Done { enrolled, note }
}
