//! Golden translations, each of which `weft validate` has to pass; every annotation; and what must not get lost.

mod annotations;
mod closed;
mod golden;
mod reading;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_k8s::translate::gateway::Place;

use super::input::Inputs;
use super::report::{Level, Report};
use super::translate::{Options, translate};
use super::{named, write};
use crate::migrate::files::take;
use crate::migrate::write::Document;

/// As the command line has them if nobody says anything.
pub fn options() -> Options {
    Options {
        gateway_class: "weft".into(),
        gateway_namespace: None,
        hosts: Vec::new(),
        classes: Vec::new(),
        default_certificate: None,
        allow_unprotected: false,
    }
}

/// What becomes of manifests.
pub struct Made {
    pub inputs: Inputs,
    pub documents: Vec<Document>,
    pub report: Report,
}

/// Translates manifests.
pub fn migrate(text: &str, options: &Options) -> Made {
    let (mut inputs, mut report) = (Inputs::default(), Report::default());
    take(text, &mut report, named, |object, report| inputs.add(object, report)).unwrap();
    inputs.sort();
    let documents = translate(&inputs, options, &mut report);
    Made { inputs, documents, report }
}

impl Made {
    /// What was made, as YAML.
    pub fn yaml(&self) -> String {
        write::yaml(self.documents.iter()).unwrap()
    }

    /// What a cluster has besides what was made.
    fn surroundings(&self) -> String {
        let mut all = vec![
            json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": { "name": "weft" },
            "spec": { "controllerName": "weftmesh.io/gateway-controller" } }),
        ];
        let mut namespaces = BTreeSet::new();
        for ((namespace, _), service) in &self.inputs.services {
            namespaces.insert(namespace.clone());
            let mut service = serde_json::to_value(service).unwrap();
            service["apiVersion"] = json!("v1");
            service["kind"] = json!("Service");
            all.push(service);
        }
        for ((namespace, _), map) in &self.inputs.config_maps {
            namespaces.insert(namespace.clone());
            let mut map = serde_json::to_value(map).unwrap();
            map["apiVersion"] = json!("v1");
            map["kind"] = json!("ConfigMap");
            all.push(map);
        }
        for (namespace, name) in self.inputs.secrets.iter().flatten() {
            namespaces.insert(namespace.clone());
            let pair = rcgen::generate_simple_self_signed(["any.example.com".to_owned()]).unwrap();
            let data = json!({ "tls.crt": pair.cert.pem(), "tls.key": pair.signing_key.serialize_pem() });
            all.push(json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": { "name": name, "namespace": namespace }, "stringData": data }));
        }
        namespaces.extend(self.inputs.ingresses.iter().filter_map(|it| it.metadata.namespace.clone()));
        for name in namespaces {
            let labels = json!({ "kubernetes.io/metadata.name": name });
            all.push(
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }),
            );
        }
        all.iter().map(|object| format!("---\n{}", serde_norway::to_string(object).unwrap())).collect()
    }

    /// What `weft validate` has against it.
    pub fn complaints(&self) -> Vec<String> {
        let files = [("cluster.yaml".to_owned(), self.surroundings()), ("made.yaml".to_owned(), self.yaml())];
        let findings = crate::validate::check(&files, Place::Cluster);
        let serious = findings.iter().filter(|it| it.severity == weft_k8s::parse::Severity::Error);
        serious.map(ToString::to_string).collect()
    }
}

/// An Ingress of a class for one host.
pub fn ingress(class: &str, annotations: &Value) -> String {
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": "web", "namespace": "shop", "annotations": annotations },
        "spec": { "ingressClassName": class, "rules": [{ "host": "a.com", "http": { "paths": [path] } }] } })
    .to_string()
}

#[test]
fn what_is_found_only_in_one_place_is_reported_once() {
    let mut report = Report::default();
    for _ in 0..2 {
        report.say(Level::LeftOut, ("Ingress a/b", "x", "y"), "why", "what");
    }
    assert_eq!(report.entries.len(), 1);
    assert!(report.is_incomplete());
}

