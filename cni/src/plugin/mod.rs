//! The CNI plugin (`weft-cni`): chained after whichever plugin makes the pod's interface.
//!
//! It decides nothing and holds no credential: it hands the pod's namespace to the agent on the same node and says to
//! the runtime what the agent said. Invariants:
//! - ADD passes the result of the plugins before it on, with every field, or fails; with an agent that knows the
//!   cluster it never succeeds for a pod that is, or may be, in the mesh and that no proxy has taken.
//! - Without an agent ADD succeeds only for pods of the mesh's own namespace and of namespaces that were wholly outside
//!   when the agent last wrote its [`EnrolmentFile`]; any other pod waits.
//! - DEL never fails: a pod must be deletable whatever is broken.
//! - Whatever comes in, the answer is a result or an error of the specification; nothing panics.
//!
//! What stays open: while the agent is down, or hasn't reached the API server since its start, a namespace that was
//! wholly outside may get its label, or its first pod with a label of its own. Pods that this puts in the mesh and that
//! start on this node meanwhile are in the clear until the agent knows and takes them over. The plugin can't know
//! better: runtimes hand it a pod's name, never its labels, and it has no credential to ask the API server with. Were
//! every pod to wait instead, nothing else that the node needs would start for as long as the agent can't.

use std::os::fd::AsFd as _;

use prost::Message as _;
use serde_json::{Value, json};
use weft_api::weft::agent::v1::{self as wire, plugin_reply, plugin_request::Verb};
use weft_sys::{Netns, SeqPacket};

use crate::cni::{Code, EnrolmentFile, Failed, Missed};

mod input;

pub use input::{Config, Environment, VERSIONS, ValidAttachment};

/// What the runtime gets: text for standard output and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// JSON, or nothing.
    pub stdout: String,
    /// 0 for success.
    pub status: u8,
}

/// Handles one call. `log` takes lines for a person, which runtimes keep from standard error.
pub async fn run(environment: &Environment, stdin: &[u8], log: &mut (dyn std::io::Write + Send)) -> Outcome {
    match call(environment, stdin, log).await {
        Ok(None) => Outcome { stdout: String::new(), status: 0 },
        Ok(Some(result)) => Outcome { stdout: result.to_string(), status: 0 },
        Err(failed) => {
            let version = Config::parse(stdin).map_or_else(|_| "1.0.0".to_owned(), |config| config.cni_version);
            let error = json!({
                "cniVersion": version, "code": failed.code, "msg": failed.message, "details": failed.details,
            });
            Outcome { stdout: error.to_string(), status: 1 }
        }
    }
}

async fn call(
    environment: &Environment,
    stdin: &[u8],
    log: &mut (dyn std::io::Write + Send),
) -> Result<Option<Value>, Failed> {
    let command = environment.command.as_deref().unwrap_or_default();
    match command {
        "VERSION" => Ok(Some(version(stdin))),
        "DEL" => {
            if let Err(failed) = del(environment, stdin).await {
                let _unheard = writeln!(log, "weft-cni: DEL goes on without the agent: {}", failed.message);
            }
            Ok(None)
        }
        "ADD" => add(environment, stdin, log).await.map(Some),
        "CHECK" => check(environment, stdin).await.map(|()| None),
        "STATUS" => status(stdin, log).await.map(|()| None),
        "GC" => gc(stdin).await.map(|()| None),
        other => {
            let what = format!("CNI_COMMAND {other:?} is not known");
            Err(Failed::new(Code::InvalidEnvironment, what).details("one of ADD, DEL, CHECK, STATUS, GC, VERSION"))
        }
    }
}

fn version(stdin: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let asked = config.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    json!({ "cniVersion": asked, "supportedVersions": VERSIONS })
}

async fn add(environment: &Environment, stdin: &[u8], log: &mut (dyn std::io::Write + Send)) -> Result<Value, Failed> {
    let config = Config::parse(stdin)?;
    let mut result = config.prev_result()?.clone();
    let (attachment, netns) = attachment(environment, &config)?;
    match ask(&config, Verb::Add(attachment), Some(&netns)).await {
        Ok(done) => {
            let _unheard = writeln!(log, "weft-cni: {}", done.note);
        }
        Err(AskError::Refused(failed)) => return Err(failed),
        Err(AskError::NoAgent(why)) => without_agent(environment, &config, &why, log)?,
    }
    // Runtimes put it there; a result must have it.
    if let Some(fields) = result.as_object_mut() {
        fields.entry("cniVersion").or_insert_with(|| config.cni_version.clone().into());
    }
    Ok(result)
}

/// Lets a pod pass that can't be in the mesh, and leaves a note of it; fails for any other.
fn without_agent(
    environment: &Environment,
    config: &Config,
    why: &str,
    log: &mut (dyn std::io::Write + Send),
) -> Result<(), Failed> {
    let pod = environment.pod()?;
    let down = |more: String| {
        let what = format!("the Weft agent on this node can't be asked about pod {pod}: {why}");
        Failed::new(Code::TryAgainLater, what).details(format!("{more}; see the agent (weft-cni) of this node"))
    };
    // After a reboot of the node there is no file yet, and the proxy's pod must start all the same.
    if config.mesh_namespace.as_ref() != Some(&pod.namespace) {
        let file = EnrolmentFile::read(&config.enrolment_file)
            .map_err(|e| down(format!("and {} can't be read: {e}", config.enrolment_file.display())))?;
        if !file.is_outside(&pod.namespace) {
            return Err(down(format!("namespace {} may have pods in the mesh, so the pod waits", pod.namespace)));
        }
    }
    let _unheard = writeln!(log, "weft-cni: no agent ({why}); pod {pod} is in a namespace outside the mesh and passes");
    let missed = Missed {
        container_id: environment.container_id()?.to_owned(),
        interface: environment.ifname()?.to_owned(),
        netns_path: environment.netns()?,
        pod,
        ips: config.ips()?,
    };
    if let Err(error) = missed.write(&config.missed_dir) {
        let _unheard = writeln!(log, "weft-cni: the agent won't learn of this pod: {error}");
    }
    Ok(())
}

