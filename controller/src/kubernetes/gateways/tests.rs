//! What a Gateway's objects are, what is to be done about them, and that it is done.

mod applying;
mod deciding;
mod desired;
mod fixed;
mod planning;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use weft_core::gateway::Transport;
use weft_core::ids::{GatewayKey, Port};
use weft_k8s::object::GatewayParametersSpec;
use weft_k8s::translate::gateway::{GatewayPlan, Infrastructure, Unmade};

use super::table::{Id, Wanted};
use super::*;

fn plan(name: &str) -> GatewayPlan {
    GatewayPlan {
        key: GatewayKey::new("edge", name),
        uid: format!("uid-of-{name}"),
        class: "weft".to_owned(),
        accepted: true,
        requested: Vec::new(),
        ports: [(Port::new(80).unwrap(), Transport::Tcp), (Port::new(53).unwrap(), Transport::Udp)].into(),
        infrastructure: Infrastructure::default(),
        remembered: None,
    }
}

fn with(mut plan: GatewayPlan, parameters: Value) -> GatewayPlan {
    plan.infrastructure.parameters = serde_json::from_value::<GatewayParametersSpec>(parameters).unwrap();
    plan
}

fn settings(roots: std::path::PathBuf) -> PodSettings {
    PodSettings {
        image: "registry/weft-node-proxy:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        control: "weft-controller.mesh.svc:15010".to_owned(),
        control_account: ("mesh".into(), "weft-controller".into()),
        ca: "weft-ca.mesh.svc:15012".to_owned(),
        ca_account: ("mesh".into(), "weft-ca".into()),
        trust_domain: "cluster.local".to_owned(),
        trust_domain_aliases: vec!["old.example".to_owned()],
        token_audience: "weft".to_owned(),
        log: "info".to_owned(),
        arguments: vec!["--access-log=all".to_owned()],
        roots,
    }
}

fn made(plan: &GatewayPlan) -> Vec<Value> {
    objects(plan, &settings("/roots".into()), "ROOTS")
}

fn wanted(plan: &GatewayPlan) -> BTreeMap<Id, Wanted> {
    let wanted = |object: Value| {
        let (gateway, gateway_uid) = (plan.key.clone(), plan.uid.clone());
        (
            Id::of(&object).unwrap(),
            Wanted { gateway, gateway_uid, object: Arc::new(object), begins_with: None, fixed: Vec::new() },
        )
    };
    made(plan).into_iter().map(wanted).collect()
}
