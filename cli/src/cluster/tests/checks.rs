//! What each check finds, as tables: what is broken, and what is said of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::sample::*;
use crate::cluster::checks::{self, components, gateway_api, network, objects, platform, protection, rights, trust};
use crate::cluster::facts::{Facts, MeshObject, Pages, Unread};
use crate::cluster::finding::{Check, Severity};

/// Findings as `severity object: what`.
fn said(check: &Check) -> Vec<String> {
    check.findings.iter().map(|f| format!("{} {}: {}", f.severity.as_str(), f.object, f.what)).collect()
}

fn one(check: &Check) -> String {
    let said = said(check);
    assert_eq!(said.len(), 1, "{said:#?}");
    said[0].clone()
}

#[test]
fn a_healthy_mesh_has_no_findings() {
    for report in [checks::installed(&healthy(), (1, 30)), checks::before(&healthy(), (1, 30))] {
        assert_eq!(report.findings(), Vec::<&crate::cluster::finding::Finding>::new());
        assert_eq!(report.code(), 0);
    }
}

#[test]
fn versions_of_api_servers_and_kernels() {
    for (text, expected) in [
        ("v1.34.2", Some((1, 34))),
        ("v1.30.1+k3s1", Some((1, 30))),
        ("5.15.0-1051-gke", Some((5, 15))),
        ("6.1", Some((6, 1))),
        ("nonsense", None),
    ] {
        assert_eq!(platform::version(text), expected, "{text}");
    }
    let mut server = healthy().server;
    for (version, old) in [("v1.29.9", true), ("v1.30.0", false), ("v2.0.0", false), ("odd", true)] {
        server.version = version.into();
        assert_eq!(!platform::api_server(&server, (1, 30)).findings.is_empty(), old, "{version}");
    }
    for (kernel, old) in [("5.9.16", true), ("4.18.0-553.el8", true), ("5.10.0", false), ("6.12.1", false)] {
        assert_eq!(!platform::kernels(&[object(node("n", kernel))]).findings.is_empty(), old, "{kernel}");
    }
    let mut windows = node("w", "10.0.20348");
    windows["status"]["nodeInfo"]["operatingSystem"] = json!("windows");
    assert!(one(&platform::kernels(&[object(windows)])).starts_with("note Node w: it runs windows"));
}

#[test]
fn runtimes_and_processors() {
    for (field, value, expected) in [
        ("containerRuntimeVersion", "cri-o://1.34.0", ""),
        ("containerRuntimeVersion", "docker://28.0.0", "warning Node n: its runtime is docker://28.0.0"),
        ("containerRuntimeVersion", "rkt://1", "warning Node n: its runtime is rkt://1"),
        ("architecture", "arm64", ""),
        ("architecture", "s390x", "error Node n: there are no images for s390x"),
    ] {
        let mut node = node("n", "6.1.0");
        node["status"]["nodeInfo"][field] = json!(value);
        let said = said(&platform::runtimes(&[object(node)]));
        assert!(
            if expected.is_empty() { said.is_empty() } else { said.len() == 1 && said[0].starts_with(expected) },
            "{value}: {said:?}"
        );
    }
}

