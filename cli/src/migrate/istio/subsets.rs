//! Subsets of DestinationRules -> Services of their own, which routes name as backends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::context::Context;
use super::fields::{Fields, Lost};
use super::input::{Key, Labels, Source};

/// What of a Service its subsets have as well, besides ports and selector; not where it is the default.
const SHARED: [(&str, &str); 7] = [
    ("internalTrafficPolicy", "Cluster"),
    ("ipFamilies", ""),
    ("ipFamilyPolicy", "SingleStack"),
    ("publishNotReadyAddresses", ""),
    ("sessionAffinity", "None"),
    ("sessionAffinityConfig", ""),
    ("trafficDistribution", ""),
];

/// A subset as a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    pub key: Key,
    /// What is to be made; `None` if there is such a Service already.
    pub object: Option<Value>,
}

/// All subsets, and which of them somebody sends to.
pub struct Subsets<'a> {
    context: &'a Context<'a>,
    used: RefCell<BTreeMap<(Key, String), Subset>>,
}

impl<'a> Subsets<'a> {
    /// The subsets of what was read.
    pub fn new(context: &'a Context<'a>) -> Self {
        Self { context, used: RefCell::default() }
    }

    /// DestinationRules for a Service: those of its own namespace before others, the older first.
    pub fn rules_of<'b>(context: &'b Context<'_>, service: &Key) -> Vec<&'b Source> {
        let all = context.inputs.of_kind("DestinationRule");
        let is_for = |rule: &&Source| {
            let host = rule.spec.get("host").and_then(Value::as_str).unwrap_or_default();
            context.service("spec.host", host, &rule.namespace).as_ref() == Ok(service)
        };
        let mut found: Vec<_> = all.filter(is_for).collect();
        found.sort_by_key(|rule| rule.namespace != service.0);
        found
    }

    /// The Service of a subset.
    ///
    /// # Errors
    /// That there is none, or that no Service can be it.
    pub fn service(&self, field: &str, service: &Key, name: &str) -> Result<Subset, Lost> {
        let at = (service.clone(), name.to_owned());
        if let Some(known) = self.used.borrow().get(&at) {
            return Ok(known.clone());
        }
        let made = self.made(field, service, name)?;
        self.used.borrow_mut().insert(at, made.clone());
        Ok(made)
    }

    fn made(&self, field: &str, service: &Key, name: &str) -> Result<Subset, Lost> {
        let lost = |why: &str, remedy: &str| Err(Lost::new(field, format!("{}/{}", service.1, name), why, remedy));
        let Some(labels) = self.labels(service, name) else {
            return lost("no DestinationRule that was read has the subset", "add it, or the rule's manifest");
        };
        let base = self.context.known(field, service)?;
        let mut selector = base.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            return lost("its Service has no selector, so that its pods can't be told apart", "make Services by hand");
        }
        for (key, value) in labels {
            let before = selector.insert(key, value.clone());
            if before.is_some_and(|old| old != value) {
                return lost("its labels contradict the Service's selector: no pod is of it", "correct the labels");
            }
        }
        let mut spec = Map::from_iter([("selector".to_owned(), json!(selector))]);
        let whole = serde_json::to_value(&base.spec).unwrap_or_default();
        let mut ports = whole.get("ports").cloned().unwrap_or_default();
        for port in ports.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
        spec.insert("ports".to_owned(), ports);
        for (key, default) in SHARED {
            let value = whole.get(key).filter(|it| !it.is_null() && it.as_str() != Some(default));
            spec.extend(value.map(|value| (key.to_owned(), value.clone())));
        }
        let wanted = (service.0.clone(), format!("{}-{name}", service.1));
        match self.context.inputs.services.get(&wanted) {
            Some(other) if other.spec.as_ref().and_then(|it| it.selector.as_ref()) == Some(&selector) => {
                Ok(Subset { key: wanted, object: None })
            }
            Some(_) => lost("a Service that isn't its own has the name of the subset's", "rename the subset"),
            None => {
                let metadata = json!({ "name": wanted.1, "namespace": wanted.0 });
                let object = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec });
                Ok(Subset { key: wanted, object: Some(object) })
            }
        }
    }

    fn labels(&self, service: &Key, name: &str) -> Option<Labels> {
        let rules = Self::rules_of(self.context, service);
        let subsets = rules.iter().flat_map(|rule| Fields::new("spec", rule.spec.clone()).parts("subsets"));
        let mut found = subsets.filter_map(|mut subset| {
            let labels = subset.pairs("labels");
            (subset.text("name").as_deref() == Some(name)).then(|| labels.into_iter().collect())
        });
        found.next()
    }

    /// Subsets of a Service that somebody sends to, with their Services.
    pub fn used(&self, service: &Key) -> BTreeMap<String, Key> {
        let used = self.used.borrow();
        let own = used.iter().filter(|((of, _), _)| of == service);
        own.map(|((_, name), subset)| (name.clone(), subset.key.clone())).collect()
    }

    /// The Services to be made for those that somebody sends to.
    pub fn objects(&self, sent_to: &BTreeSet<Key>) -> Vec<Value> {
        let used = self.used.borrow();
        let made = used.values().filter(|subset| sent_to.contains(&subset.key));
        made.filter_map(|subset| subset.object.clone()).collect()
    }
}