async fn check(environment: &Environment, stdin: &[u8]) -> Result<(), Failed> {
    let config = Config::parse(stdin)?;
    config.prev_result()?;
    let (attachment, netns) = attachment(environment, &config)?;
    ask(&config, Verb::Check(attachment), Some(&netns)).await?;
    Ok(())
}

async fn del(environment: &Environment, stdin: &[u8]) -> Result<(), Failed> {
    let config = Config::parse(stdin)?;
    let (container_id, interface) = (environment.container_id()?, environment.ifname()?);
    Missed::remove(&config.missed_dir, container_id, interface);
    let detachment = wire::Detachment { container_id: container_id.to_owned(), interface: interface.to_owned() };
    ask(&config, Verb::Del(detachment), None).await?;
    Ok(())
}

/// Ready when pods can be added: by the agent or, those outside the mesh, without it. Not being ready would keep every
/// pod from this node, also those that bring the agent and the proxy up.
async fn status(stdin: &[u8], log: &mut (dyn std::io::Write + Send)) -> Result<(), Failed> {
    let config = Config::parse(stdin)?;
    match ask(&config, Verb::Status(wire::StatusRequest {}), None).await {
        Ok(done) => {
            let _unheard = writeln!(log, "weft-cni: {}", done.note);
            Ok(())
        }
        Err(AskError::Refused(failed)) => Err(failed),
        Err(AskError::NoAgent(why)) => match EnrolmentFile::read(&config.enrolment_file) {
            Ok(_) => {
                let _unheard = writeln!(log, "weft-cni: no agent ({why}); only pods outside the mesh can be added");
                Ok(())
            }
            Err(_) if config.mesh_namespace.is_some() => {
                let _unheard = writeln!(log, "weft-cni: no agent ({why}); only the mesh's own pods can be added");
                Ok(())
            }
            Err(_) => Err(Failed::new(Code::Unavailable, format!("the Weft agent is not there: {why}"))
                .details("no pod can be added until the agent of this node has started once")),
        },
    }
}

async fn gc(stdin: &[u8]) -> Result<(), Failed> {
    let config = Config::parse(stdin)?;
    let valid = config.valid_attachments.as_deref().ok_or_else(|| {
        Failed::new(Code::InvalidConfig, "cni.dev/valid-attachments is missing, so nothing is known to be garbage")
    })?;
    let detachment =
        |v: &ValidAttachment| wire::Detachment { container_id: v.container_id.clone(), interface: v.ifname.clone() };
    let valid_attachments = valid.iter().map(detachment).collect();
    ask(&config, Verb::Gc(wire::GarbageCollection { valid_attachments }), None).await?;
    Ok(())
}

fn attachment(environment: &Environment, config: &Config) -> Result<(wire::Attachment, Netns), Failed> {
    let path = environment.netns()?;
    let attachment = wire::Attachment {
        container_id: environment.container_id()?.to_owned(),
        interface: environment.ifname()?.to_owned(),
        netns_path: path.to_string_lossy().into_owned(),
        pod: Some((&environment.pod()?).into()),
        ips: config.ips()?.iter().map(ToString::to_string).collect(),
    };
    let netns = Netns::open(&path).map_err(|e| Failed::new(Code::InvalidEnvironment, format!("CNI_NETNS: {e}")))?;
    Ok((attachment, netns))
}

/// Why the agent did not do what was asked.
enum AskError {
    /// It isn't there, or doesn't answer.
    NoAgent(String),
    /// It said no.
    Refused(Failed),
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(failed) => failed,
            AskError::NoAgent(why) => {
                Self::new(Code::TryAgainLater, format!("the Weft agent on this node can't be asked: {why}"))
                    .details("see the agent (weft-cni) of this node")
            }
        }
    }
}

async fn ask(config: &Config, verb: Verb, netns: Option<&Netns>) -> Result<wire::Done, AskError> {
    let talk = async {
        let socket = SeqPacket::connect(&config.agent_socket)?;
        let request = wire::PluginRequest { verb: Some(verb) }.encode_to_vec();
        let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
        socket.send(&request, &fds).await?;
        let reply = socket.recv(0).await?.ok_or_else(|| std::io::Error::other("it closed the connection"))?;
        wire::PluginReply::decode(reply.bytes.as_slice()).map_err(std::io::Error::other)
    };
    let timeout = config.timeout();
    let reply = match tokio::time::timeout(timeout, talk).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return Err(AskError::NoAgent(error.to_string())),
        Err(_) => return Err(AskError::NoAgent(format!("no answer in {timeout:?}"))),
    };
    match reply.result {
        Some(plugin_reply::Result::Done(done)) => Ok(done),
        Some(plugin_reply::Result::Failure(failure)) => Err(AskError::Refused(failure.into())),
        None => Err(AskError::NoAgent("it gave an answer this plugin doesn't know".to_owned())),
    }
}

#[cfg(test)]
mod tests;
