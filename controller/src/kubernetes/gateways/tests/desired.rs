use serde_json::{Value, json};
use weft_k8s::translate::gateway::WENT_BY;

use super::*;

/// The object of a kind, or null.
fn of<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or(&Value::Null)
}

fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    objects.iter().map(name).collect()
}

#[test]
fn a_gateway_has_these_objects_all_named_labelled_and_owned() {
    let objects = made(&plan("web"));
    let expected = [
        "ServiceAccount web-weft",
        "ConfigMap web-weft-trust",
        "NetworkPolicy web-weft",
        "Service web-weft",
        "Deployment web-weft",
        "PodDisruptionBudget web-weft",
    ];
    assert_eq!(names(&objects), expected);
    for object in &objects {
        let (meta, kind) = (&object["metadata"], &object["kind"]);
        assert_eq!(meta["namespace"], "edge", "{kind}");
        assert_eq!(meta["labels"]["gateway.networking.k8s.io/gateway-name"], "web", "{kind}");
        assert_eq!(meta["labels"]["gateway.networking.k8s.io/gateway-class-name"], "weft", "{kind}");
        let owner = json!([{ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web",
            "uid": "uid-of-web", "controller": true }]);
        assert_eq!(meta["ownerReferences"], owner, "{kind}");
    }
    assert_eq!(of(&objects, "ConfigMap")["data"]["root.pem"], "ROOTS");
    assert_eq!(of(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
}

/// A restart for a new listener would cost every connection of the old ones.
#[test]
fn an_edit_of_listeners_changes_what_opens_their_ports_and_nothing_else() {
    let (before, mut edited) = (made(&plan("web")), plan("web"));
    edited.ports.insert((Port::new(443).unwrap(), Transport::Tcp));
    let after = made(&edited);
    let differ = before.iter().zip(&after).filter(|(before, after)| before != after);
    let differ: Vec<_> = differ.map(|(before, _)| before["kind"].as_str().unwrap()).collect();
    assert_eq!(differ, ["NetworkPolicy", "Service"]);
}

#[test]
fn a_service_has_the_ports_of_the_gateway_itself_and_always_one() {
    let ports = |plan: &GatewayPlan| {
        let objects = made(plan);
        let ports = of(&objects, "Service")["spec"]["ports"].as_array().unwrap().clone();
        let show = |port: &Value| {
            assert_eq!(port["port"], port["targetPort"]);
            format!("{} {} {}", port["name"].as_str().unwrap(), port["port"], port["protocol"].as_str().unwrap())
        };
        ports.iter().map(show).collect::<Vec<_>>()
    };
    let mut both = plan("web");
    both.ports.insert((Port::new(53).unwrap(), Transport::Tcp));
    assert_eq!(ports(&both), ["tcp-53 53 TCP", "udp-53 53 UDP", "tcp-80 80 TCP"]);
    // Metrics and the page for people are nobody's outside.
    both.ports = [(Port::new(15021).unwrap(), Transport::Tcp), (Port::new(15000).unwrap(), Transport::Tcp)].into();
    assert_eq!(ports(&both), ["no-listener 65535 TCP"]);
    both.ports.clear();
    assert_eq!(ports(&both), ["no-listener 65535 TCP"]);
}

#[test]
fn a_network_policy_lets_in_what_is_listened_on_and_metrics_and_nothing_else() {
    let spec = |plan: &GatewayPlan| of(&made(plan), "NetworkPolicy")["spec"].clone();
    let mut web = plan("web");
    let port = |port: u16, protocol: &str| json!({ "port": port, "protocol": protocol });
    let metrics = json!({ "ports": [port(15021, "TCP")] });
    let taps = json!({ "ports": [port(15022, "TCP"), port(15021, "TCP")], "from": [{
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "mesh" } },
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "weft-controller" } },
    }] });
    let found = spec(&web);
    assert_eq!(found["ingress"], json!([{ "ports": [port(53, "UDP"), port(80, "TCP")] }, metrics, taps]));
    assert_eq!((&found["policyTypes"], &found["egress"]), (&json!(["Ingress"]), &Value::Null));
    assert_eq!(found["podSelector"]["matchLabels"], of(&made(&web), "Deployment")["spec"]["selector"]["matchLabels"]);
    // A rule without ports would open all of them.
    for ports in [vec![], vec![15000, 15021, 15022]] {
        web.ports = ports.into_iter().map(|port| (Port::new(port).unwrap(), Transport::Tcp)).collect();
        assert_eq!(spec(&web)["ingress"], json!([metrics, taps]));
    }
    let peer = json!([{ "namespaceSelector": { "matchLabels": { "team": "metrics" } } }]);
    let some = with(plan("web"), json!({ "networkPolicy": { "metricsFrom": peer, "allowEgress": true } }));
    let found = spec(&some);
    assert_eq!((&found["ingress"][1]["from"], &found["ingress"][0]["from"]), (&peer, &Value::Null));
    assert_eq!((&found["policyTypes"], &found["egress"]), (&json!(["Ingress", "Egress"]), &json!([{}])));
    let empty = with(plan("web"), json!({ "networkPolicy": { "metricsFrom": [] } }));
    assert_eq!(spec(&empty)["ingress"][1], metrics, "nobody at all would be an odd wish");
    let none = with(plan("web"), json!({ "networkPolicy": { "enabled": false } }));
    assert_eq!(of(&made(&none), "NetworkPolicy"), &Value::Null);
}

