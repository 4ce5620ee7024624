//! BackendTLSPolicies: which is in force where, what Gateways are told, and what the statuses say.

use weft_core::gateway::{BackendTls, BackendTrust, SubjectAltName};

use super::gateways::serving;
use super::*;
use crate::object::Condition;
use crate::translate::gateway::trust::tests::AUTHORITY;

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: https, port: 443}, {name: alt, port: 8443}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {clusterIP: 10.96.0.11, ports: [{port: 443}]}
";

const ROUTE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: gw, namespace: edge}], rules: [{backendRefs: [{name: bank, port: 443}]}]}
";

fn config_map(name: &str, text: &str) -> String {
    let indented = text.replace('\n', "\n    ");
    format!(
        "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata:\n  ca.crt: |\n    {indented}\n"
    )
}

fn policy(name: &str, day: u32, target: &str, validation: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: {name}, namespace: shop, generation: 4, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\n\
         spec: {{targetRefs: [{target}], validation: {{{validation}}}}}\n"
    )
}

const BANK: &str = "{group: '', kind: Service, name: bank}";
const PORT: &str = "{group: '', kind: Service, name: bank, sectionName: https}";

fn trusting(host: &str, references: &str) -> String {
    format!("hostname: {host}, caCertificateRefs: [{references}]")
}

const CA: &str = "{group: '', kind: ConfigMap, name: ca}";

fn served(text: &str) -> Index {
    let mut index = Index::new(serving());
    let text = BASE.to_owned() + ROUTE + &config_map("ca", AUTHORITY) + &config_map("garbage", "Hello") + text;
    objects(&text).into_iter().for_each(|o| index.apply(o));
    index.commit();
    index
}

fn all_made(index: &Index) -> Vec<BackendTls> {
    let of = |resource: &Resource| match resource {
        Resource::BackendTls(it) => Some((**it).clone()),
        _ => None,
    };
    index.resources().filter_map(of).collect()
}

/// Which name is used towards which port.
fn made(index: &Index) -> Vec<String> {
    all_made(index).iter().map(|it| format!("{} {}", it.port, it.hostname)).collect()
}

/// The conditions at each ancestor, as `Gateway: type/reason`; True ones are left out.
fn told(index: &Index, name: &str) -> Option<Vec<String>> {
    let status = index.status(&ObjectRef::new(Kind::BackendTlsPolicy, "shop", name));
    let Some((4, ObjectStatus::GatewayAncestors(ancestors))) = status else { return None };
    let show = |condition: &Condition| format!("{:?}/{}", condition.kind, condition.reason);
    let each = ancestors.iter().map(|ancestor| {
        let wrong: Vec<_> = ancestor.conditions.iter().filter(|c| !c.status).map(show).collect();
        let of = &ancestor.parent_ref;
        assert_eq!((of.kind.as_deref(), ancestor.conditions.len()), (Some("Gateway"), 2));
        format!("{}/{}: {}", of.namespace.as_deref().unwrap(), of.name, wrong.join(" "))
    });
    Some(each.collect())
}

fn good() -> Option<Vec<String>> {
    Some(vec!["edge/gw: ".to_owned()])
}

#[test]
fn a_policy_is_for_the_ports_of_its_service() {
    let index = served(&policy("p", 1, BANK, &trusting("bank.com", CA)));
    assert_eq!(made(&index), ["shop/bank:443 bank.com", "shop/bank:8443 bank.com"]);
    assert_eq!(told(&index, "p"), good());
    let [one, _] = &all_made(&index)[..] else { panic!() };
    let BackendTrust::Bundle(bundle) = &one.trust else { panic!("{one:?}") };
    assert!(String::from_utf8_lossy(bundle).contains("BEGIN CERTIFICATE"));
    let index = served(&policy(
        "p",
        1,
        PORT,
        "hostname: bank.com, wellKnownCACertificates: System, \
        subjectAltNames: [{type: Hostname, hostname: a.com}, {type: URI, uri: 'spiffe://x/y'}]",
    ));
    let [one] = &all_made(&index)[..] else { panic!("{:?}", made(&index)) };
    let names = vec![SubjectAltName::Hostname("a.com".into()), SubjectAltName::Uri("spiffe://x/y".into())];
    assert_eq!((&one.trust, &one.subject_alt_names, one.port.port.get()), (&BackendTrust::System, &names, 443));
}