#[test]
fn a_route_has_sixteen_rules_and_a_gateway_sixty_four_listeners_at_most() {
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let paths: Vec<_> =
        (0..40).map(|i| json!({ "path": format!("/{i}"), "pathType": "Prefix", "backend": backend })).collect();
    let rules: Vec<_> = (0..70).map(|i| json!({ "host": format!("h{i}.com"), "http": { "paths": paths } })).collect();
    let ingress = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "ingressClassName": "nginx", "tls": [{ "secretName": "tls" }], "rules": rules } });
    let made = migrate(&ingress.to_string(), &options());
    let of_kind =
        |kind: &str| made.documents.iter().map(|it| &it.object).filter(|it| it["kind"] == kind).collect::<Vec<_>>();
    let gateways = of_kind("Gateway");
    assert_eq!(gateways.len(), 2);
    for gateway in &gateways {
        assert!(gateway["spec"]["listeners"].as_array().unwrap().len() <= 64);
    }
    for route in of_kind("HTTPRoute") {
        assert!(route["spec"]["rules"].as_array().unwrap().len() <= 16);
        // Every listener that a route is on is one of the Gateway's that it names.
        for parent in route["spec"]["parentRefs"].as_array().unwrap() {
            let gateway = gateways.iter().find(|it| it["metadata"]["name"] == parent["name"]).unwrap();
            let listeners = gateway["spec"]["listeners"].as_array().unwrap();
            assert!(listeners.iter().any(|it| it["name"] == parent["sectionName"]), "{parent}");
        }
    }
    // 40 paths are three routes, and one that redirects, of each host.
    assert_eq!(of_kind("HTTPRoute").len(), 70 * 4);
}

#[test]
fn only_hosts_that_are_asked_for_are_made_and_spoken_of() {
    let text = format!(
        "{}\n---\n{}",
        ingress("nginx", &json!({})),
        ingress("nginx", &json!({ "nginx.ingress.kubernetes.io/limit-rps": "1" }))
            .replace("a.com", "b.com")
            .replace("\"name\":\"web\",\"namespace\"", "\"name\":\"other\",\"namespace\"")
    );
    let all = migrate(&text, &options());
    assert!(all.report.is_incomplete());
    let one = migrate(&text, &Options { hosts: vec!["a.com".into()], ..options() });
    assert_eq!(one.report.made, ["Gateway shop/nginx", "HTTPRoute shop/web"]);
    assert!(!one.report.is_incomplete(), "{}", one.report);
}

#[test]
fn what_is_no_hostname_is_left_out_and_names_no_file() {
    for host in ["../../etc/x", "a_b.com", "10.0.0.1", "*", "a.*.com"] {
        let made = migrate(&ingress("nginx", &json!({})).replace("a.com", host), &options());
        assert!(made.documents.is_empty(), "{host}: {:?}", made.report.made);
        assert!(made.report.of(Level::LeftOut).any(|it| it.message == "is not a hostname"), "{host}: {}", made.report);
    }
}

#[test]
fn objects_of_one_kind_never_have_the_same_name() {
    // The second is named as the redirect of the first.
    let tls = json!([{ "secretName": "tls" }]);
    let one = |name: &str, host: &str| {
        let mut object: Value = serde_json::from_str(&ingress("nginx", &json!({}))).unwrap();
        object["metadata"]["name"] = json!(name);
        object["spec"]["tls"] = tls.clone();
        object["spec"]["rules"][0]["host"] = json!(host);
        object.to_string()
    };
    let made = migrate(&format!("{}\n---\n{}", one("web", "a.com"), one("web-redirect", "b.com")), &options());
    let names: BTreeSet<_> = made.report.made.iter().collect();
    assert_eq!((names.len(), made.documents.len()), (5, 5), "{:?}", made.report.made);
}