#[test]
fn each_address_that_is_asked_for_is_asked_of_a_service() {
    let mut plan = plan("web");
    let spec = |plan: &GatewayPlan| of(&made(plan), "Service")["spec"].clone();
    assert_eq!(spec(&plan)["type"], "LoadBalancer");
    assert!(spec(&plan).get("loadBalancerIP").is_none());
    plan.requested = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into();
    let objects = made(&plan);
    let services: Vec<_> = objects.iter().filter(|object| object["kind"] == "Service").collect();
    let shown = services.iter().map(|service| {
        (
            service["metadata"]["name"].clone(),
            service["spec"]["loadBalancerIP"].clone(),
            service["spec"]["ipFamilies"].clone(),
        )
    });
    let expected = [
        (json!("web-weft"), json!("192.0.2.1"), json!(["IPv4"])),
        (json!("web-weft-2"), json!("2001:db8::1"), json!(["IPv6"])),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn labels_and_annotations_of_the_gateway_are_on_everything_and_never_instead_of_ours() {
    let mut plan = plan("web");
    plan.infrastructure.labels = [("team", "edge"), ("gateway.networking.k8s.io/gateway-name", "other")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    plan.infrastructure.annotations = [("note".to_owned(), "of the gateway".to_owned())].into();
    let plan = with_parameters(plan);
    let objects = made(&plan);
    let pod = &of(&objects, "Deployment")["spec"]["template"];
    for meta in objects.iter().map(|object| &object["metadata"]).chain([&pod["metadata"]]) {
        assert_eq!((&meta["labels"]["team"], &meta["annotations"]["note"]), (&json!("edge"), &json!("of the gateway")));
        assert_eq!(meta["labels"]["gateway.networking.k8s.io/gateway-name"], "web");
    }
    assert_eq!(of(&objects, "Service")["metadata"]["annotations"]["lb"], "internal");
    assert!(of(&objects, "Deployment")["metadata"]["annotations"].get("lb").is_none());
    assert_eq!(pod["metadata"]["labels"]["pod"], "yes");
    assert_eq!(pod["metadata"]["labels"]["weftmesh.io/mesh"], "disabled", "traffic of a gateway is never redirected");
    let selector = of(&objects, "Deployment")["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value), "{selector:?}");
    assert_eq!(selector.len(), 2, "a selector can't be changed, so nothing of the Gateway's choice is in it");
}

fn with_parameters(plan: GatewayPlan) -> GatewayPlan {
    with(
        plan,
        json!({
            "service": { "annotations": { "lb": "internal" } },
            "podTemplate": { "labels": { "pod": "yes", "weftmesh.io/mesh": "enabled" } }
        }),
    )
}

#[test]
fn parameters_end_up_where_they_belong() {
    let plan = with(
        plan("web"),
        json!({
            "autoscaling": { "maxReplicas": 5 },
            "shutdown": { "lingerSeconds": 60 },
            "resources": { "limits": { "memory": "2Gi" } },
            "service": { "type": "LoadBalancer", "loadBalancerClass": "example.com/lb", "externalTrafficPolicy": "Local" },
            "podTemplate": { "nodeSelector": { "pool": "edge" }, "tolerations": [{ "operator": "Exists" }], "affinity": { "nodeAffinity": {} } }
        }),
    );
    let objects = made(&plan);
    let spec = &of(&objects, "Service")["spec"];
    assert_eq!(
        (&spec["loadBalancerClass"], &spec["externalTrafficPolicy"]),
        (&json!("example.com/lb"), &json!("Local"))
    );
    let deployment = &of(&objects, "Deployment")["spec"];
    assert!(deployment.get("replicas").is_none(), "the number is the autoscaler's");
    let pod = &deployment["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 60 + 25 + 10);
    assert!(pod["containers"][0]["args"].as_array().unwrap().contains(&json!("--linger=60s")));
    let resources = json!({ "limits": { "memory": "2Gi" }, "requests": { "cpu": "50m" } });
    assert_eq!(pod["containers"][0]["resources"], resources, "an autoscaler needs a request");
    assert_eq!(pod["nodeSelector"], json!({ "pool": "edge", "kubernetes.io/os": "linux" }));
    assert_eq!(
        (&pod["tolerations"][0]["operator"], &pod["affinity"]),
        (&json!("Exists"), &json!({ "nodeAffinity": {} }))
    );
    let scaler = &of(&objects, "HorizontalPodAutoscaler")["spec"];
    assert_eq!((&scaler["minReplicas"], &scaler["maxReplicas"]), (&json!(2), &json!(5)));
    assert_eq!(scaler["scaleTargetRef"]["name"], "web-weft");

    // The API server takes neither on a Service of the cluster only.
    let plan = with(
        plan,
        json!({ "service": { "type": "ClusterIP", "loadBalancerClass": "x", "externalTrafficPolicy": "Local" } }),
    );
    let objects = made(&plan);
    let spec = of(&objects, "Service")["spec"].as_object().unwrap();
    assert!(!spec.contains_key("loadBalancerClass") && !spec.contains_key("externalTrafficPolicy"), "{spec:?}");
    assert_eq!(of(&objects, "HorizontalPodAutoscaler"), &Value::Null);
}

fn deployment(plan: &GatewayPlan) -> Value {
    of(&made(plan), "Deployment")["spec"].clone()
}

#[test]
fn pods_are_spread_evenly_unless_somebody_says_how() {
    let constraints = |parameters: Value| {
        deployment(&with(plan("web"), parameters))["template"]["spec"]["topologySpreadConstraints"].clone()
    };
    let own = deployment(&plan("web"))["selector"].clone();
    let even = constraints(json!({ "podTemplate": { "labels": { "a": "b" } } }));
    let keys: Vec<_> = even.as_array().unwrap().iter().map(|it| (&it["topologyKey"], &it["labelSelector"])).collect();
    assert_eq!(keys, [(&json!("kubernetes.io/hostname"), &own), (&json!("topology.kubernetes.io/zone"), &own)]);

    let said = |selector: Value| {
        let mut constraint = json!({ "maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule" });
        constraint["labelSelector"] = selector;
        constraint
    };
    let others = json!({ "matchLabels": { "app": "others" } });
    let wanted = json!([said(others.clone()), said(Value::Null),
        { "maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule" }]);
    let found = constraints(json!({ "podTemplate": { "topologySpreadConstraints": wanted } }));
    assert_eq!(found, json!([said(others), said(own.clone()), said(own)]));
    assert_eq!(constraints(json!({ "podTemplate": { "topologySpreadConstraints": [] } })), json!([]), "not at all");
}

#[test]
fn a_pods_priority_and_secrets_are_those_of_the_chart_and_of_the_parameters() {
    let none = deployment(&plan("web"))["template"]["spec"].clone();
    assert!(none.get("priorityClassName").is_none() && none.get("imagePullSecrets").is_none(), "{none}");
    let template = json!({ "priorityClassName": "edge", "imagePullSecrets": [{ "name": "own" }, { "name": "all" }] });
    let plan = with(plan("web"), json!({ "podTemplate": template }));
    let mut settings = settings("/roots".into());
    settings.pull_secrets = vec!["more".to_owned(), "all".to_owned()];
    let objects = objects(&plan, &settings, "ROOTS");
    let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
    let expected = json!([{ "name": "more" }, { "name": "all" }, { "name": "own" }]);
    assert_eq!((&pod["priorityClassName"], &pod["imagePullSecrets"]), (&json!("edge"), &expected));
}

/// The API server refuses a deadline that is no longer than that, and keeps no 0.
#[test]
fn a_rollout_waits_until_new_pods_have_been_ready_for_a_while() {
    for (parameters, expected) in [
        (json!({}), (Value::Null, Value::Null)),
        (json!({ "minReadySeconds": 0 }), (Value::Null, Value::Null)),
        (json!({ "minReadySeconds": 30 }), (json!(30), json!(630))),
        (json!({ "minReadySeconds": 3600 }), (json!(3600), json!(4200))),
    ] {
        let found = deployment(&with(plan("web"), parameters.clone()));
        let found = (found["minReadySeconds"].clone(), found["progressDeadlineSeconds"].clone());
        assert_eq!(found, expected, "{parameters}");
    }
}

#[test]
fn a_pod_may_nothing_but_serve() {
    let objects = made(&plan("web"));
    let deployment = &of(&objects, "Deployment")["spec"];
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["rollingUpdate"]["maxUnavailable"]),
        (&json!(2), &json!(0))
    );
    let pod = &deployment["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&json!("web-weft"), &json!(false)));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["sysctls"][0]["name"], "net.ipv4.ip_unprivileged_port_start");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let arguments: Vec<_> = container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(arguments[..3], ["gateway", "--gateway=edge/web", "--service-account=web-weft"]);
    assert_eq!(arguments.last(), Some(&"--access-log=all"));
    assert!(arguments.contains(&"--trust-domain=cluster.local"));
    assert!(arguments.contains(&"--trust-domain-alias=old.example"));
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let seconds = |name: &str| {
        let argument = arguments.iter().find_map(|it| it.strip_prefix(name)).unwrap();
        argument.trim_end_matches('s').parse::<u64>().unwrap()
    };
    assert!(grace > seconds("--linger=") + seconds("--drain-deadline="), "{grace}");
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(volumes, ["token", "trust"]);
    assert_eq!(pod["volumes"][1]["configMap"]["name"], "web-weft-trust");
}

/// Else whoever writes a Gateway could say whom it believes, whatever its class allows.
#[test]
fn the_account_remembers_what_was_in_force_and_nobody_else_says_it() {
    let mut plan = plan("web");
    let annotations = &mut plan.infrastructure.annotations;
    annotations.insert(WENT_BY.to_owned(), "forged".to_owned());
    assert_eq!(of(&made(&plan), "ServiceAccount")["metadata"].get("annotations"), None);
    plan.infrastructure.annotations.insert("a".to_owned(), "b".to_owned());
    plan.remembered = Some("{}".to_owned());
    let expected = json!({ WENT_BY: "{}", "a": "b" });
    assert_eq!(of(&made(&plan), "ServiceAccount")["metadata"]["annotations"], expected);
}
