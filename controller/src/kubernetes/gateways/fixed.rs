//! Fields that the API server lets nobody change once they have a value. Pure.
//!
//! An object that has another value there would be refused as a whole, for ever, and with it what could well be changed: the port
//! of a new listener. So such fields stay as they are, the rest is applied, and the Gateway says what has to be done. Nothing is
//! made anew by itself: a Service that goes takes its addresses with it, and the ports of nodes that somebody may use although no
//! load balancer has ever served it; a Deployment takes all pods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::owned::{Id, Owned};
use super::table::{Live, Wanted};

const CLASS: &str = "spec.loadBalancerClass";

/// A field of an object that is there, which would have to be another one to have the value that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// As `spec.loadBalancerClass`.
    field: &'static str,
    /// What it is, for people.
    is: String,
    /// What it should be, for people.
    wanted: String,
}

impl Fixed {
    fn new(field: &'static str, is: Option<&Value>, wanted: Option<&Value>) -> Self {
        let shown = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
        Self { field, is: shown(is), wanted: shown(wanted) }
    }
}

/// What can be applied to an object that is there and the Gateway's.
pub fn onto(live: &Live, kind: Owned, wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    match kind {
        Owned::Service => {
            let found = [
                (class(live, &wanted.object), &["loadBalancerClass"][..]),
                // With an address of another family whoever makes load balancers takes away the one that there is.
                (family(live, &wanted.object), &["ipFamilies", "ipFamilyPolicy", "loadBalancerIP"]),
                (headless(live), &[]),
            ];
            for (fixed, fields) in found.into_iter().filter_map(|(fixed, fields)| Some((fixed?, fields))) {
                // What isn't ours there doesn't become ours by being said.
                let is_theirs = fixed.field == CLASS && !live.sets_class;
                wanted.fixed.push(fixed);
                keep(Arc::make_mut(&mut wanted.object), (!is_theirs).then_some(&live.object), fields);
            }
        }
        // It is refused: pods that a kept selector would not find are none of its own.
        Owned::Deployment => wanted.fixed.extend(selector(live, &wanted.object)),
        _ => {}
    }
    wanted
}

/// What is to be done about such fields, for people.
pub fn told(id: &Id, fixed: &[Fixed]) -> String {
    let (kind, name) = (id.kind.resource().kind, &id.name);
    let each = fixed.iter().map(|it| format!("{} is {} and should be {}", it.field, it.is, it.wanted));
    let each = each.collect::<Vec<_>>().join(", ");
    let price = match id.kind {
        Owned::Service => "perhaps with other addresses",
        _ => "with new pods",
    };
    format!("{kind} {name}: {each}, and nobody can change that: delete the {kind} {name} and it is made anew, {price}")
}

/// Leaves fields of `spec` as they are there; without a `live` one nothing is said of them.
fn keep(object: &mut Value, live: Option<&Value>, fields: &[&str]) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in fields {
        match live.and_then(|live| live.get("spec")?.get(field)) {
            Some(value) => drop(spec.insert((*field).to_owned(), value.clone())),
            None => drop(spec.remove(*field)),
        }
    }
}

/// It can be said when a Service becomes one of type LoadBalancer, and goes when it becomes another.
fn class(live: &Live, wanted: &Value) -> Option<Fixed> {
    let is_balanced = |object: &Value| object.pointer("/spec/type") == Some(&json!("LoadBalancer"));
    (is_balanced(&live.object) && is_balanced(wanted)).then_some(())?;
    let field = "/spec/loadBalancerClass";
    let (is, wanted) = (live.object.pointer(field), wanted.pointer(field));
    // One that somebody else has given it, an admission webhook say, is nobody's mistake.
    let is_theirs = wanted.is_none() && !live.sets_class;
    (is != wanted && !is_theirs).then(|| Fixed::new(CLASS, is, wanted))
}

/// The first one is that of its first address; a second one may come and go.
fn family(live: &Live, wanted: &Value) -> Option<Fixed> {
    let field = "/spec/ipFamilies/0";
    let (is, wanted) = (live.object.pointer(field)?, wanted.pointer(field)?);
    (is != wanted).then(|| Fixed::new("spec.ipFamilies[0]", Some(is), Some(wanted)))
}

/// Clients of a Gateway need an address, and a Service without one never gets one.
fn headless(live: &Live) -> Option<Fixed> {
    let is = live.object.pointer("/spec/clusterIP").filter(|ip| *ip == "None")?;
    Some(Fixed { wanted: "an address".to_owned(), ..Fixed::new("spec.clusterIP", Some(is), None) })
}

fn selector(live: &Live, wanted: &Value) -> Option<Fixed> {
    let (is, wanted) = (live.object.pointer("/spec/selector")?, wanted.pointer("/spec/selector")?);
    (is != wanted).then(|| Fixed::new("spec.selector", Some(is), Some(wanted)))
}