#[test]
fn load_balancing_in_sockets_is_found_and_safe_settings_are_not() {
    let cilium = |data: Value| network::socket_load_balancing(Some(&object(json!({ "data": data }))), None);
    let alone = json!({ "cni-exclusive": "false", "kube-proxy-replacement": "false" });
    for (more, expected) in [
        (json!({}), 0),
        (json!({ "kube-proxy-replacement": "true" }), 1),
        (json!({ "kube-proxy-replacement": "strict" }), 1),
        (json!({ "kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true" }), 0),
        (json!({ "bpf-lb-sock": "true" }), 1),
        (json!({ "bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "false" }), 1),
        (json!({ "cni-exclusive": "true" }), 1),
        (json!({ "cni-exclusive": "true", "kube-proxy-replacement": "true" }), 2),
    ] {
        let mut data = alone.clone();
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(cilium(data).findings.len(), expected, "{more}");
    }
    for (spec, is_bad) in [
        (json!({}), false),
        (json!({ "bpfEnabled": false, "bpfConnectTimeLoadBalancing": "TCP" }), false),
        (json!({ "bpfEnabled": true }), true),
        (json!({ "bpfEnabled": true, "bpfConnectTimeLoadBalancing": "TCP" }), true),
        (json!({ "bpfEnabled": true, "bpfConnectTimeLoadBalancing": "Disabled" }), false),
        (json!({ "bpfEnabled": true, "bpfConnectTimeLoadBalancingEnabled": false }), false),
    ] {
        let check = network::socket_load_balancing(None, Some(&json!({ "spec": spec })));
        assert_eq!(!check.findings.is_empty(), is_bad, "{spec}");
    }
}

fn policies(specs: Value) -> Check {
    let facts = healthy();
    let specs = specs.as_array().unwrap().iter().enumerate();
    let all = specs
        .map(|(i, spec)| object(json!({ "metadata": { "namespace": "shop", "name": format!("p{i}") }, "spec": spec })));
    network::policies(&all.collect::<Vec<_>>(), &facts.namespaces.unwrap(), &facts.pods.unwrap(), "weft-system")
}

#[test]
fn network_policies_that_shut_tunnels_out_are_named() {
    let port = |port: Value| json!({ "ports": [{ "port": port }] });
    let from = |port: i32, app: &str| json!({ "from": [{ "podSelector": { "matchLabels": { "app": app } } }], "ports": [{ "port": port }] });
    for (specs, expected) in [
        // Nothing is let in, or everything.
        (json!([{ "podSelector": {} }]), vec![]),
        (json!([{ "podSelector": {}, "ingress": [{}] }]), vec![]),
        (json!([{ "podSelector": {}, "ingress": [port(json!(8080))] }]), vec!["p0"]),
        (json!([{ "podSelector": {}, "ingress": [port(json!("http"))] }]), vec!["p0"]),
        (json!([{ "podSelector": {}, "ingress": [{ "ports": [{ "port": 8080 }, { "port": 15008 }] }] }]), vec![]),
        (
            json!([{ "podSelector": {}, "ingress": [{ "ports": [{ "port": 15008, "protocol": "UDP" }, { "port": 1 }] }] }]),
            vec!["p0"],
        ),
        (json!([{ "podSelector": {}, "ingress": [{ "ports": [{ "port": 15000, "endPort": 15010 }] }] }]), vec![]),
        // It selects nobody of the mesh.
        (json!([{ "podSelector": { "matchLabels": { "app": "none" } }, "ingress": [port(json!(8080))] }]), vec![]),
        // Another policy, or another rule, lets the same peers in, or everybody.
        (
            json!([{ "podSelector": {}, "ingress": [port(json!(8080))] }, { "podSelector": {}, "ingress": [port(json!(15008))] }]),
            vec![],
        ),
        (json!([{ "podSelector": {}, "ingress": [from(8080, "web"), from(15008, "web")] }]), vec![]),
        (json!([{ "podSelector": {}, "ingress": [from(8080, "web"), from(15008, "other")] }]), vec!["p0"]),
        // The other one selects only some of the pods.
        (
            json!([{ "podSelector": {}, "ingress": [port(json!(8080))] }, { "podSelector": { "matchLabels": { "app": "web" } }, "ingress": [port(json!(15008))] }]),
            vec!["p0"],
        ),
        // Outwards: names and addresses elsewhere are none of ours.
        (json!([{ "podSelector": {}, "egress": [port(json!(53))] }]), vec![]),
        (
            json!([{ "podSelector": {}, "egress": [{ "to": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }], "ports": [{ "port": 443 }] }] }]),
            vec![],
        ),
        (json!([{ "podSelector": {}, "egress": [port(json!(8080))] }]), vec!["p0"]),
    ] {
        let check = policies(specs.clone());
        let found: Vec<_> = check.findings.iter().map(|f| f.object.trim_start_matches("NetworkPolicy shop/")).collect();
        assert_eq!(found, expected, "{specs}");
    }
    let check = policies(json!([{ "podSelector": {}, "ingress": [{}, port(json!(8080)), port(json!(9090))] }]));
    assert_eq!(said(&check), Vec::<String>::new(), "the first rule lets everything in");
    let check = policies(json!([{ "podSelector": {}, "ingress": [from(1, "a"), port(json!(8080))] }]));
    insta::assert_snapshot!(check.findings[0].to_string());
}

#[test]
fn the_gateway_api_is_named() {
    let crds = healthy().crds.unwrap();
    assert_eq!(gateway_api::versions(&crds).summary, "v1.6.3, standard channel, without TLSRoute, TCPRoute, UDPRoute");
    assert!(
        one(&gateway_api::versions(&crds[2..]))
            .starts_with("note CustomResourceDefinitions: the cluster has no Gateway API")
    );
    for (bundles, expected) in [
        (["v1.1.0", "v1.1.0"], "note CustomResourceDefinitions: v1.1.0 is older"),
        (["v1.7.0", "v1.7.0"], "note CustomResourceDefinitions: v1.7.0 is newer"),
        (["v1.5.0", "v1.6.0"], "warning CustomResourceDefinitions: CRDs of v1.5.0 and v1.6.0 are mixed"),
    ] {
        let mut crds = crds.clone();
        for (crd, bundle) in crds.iter_mut().zip(bundles) {
            crd.bundle = Some(bundle.into());
        }
        assert!(one(&gateway_api::versions(&crds)).starts_with(expected), "{expected}");
    }
}

#[test]
fn rights_clock_and_pod_security() {
    let mut facts = healthy();
    let mut all = facts.rights.unwrap();
    all[0].allowed = false;
    assert_eq!(one(&rights::rights(&all)), "error daemonsets.apps: you may not create them in namespace weft-system");
    for (seconds, expected) in [(20, 0), (31, 1)] {
        let by = Duration::from_secs(seconds);
        for date in [now() - by, now() + by] {
            facts.server.date = Some(date);
            assert_eq!(rights::clock(&facts.server).findings.len(), expected, "{seconds}");
        }
    }
    let namespace = |level: &str| {
        object(
            json!({ "metadata": { "name": "weft-system", "labels": { "pod-security.kubernetes.io/enforce": level } } }),
        )
    };
    for (level, expected) in [("privileged", 0), ("baseline", 1), ("restricted", 1)] {
        assert_eq!(rights::pod_security(&[namespace(level)], "weft-system").findings.len(), expected, "{level}");
    }
}

#[test]
fn roots_that_end_and_certificates_that_are_not_renewed() {
    let map = |pem: &str| object(json!({ "data": { "root.pem": pem } }));
    let day = Duration::from_secs(86_400);
    for (map, at, expected) in [
        (None, now(), "error ConfigMap weft-system/weft-trust: it isn't there"),
        (Some(object(json!({ "data": {} }))), now(), "error ConfigMap weft-system/weft-trust: it has no key root.pem"),
        (Some(map("no PEM")), now(), "error ConfigMap weft-system/weft-trust: root.pem: "),
        (
            Some(map(ROOT)),
            now() + day * 3640,
            "warning ConfigMap weft-system/weft-trust: a root ends soon, on 2036-11-18",
        ),
        (
            Some(map(ROOT)),
            now() + day * 3660,
            "error ConfigMap weft-system/weft-trust: a root has ended, on 2036-11-18",
        ),
    ] {
        assert!(one(&trust::roots(map.as_ref(), "weft-system", at)).starts_with(expected), "{expected}");
    }
    let mut facts = healthy();
    for (end, failures, expected) in [
        (now() + Duration::from_secs(60), 0, 0),
        (now() + Duration::from_secs(60), 3, 1),
        (now() - Duration::from_secs(60), 3, 1),
        (std::time::SystemTime::UNIX_EPOCH, 0, 1),
    ] {
        facts.pages.insert("weft-node-proxy-1".into(), proxy("spiffe://cluster.local/ns/shop/sa/cart", end, failures));
        assert_eq!(trust::certificates(&facts).findings.len(), expected, "{end:?} {failures}");
    }
}

/// Breaks a healthy cluster.
fn broken(how: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = healthy();
    how(&mut facts);
    facts
}

fn change_pod(facts: &mut Facts, name: &str, how: impl FnOnce(&mut Value)) {
    let pods = facts.pods.as_mut().unwrap();
    let pod = pods.iter_mut().find(|p| p.metadata.name.as_deref() == Some(name)).unwrap();
    let mut value = serde_json::to_value(&*pod).unwrap();
    how(&mut value);
    *pod = object(value);
}

#[test]
fn parts_that_do_not_run_are_named_with_their_reason() {
    let waiting = json!([{ "name": "weft-agent", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }]);
    let facts = broken(|facts| {
        facts.daemon_sets.as_mut().unwrap()[0].status.as_mut().unwrap().number_ready = 1;
        change_pod(facts, "weft-agent-2", |pod| {
            pod["status"]["conditions"] = json!([]);
            pod["status"]["containerStatuses"] = waiting;
        });
    });
    assert_eq!(
        one(&components::workloads(&facts)),
        "error DaemonSet weft-system/weft-agent: 1 of 2 are ready: weft-agent-2 (ImagePullBackOff: no such image)"
    );
    assert_eq!(
        one(&components::nodes(&facts)),
        "error Node n2: weft-agent isn't ready: ImagePullBackOff: no such image"
    );
    let facts = broken(|facts| {
        facts.pods.as_mut().unwrap().retain(|p| p.metadata.name.as_deref() != Some("weft-node-proxy-1"))
    });
    assert_eq!(one(&components::nodes(&facts)), "error Node n1: no weft-node-proxy");
    let facts = broken(|facts| facts.deployments = Ok(vec![]));
    assert_eq!(said(&components::workloads(&facts)).len(), 2);
    let facts = broken(|facts| {
        let taint = json!([{ "key": "weftmesh.io/agent-not-ready", "effect": "NoSchedule" }]);
        facts.nodes.as_mut().unwrap()[0].spec = object(json!({ "taints": taint }));
    });
    assert!(one(&components::nodes(&facts)).starts_with("error Node n1: it still has the taint"));
    // A node that the DaemonSets aren't for isn't missed.
    let facts = broken(|facts| {
        let mut windows = node("w", "10");
        windows["metadata"]["labels"] = json!({ "kubernetes.io/os": "windows" });
        facts.nodes.as_mut().unwrap().push(object(windows));
    });
    assert_eq!(said(&components::nodes(&facts)), Vec::<String>::new());
}

#[test]
fn images_leases_readiness_and_kinds() {
    for (image, tag) in [
        ("localhost/weft-ca:0.1.0", "0.1.0"),
        ("localhost:5000/weft-ca", "latest"),
        ("r/weft-ca:1@sha256:ab", "1"),
        ("r/weft-ca@sha256:ab", "sha256:ab"),
    ] {
        assert_eq!(components::tag(image), tag);
    }
    let facts = broken(|facts| {
        change_pod(facts, "weft-ca-a", |pod| pod["spec"]["containers"][0]["image"] = json!("localhost/weft-ca:0.2.0"))
    });
    assert!(one(&components::images(&facts)).contains("weft-ca 0.1.0+0.2.0"));
    let facts = broken(|facts| {
        let leases = facts.leases.as_mut().unwrap();
        leases[0].spec.as_mut().unwrap().holder_identity = Some(String::new());
        leases[1].spec = object(
            json!({ "holderIdentity": "weft-ca-b", "leaseDurationSeconds": 15, "renewTime": "2026-11-21T09:50:00.000000Z" }),
        );
    });
    let found = said(&components::leases(facts.leases.as_ref().unwrap(), &facts));
    assert!(found[0].starts_with("error Lease weft-system/weft-controller: nobody holds it"), "{found:?}");
    assert!(
        found[1].starts_with("error Lease weft-system/weft-ca: weft-ca-b hasn't renewed it for 600 s"),
        "{found:?}"
    );
    let facts = broken(|facts| {
        facts.pages.get_mut("weft-agent-1").unwrap().missing = Ok(vec!["a proxy".into()]);
        facts.pages.get_mut("weft-ca-a").unwrap().missing =
            Err(Unread { what: "readyz".into(), why: "forbidden".into() });
    });
    let check = components::readiness(&facts);
    assert_eq!(
        said(&check),
        [
            "unknown Pod weft-system/weft-ca-a on node n1: forbidden",
            "error Pod weft-system/weft-agent-1 on node n1: it waits for a proxy"
        ]
    );
    assert_eq!(check.severity(), Some(Severity::Error));
    assert!(one(&components::own_kinds(&Ok(vec![]))).contains("MeshPolicy and AuthorizationPolicy"));
}

#[test]
fn pods_that_are_enrolled_and_not_protected_are_named() {
    for (page, expected) in [
        (agent(&[("cart", "closed", "no proxy serves")]), "error Pod shop/cart: it has no traffic: no proxy serves"),
        (
            agent(&[("cart", "unprotected", "nft failed")]),
            "error Pod shop/cart: its traffic is in the clear: nft failed",
        ),
        (
            agent(&[("cart", "outside", "it has a sidecar")]),
            "unknown Pod shop/cart: the agent of n1 has it outside: it has a sidecar",
        ),
        (agent(&[]), "unknown Pod shop/cart: the agent of n1 doesn't know it yet"),
    ] {
        let facts = broken(|facts| drop(facts.pages.insert("weft-agent-1".into(), page)));
        assert_eq!(one(&protection::pods(&facts)), expected);
    }
    for (how, expected) in [
        (
            json!({ "spec": { "hostNetwork": true } }),
            "note Pod shop/cart: it isn't in the mesh: it is on its node's network",
        ),
        (
            json!({ "metadata": { "labels": { "gateway.networking.k8s.io/gateway-name": "g" } } }),
            "note Pod shop/cart: it isn't in the mesh: it is a gateway",
        ),
        (
            json!({ "metadata": { "annotations": { "sidecar.istio.io/status": "{}" } } }),
            "note Pod shop/cart: it isn't in the mesh: Istio has its traffic",
        ),
        (
            json!({ "metadata": { "labels": { "istio.io/dataplane-mode": "ambient" } } }),
            "note Pod shop/cart: it isn't in the mesh: label istio.io/dataplane-mode gives it to Istio",
        ),
        (
            json!({ "spec": { "initContainers": [{ "name": "linkerd-proxy" }] } }),
            "note Pod shop/cart: it isn't in the mesh: it has a proxy of Linkerd",
        ),
    ] {
        let facts = broken(|facts| {
            change_pod(facts, "cart", |pod| {
                for part in ["metadata", "spec"] {
                    for (key, value) in how.get(part).and_then(Value::as_object).into_iter().flatten() {
                        pod[part][key] = value.clone();
                    }
                }
            })
        });
        assert!(
            one(&protection::pods(&facts)).starts_with(expected),
            "{expected}: {:?}",
            said(&protection::pods(&facts))
        );
    }
    // Its own label wins.
    let facts = broken(|facts| {
        change_pod(facts, "cart", |pod| pod["metadata"]["labels"]["weftmesh.io/mesh"] = json!("disabled"))
    });
    assert_eq!(protection::pods(&facts).summary, "1 of 1 protected");
}

/// An upgrade leaves such a pod for as long as its last connection.
#[test]
fn a_proxy_that_was_replaced_and_still_has_connections_is_no_fault() {
    let facts = broken(|facts| {
        let mut old = pod("weft-system", "weft-node-proxy-0", "n1");
        old["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "weft-node-proxy" });
        old["metadata"]["deletionTimestamp"] = json!("2026-11-21T09:59:00Z");
        old["spec"]["containers"] = json!([{ "name": "weft-node-proxy", "image": "localhost/weft-node-proxy:0.0.9" }]);
        old["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
        facts.pods.as_mut().unwrap().push(object(old));
        let waits = Pages { missing: Ok(vec!["its end: a successor has taken over".into()]), ..ready("") };
        facts.pages.insert("weft-node-proxy-0".into(), waits);
    });
    for check in [components::readiness(&facts), components::images(&facts), components::nodes(&facts)] {
        assert_eq!(said(&check), Vec::<String>::new());
    }
    assert_eq!(facts.component("weft-node-proxy").count(), 2);
    assert_eq!(facts.component_with_replaced("weft-node-proxy").count(), 3);
}

#[test]
fn a_caller_whose_clock_is_wrong_doesnt_take_leases_for_abandoned() {
    let facts = broken(|facts| facts.server.now += std::time::Duration::from_secs(3600));
    assert_eq!(said(&components::leases(facts.leases.as_ref().unwrap(), &facts)), Vec::<String>::new());
}

#[test]
fn a_pod_that_no_node_takes_is_only_noted() {
    let facts = broken(|facts| change_pod(facts, "cart", |pod| pod["spec"]["nodeName"] = Value::Null));
    assert_eq!(one(&protection::pods(&facts)), "note Pod shop/cart: it has no node yet");
}

#[test]
fn an_agent_that_only_counts_is_believed_when_its_numbers_fit() {
    for (numbers, expected) in [
        ((1, 0, 0), None),
        (
            (0, 1, 0),
            Some(
                "unknown Pod shop/cart: the agent of n1 protects 0 pods where 1 are enrolled; 1 have no traffic, 0 are in the clear",
            ),
        ),
        (
            (1, 0, 1),
            Some(
                "unknown Pod shop/cart: the agent of n1 protects 1 pods where 1 are enrolled; 0 have no traffic, 1 are in the clear",
            ),
        ),
    ] {
        let (protected, closed, unprotected) = numbers;
        let page = format!(
            "weft_agent_pods{{protection=\"protected\"}} {protected}\nweft_agent_pods{{protection=\"closed\"}} {closed}\nweft_agent_pods{{protection=\"unprotected\"}} {unprotected}\nweft_agent_pods{{protection=\"outside\"}} 7\n"
        );
        let facts = broken(|facts| drop(facts.pages.insert("weft-agent-1".into(), ready(&page))));
        assert_eq!(said(&protection::pods(&facts)), expected.into_iter().collect::<Vec<_>>());
    }
}

/// One namespace and one kind on each side is what a grant should be; everything beyond is listed, by all of it.
#[test]
fn reference_grants_that_are_wide_are_listed() {
    let entry =
        |group: &str, kind: &str, namespace: &str| json!({ "group": group, "kind": kind, "namespace": namespace });
    let (http, grpc) = (
        |namespace: &str| entry("gateway.networking.k8s.io", "HTTPRoute", namespace),
        |namespace: &str| entry("gateway.networking.k8s.io", "GRPCRoute", namespace),
    );
    let (service, secret) = (json!({ "group": "", "kind": "Service" }), json!({ "group": "", "kind": "Secret" }));
    let named = |name: &str| json!({ "group": "", "kind": "Service", "name": name });
    let grant = |from: Vec<Value>, to: Vec<Value>| MeshObject {
        kind: "ReferenceGrant".into(),
        object: json!({ "metadata": { "namespace": "shop", "name": "g" }, "spec": { "from": from, "to": to } }),
    };
    let lets = |what: &str| vec![format!("note ReferenceGrant shop/g: it lets {what}")];
    let (one, two) = ("HTTPRoute.gateway.networking.k8s.io", "GRPCRoute.gateway.networking.k8s.io");
    for (from, to, expected) in [
        (vec![http("a")], vec![service.clone()], vec![]),
        (vec![http("a")], vec![named("x"), named("y")], vec![]),
        (vec![http("a"), http("b")], vec![service.clone()], lets(&format!("{one} of a, b refer to Service"))),
        (vec![http("a"), grpc("a")], vec![service.clone()], lets(&format!("{two}, {one} of a refer to Service"))),
        (vec![http("a")], vec![service, secret], lets(&format!("{one} of a refer to Secret, Service"))),
    ] {
        let check = objects::grants(&[route("canary", true), grant(from, to)]);
        assert_eq!(said(&check), expected);
        assert!(check.findings.iter().all(|finding| !finding.remedy.is_empty()));
    }
    // Nobody writes a status to a grant.
    assert_eq!(said(&objects::accepted(&[grant(vec![http("a")], vec![named("x")])])), Vec::<String>::new());
}

#[test]
fn objects_that_are_not_accepted_or_not_looked_at() {
    let found = said(&objects::accepted(&[route("canary", true), route("bad", false)]));
    assert_eq!(found, ["error HTTPRoute shop/bad: Accepted=False, NoMatchingParent: there is no Service shop/cart"]);
    let mut edited = route("edited", true);
    edited.object["metadata"]["generation"] = json!(2);
    assert!(one(&objects::accepted(&[edited])).contains("hasn't looked at its last edit"));
    let mut fresh = route("fresh", true);
    fresh.object["status"] = json!({});
    assert!(one(&objects::accepted(&[fresh.clone()])).contains("hasn't looked at it"));
    // A route of a Gateway's isn't ours to look at.
    fresh.object["spec"]["parentRefs"] = json!([{ "name": "gateway" }]);
    assert_eq!(said(&objects::accepted(&[fresh])), Vec::<String>::new());
}

#[test]
fn ports_without_a_protocol_are_noted_in_enrolled_namespaces_only() {
    let service = |namespace: &str, port: Value| {
        object(json!({ "metadata": { "namespace": namespace, "name": "s" }, "spec": { "ports": [port] } }))
    };
    let namespaces = healthy().namespaces.unwrap();
    for (namespace, port, silent) in [
        ("shop", json!({ "port": 80 }), true),
        ("shop", json!({ "port": 80, "name": "web" }), true),
        ("shop", json!({ "port": 80, "name": "http-web" }), false),
        ("shop", json!({ "port": 80, "appProtocol": "tcp" }), false),
        ("shop", json!({ "port": 53, "protocol": "UDP" }), false),
        ("default", json!({ "port": 80 }), false),
    ] {
        let check = objects::protocols(&[service(namespace, port.clone())], &namespaces);
        assert_eq!(!check.findings.is_empty(), silent, "{namespace} {port}");
    }
}

#[test]
fn what_cannot_be_read_is_neither_right_nor_wrong() {
    let facts = broken(|facts| facts.nodes = Err(Unread { what: "nodes".into(), why: "forbidden".into() }));
    let report = checks::installed(&facts, (1, 30));
    assert_eq!(report.code(), 2);
    let unknown = report.checks.iter().filter(|c| c.severity() == Some(Severity::Unknown)).map(|c| c.name);
    assert_eq!(unknown.collect::<Vec<_>>(), ["kernels", "container runtimes", "nodes"]);
    let facts = broken(|facts| {
        facts.nodes = Err(Unread { what: "nodes".into(), why: "forbidden".into() });
        facts.deployments = Ok(vec![]);
    });
    assert_eq!(checks::installed(&facts, (1, 30)).code(), 1);
}

#[test]
fn a_mistyped_enrolment_label_is_named_with_what_was_meant() {
    let namespace = |name: &str, value: &str| {
        object::<k8s_openapi::api::core::v1::Namespace>(
            json!({ "metadata": { "name": name, "labels": { "weftmesh.io/mesh": value } } }),
        )
    };
    for (value, meant) in [
        ("enable", "=enabled"),
        ("Enabled", "=enabled"),
        ("true", "=enabled"),
        ("disable", "=disabled"),
        ("false", "=disabled"),
        ("strict", "=enabled, or =disabled"),
        ("", "=enabled, or =disabled"),
    ] {
        let check = protection::labels(&[namespace("shop", value)], &[]);
        let [finding] = check.findings.as_slice() else { panic!("{value:?}: {check:?}") };
        assert_eq!((finding.severity.as_str(), finding.object.as_str()), ("warning", "Namespace shop"));
        assert!(finding.what.contains("weftmesh.io/mesh") && finding.what.contains(&format!("{value:?}")), "{finding}");
        let remedy = format!("kubectl label --overwrite namespace shop weftmesh.io/mesh{meant}");
        assert_eq!(finding.remedy, remedy, "{value:?}");
    }
    let right = [namespace("a", "enabled"), namespace("b", "disabled")];
    assert_eq!(protection::labels(&right, &[]).findings, []);
    let labelled = |name: &str, value: &str, phase: &str| {
        let mut pod = pod("shop", name, "n1");
        pod["metadata"]["labels"]["weftmesh.io/mesh"] = json!(value);
        pod["status"]["phase"] = json!(phase);
        object(pod)
    };
    let pods = [
        labelled("cart-1", "true", "Running"),
        labelled("cart-2", "true", "Pending"),
        labelled("cart-3", "true", "Succeeded"),
        labelled("stock", "disabled", "Running"),
    ];
    let check = protection::labels(&right, &pods);
    assert_eq!(check.summary, "5 namespaces and pods have one");
    let [finding] = check.findings.as_slice() else { panic!("{check:?}") };
    assert_eq!(finding.object, "Pod shop/cart-1 (and 1 more pods)");
    assert!(finding.remedy.starts_with("make the label weftmesh.io/mesh enabled in the pod template"), "{finding}");
    // Everything else of such a mesh is as it was: it is a warning, and the check doesn't fail.
    let mut facts = healthy();
    facts.namespaces.as_mut().unwrap().push(namespace("late", "enable"));
    let report = checks::installed(&facts, (1, 30));
    assert_eq!((report.findings().len(), report.code()), (1, 0));
}