#[test]
fn a_policy_that_cannot_be_used_keeps_its_ports_and_says_why() {
    let no_ca = |reason: &str| format!("Accepted/NoValidCACertificate ResolvedRefs/{reason}");
    let invalid = || "Accepted/Invalid".to_owned();
    for (validation, want) in [
        (trusting("a.com", "{group: '', kind: ConfigMap, name: nobody}"), no_ca("InvalidCACertificateRef")),
        (trusting("a.com", "{group: '', kind: ConfigMap, name: garbage}"), no_ca("InvalidCACertificateRef")),
        (trusting("a.com", "{group: '', kind: Secret, name: ca}"), no_ca("InvalidKind")),
        (trusting("a.com", "{group: a.b, kind: ConfigMap, name: ca}"), no_ca("InvalidKind")),
        ("hostname: a.com, wellKnownCACertificates: Mine".to_owned(), invalid()),
        ("hostname: a.com".to_owned(), invalid()),
        (trusting("a.com", CA) + ", wellKnownCACertificates: System", invalid()),
        (trusting("'*.a.com'", CA), invalid()),
        (trusting("'a b'", CA), invalid()),
        (trusting("a.com", CA) + ", subjectAltNames: [{type: URI, uri: nonsense}]", invalid()),
        (trusting("a.com", CA) + ", subjectAltNames: [{type: Hostname, hostname: 'a b'}]", invalid()),
    ] {
        let index = served(&policy("p", 1, PORT, &validation));
        assert_eq!(told(&index, "p"), Some(vec![format!("edge/gw: {want}")]), "{validation}");
        let [one] = &all_made(&index)[..] else { panic!("never in the clear: {validation}") };
        let BackendTrust::Invalid(why) = &one.trust else { panic!("{validation}: {one:?}") };
        assert!(why.contains("spec.validation"), "{why}");
        let problems = index.problems(&ObjectRef::new(Kind::BackendTlsPolicy, "shop", "p"));
        assert!(!problems.is_empty() && problems.iter().all(|it| !it.remedy.is_empty()), "{problems:?}");
    }
    // One of two authorities is there.
    let two = trusting("a.com", &format!("{{group: '', kind: ConfigMap, name: nobody}}, {CA}"));
    let index = served(&policy("p", 1, PORT, &two));
    assert_eq!(told(&index, "p"), Some(vec!["edge/gw: ResolvedRefs/InvalidCACertificateRef".to_owned()]));
    assert!(matches!(all_made(&index)[0].trust, BackendTrust::Bundle(_)));
}

#[test]
fn the_older_policy_has_a_target_and_a_port_goes_before_the_whole() {
    let conflicted = Some(vec!["edge/gw: Accepted/Conflicted".to_owned()]);
    let (a, b) = (trusting("a.com", CA), trusting("b.com", CA));
    for target in [BANK, PORT] {
        for (first, second) in [(2, 1), (1, 1), (1, 2)] {
            let index = served(&(policy("x", first, target, &a) + &policy("y", second, target, &b)));
            let x_wins = first <= second;
            let (x, y) = if x_wins { (good(), conflicted.clone()) } else { (conflicted.clone(), good()) };
            assert_eq!((told(&index, "x"), told(&index, "y")), (x, y), "{target} {first} {second}");
            let host = if x_wins { "a.com" } else { "b.com" };
            assert!(made(&index).iter().all(|it| it.ends_with(host)), "{:?}", made(&index));
        }
    }
    for (first, second) in [(1, 2), (2, 1)] {
        let mut index = served(&(policy("whole", first, BANK, &a) + &policy("port", second, PORT, &b)));
        assert_eq!((told(&index, "whole"), told(&index, "port")), (good(), good()));
        assert_eq!(made(&index), ["shop/bank:443 b.com", "shop/bank:8443 a.com"]);
        index.delete(&ObjectRef::new(Kind::BackendTlsPolicy, "shop", "port"));
        index.commit();
        assert_eq!(made(&index), ["shop/bank:443 a.com", "shop/bank:8443 a.com"]);
        assert!(told(&index, "port").is_none());
    }
    // An older one that can't be used has it all the same.
    let index = served(&(policy("x", 1, BANK, "hostname: a.com") + &policy("y", 2, BANK, &b)));
    assert_eq!(told(&index, "y"), conflicted);
    assert!(all_made(&index).iter().all(|it| matches!(it.trust, BackendTrust::Invalid(_))));
}

#[test]
fn targets_that_are_not_there() {
    let not_found = Some(vec!["edge/gw: Accepted/TargetNotFound".to_owned()]);
    let index =
        served(&policy("p", 1, "{group: '', kind: Service, name: bank, sectionName: nobody}", &trusting("a.com", CA)));
    assert_eq!((told(&index, "p"), made(&index).len()), (not_found.clone(), 0));
    let mut index = served(&policy("p", 1, BANK, &trusting("a.com", CA)));
    index.delete(&ObjectRef::new(Kind::Service, "shop", "bank"));
    index.commit();
    assert_eq!((told(&index, "p"), made(&index).len()), (not_found, 0));
    let index = served(&policy("p", 1, "{group: '', kind: Nonsense, name: bank}", &trusting("a.com", CA)));
    assert_eq!((told(&index, "p"), made(&index).len()), (Some(Vec::new()), 0));
    assert_eq!(index.problems(&ObjectRef::new(Kind::BackendTlsPolicy, "shop", "p")).len(), 1);
}

#[test]
fn ancestors_are_the_gateways_whose_routes_send_there() {
    let other = "{group: '', kind: Service, name: other}";
    let mut index = served(&policy("p", 1, other, &trusting("a.com", CA)));
    assert_eq!((told(&index, "p"), made(&index)), (Some(Vec::new()), vec!["shop/other:443 a.com".to_owned()]));
    let mut with = |text: &str| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        let out = index.commit();
        (told(&index, "p"), out)
    };
    assert_eq!(with(&ROUTE.replace("name: bank", "name: other")).0, good());
    let two = BASE.replace("name: gw", "name: gw2").replace("port: 80,", "port: 81,")
        + &ROUTE.replace("name: bank", "name: other").replace("name: r", "name: r2").replace("name: gw", "name: gw2");
    assert_eq!(with(&two).0, Some(vec!["edge/gw: ".to_owned(), "edge/gw2: ".to_owned()]));
    let (told_now, out) = with(ROUTE);
    assert_eq!(told_now, Some(vec!["edge/gw2: ".to_owned()]));
    let kinds: Vec<_> = out.statuses.iter().map(|update| update.object.kind).collect();
    assert_eq!(kinds, [Kind::BackendTlsPolicy], "{:?}", out.statuses);
}

#[test]
fn config_maps_and_services_change_live() {
    let mut index = served(&policy("p", 1, PORT, &trusting("a.com", "{group: '', kind: ConfigMap, name: late}")));
    let mut with = |text: &str| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        index.commit();
        (told(&index, "p"), matches!(all_made(&index)[0].trust, BackendTrust::Bundle(_)))
    };
    let bad = || Some(vec!["edge/gw: Accepted/NoValidCACertificate ResolvedRefs/InvalidCACertificateRef".to_owned()]);
    assert_eq!(with(&config_map("unrelated", AUTHORITY)), (bad(), false));
    assert_eq!(with(&config_map("late", AUTHORITY)), (good(), true));
    assert_eq!(with(&config_map("late", "")), (bad(), false));
    assert_eq!(with(&config_map("late", AUTHORITY)), (good(), true));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: bank, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.10, ports: [{name: https, port: 444}]}";
    with(service);
    assert_eq!(made(&index), ["shop/bank:444 a.com"]);
    index.delete(&ObjectRef::new(Kind::BackendTlsPolicy, "shop", "p"));
    let out = index.commit();
    assert!(matches!(&out.changes[..], [Change::Remove(ResourceKey::BackendTls(_))]), "{:?}", out.changes);
}

#[test]
fn where_gateways_are_not_served_policies_are_not_ours() {
    let text = BASE.to_owned() + &config_map("ca", AUTHORITY) + &policy("p", 1, BANK, &trusting("a.com", CA));
    let (index, out) = index(&text);
    assert!(made(&index).is_empty() && out.statuses.is_empty());
}
