//! The charts, rendered by the `helm` in PATH. They need it, so they are left out of a plain `cargo test`:
//! `cargo test -p weft-tests --test charts -- --include-ignored`; UPDATE=1 writes the snapshots in tests/charts/snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

const PLATFORMS: [&str; 8] = ["eks", "gke", "aks", "k3s", "openshift", "minikube", "kind", "microk8s"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(arguments: &[&str]) -> Output {
    let output = Command::new("helm").current_dir(root()).args(arguments).output();
    output.expect("helm isn't in PATH: `make cluster-build` builds it into $WEFT_CACHE/cluster/bin")
}

/// Oldest that the chart takes.
const OLDEST: &str = "--kube-version=1.29.0";

/// What the chart renders with these arguments, as the API server of a recent cluster would get it.
fn render(arguments: &[&str]) -> String {
    let fixed = ["template", "weft", "charts/weft", "--namespace=weft-system", "--kube-version=1.34.0"];
    let output = helm(&[&fixed, arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(rendered: &str) -> Vec<Value> {
    let documents =
        serde_norway::Deserializer::from_str(rendered).map(|document| Value::deserialize(document).unwrap());
    let objects: Vec<_> = documents.filter(Value::is_object).collect();
    assert!(!objects.is_empty(), "nothing was rendered");
    objects
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Objects without the hooks: what `helm install` creates.
fn installed(arguments: &[&str]) -> Vec<Value> {
    objects(&render(&[arguments, &["--no-hooks"]].concat()))
}

fn names(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(|object| format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"))).collect()
}

/// Every pod that a set of objects makes, by the object's kind and name.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let named = |object: &Value| format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"));
    objects.iter().filter_map(|object| Some((named(object), object.pointer("/spec/template/spec")?))).collect()
}

#[test]
#[ignore = "needs helm"]
fn helm_finds_nothing_to_complain_about() {
    for chart in ["charts/weft", "charts/weft-crds"] {
        for values in [&[][..], &["--values=charts/weft/ha-values.yaml"]] {
            if chart == "charts/weft-crds" && !values.is_empty() {
                continue;
            }
            for version in [OLDEST, "--kube-version=1.34.0"] {
                let output = helm(&[&["lint", "--strict", version, chart], values].concat());
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
    for platform in PLATFORMS {
        let platform = format!("--set=platform={platform}");
        let output = helm(&["lint", "--strict", "--kube-version=1.34.0", "charts/weft", &platform]);
        assert!(output.status.success(), "{platform}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

fn snapshot(name: &str, rendered: &str) {
    let path = root().join("tests/charts/snapshots").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, rendered).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(rendered.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(rendered.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("nothing more").to_owned();
    assert!(
        expected == rendered,
        "{name} renders otherwise than its snapshot, first in line {}:\n  was  {}\n  is   {}\nUPDATE=1 takes it",
        line + 1,
        at(&expected),
        at(rendered),
    );
}

#[test]
#[ignore = "needs helm"]
fn everything_renders_as_it_did() {
    // CRDs and dashboards are held by tests of their own.
    let default = render(&["--set=crds.enabled=false,dashboards.enabled=false"]);
    snapshot("default", &default);
    let all = render(&[]);
    for scope in ["cluster", "namespace"] {
        let names = names(&objects(&render(&[&format!("--set=resourceScope={scope}")])));
        snapshot(&format!("scope-{scope}"), &names.iter().flat_map(|name| [name.as_str(), "\n"]).collect::<String>());
    }
    // Only what differs from the default: ten copies of everything would hide it.
    snapshot("ha", &added(&all, &render(&["--values=charts/weft/ha-values.yaml"])));
    for platform in PLATFORMS {
        snapshot(&format!("platform-{platform}"), &added(&all, &render(&[&format!("--set=platform={platform}")])));
    }
    let class = "--api-versions=gateway.networking.k8s.io/v1/GatewayClass";
    let mesh = "--api-versions=gateway.networking.x-k8s.io/v1alpha1/XMesh";
    snapshot("gateway-api", &added(&all, &render(&[class, mesh])));
    snapshot(
        "sources-of-ca-certificates",
        &added(&all, &render(&["--set=ca.issuerSecret=issuer,ca.istioAgents=true"])),
    );
    let monitors = render(&["--set=metrics.serviceMonitor.enabled=true", "--show-only=templates/monitors.yaml"]);
    snapshot("monitors", &monitors);
}

#[test]
#[ignore = "needs helm"]
fn collectors_are_told_to_node_proxies_and_gateways() {
    let none = render(&[]);
    assert!(!none.contains("--otlp"));
    let (spans, lines) = ("http://spans.a:4317", "http://lines.a:4317");
    let values = format!("--set=telemetry.tracing.endpoint={spans},telemetry.accessLog.endpoint={lines}");
    let told = added(&none, &render(&[&values]));
    for argument in [format!("--otlp-endpoint={spans}"), format!("--otlp-logs-endpoint={lines}")] {
        assert!(told.contains(&format!("- {argument}\n")), "{told}");
        assert!(told.contains(&format!("- --gateway-arg={argument}\n")), "{told}");
    }
}

#[test]
#[ignore = "needs helm"]
fn every_part_is_told_of_the_aliases_of_the_trust_domain() {
    let none = render(&[]);
    assert!(!none.contains("--trust-domain-alias"));
    let told = added(&none, &render(&["--set=trustDomainAliases={old.example,older.example}"]));
    for alias in ["old.example", "older.example"] {
        let parts = told.matches(&format!("- --trust-domain-alias={alias}\n")).count();
        assert_eq!(parts, 3, "the authority, the controller and the node proxies: {told}");
    }
}

/// What Grafana and Prometheus get is what the files say, though both have braces that a template would take for its own.
#[test]
#[ignore = "needs helm"]
fn dashboards_and_rules_are_those_of_the_files() {
    let file = |path: &str| std::fs::read_to_string(root().join("charts/weft/files").join(path)).unwrap();
    let own =
        ["--set=dashboards.namespace=grafana,dashboards.annotations.grafana_folder=Weft,dashboards.labels.mine=yes"];
    let objects = objects(&render(&[&own[..], &["--show-only=templates/dashboards.yaml"]].concat()));
    for object in &objects {
        assert_eq!(text(object, "/metadata/labels/grafana_dashboard"), "1");
        assert_eq!(text(object, "/metadata/labels/mine"), "yes");
        assert_eq!(text(object, "/metadata/annotations/grafana_folder"), "Weft");
        assert_eq!(text(object, "/metadata/namespace"), "grafana");
        let data = object["data"].as_object().unwrap();
        let (name, json) = data.iter().next().unwrap();
        assert_eq!((data.len(), json.as_str().unwrap()), (1, file(&format!("dashboards/{name}")).trim()));
    }
    assert_eq!(objects.len(), std::fs::read_dir(root().join("charts/weft/files/dashboards")).unwrap().count());

    let rules = |more: &[&str]| {
        let usual = ["--set=metrics.prometheusRule.enabled=true", "--show-only=templates/rules.yaml"];
        let mut all = self::objects(&render(&[&usual[..], more].concat()));
        all.pop().unwrap()["spec"].take()
    };
    let expected: Value = serde_norway::from_str(&file("rules.yaml")).unwrap();
    assert_eq!(rules(&[]), expected);
    let elsewhere = rules(&["--set=metrics.prometheusRule.runbooks=https://wiki.example.com/weft/"]).to_string();
    assert!(elsewhere.contains("\"https://wiki.example.com/weft/WeftNodeProxyDown.md\""));
    assert!(!elsewhere.contains("/docs/runbooks/"), "an alert leads to the old place");
}

/// Whole documents that aren't in the first text, and lines of changed ones that aren't.
fn added(before: &str, after: &str) -> String {
    let known: BTreeSet<_> = before.split("\n---\n").collect();
    let mut text = String::new();
    for document in after.split("\n---\n").filter(|document| !known.contains(document)) {
        let identity = |text: &str| {
            text.lines().filter(|l| l.starts_with("kind:") || l.starts_with("  name:")).collect::<String>()
        };
        let old = known.iter().find(|old| identity(old) == identity(document));
        let old: BTreeSet<_> = old.iter().flat_map(|old| old.lines()).collect();
        let keep = |line: &&str| !old.contains(line) || line.starts_with("kind:") || line.starts_with("  name:");
        text.extend(document.lines().filter(keep).flat_map(|line| [line, "\n"]));
        text.push_str("---\n");
    }
    text
}

#[test]
#[ignore = "needs helm"]
fn the_same_values_give_the_same_bytes() {
    for arguments in [&[][..], &[OLDEST], &["--values=charts/weft/ha-values.yaml"]] {
        assert_eq!(render(arguments), render(arguments));
    }
    for platform in PLATFORMS {
        let platform = format!("--set=platform={platform}");
        assert_eq!(render(&[&platform]), render(&[&platform]));
    }
}

/// What a node's directories are on each platform, by the manual's table: it names what each platform documents.
#[test]
#[ignore = "needs helm"]
fn the_manual_names_the_directories_of_every_platform() {
    let manual = std::fs::read_to_string(root().join("docs/install.md")).unwrap();
    let mut told = BTreeSet::new();
    for row in manual
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("/net.d` |") || line.contains("/cni-network` |"))
    {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (platforms, conf, bin) = (cells[1], cells[2].trim_matches('`'), cells[3].trim_matches('`'));
        for platform in PLATFORMS.into_iter().filter(|p| platforms.contains(&format!("`{p}`"))) {
            told.insert(platform);
            let objects = installed(&[&format!("--set=platform={platform}")]);
            let pods = pods(&objects);
            let (_, agent) = pods.iter().find(|(owner, _)| owner == "DaemonSet/weft-agent").unwrap();
            let mut paths = BTreeSet::from([format!("--cni-conf-dir={conf}"), format!("--cni-bin-dir={bin}")]);
            for argument in agent["containers"][0]["args"].as_array().unwrap() {
                paths.remove(argument.as_str().unwrap());
            }
            assert!(paths.is_empty(), "{platform}: the agent isn't told {paths:?}");
            for path in [conf, bin] {
                let has = |list: &str, pointer: &str| {
                    let list = agent.pointer(list).and_then(Value::as_array).unwrap();
                    list.iter().any(|entry| text(entry, pointer) == path)
                };
                assert!(has("/volumes", "/hostPath/path"), "{platform}: no volume of {path}");
                assert!(has("/containers/0/volumeMounts", "/mountPath"), "{platform}: {path} isn't mounted");
            }
        }
    }
    assert_eq!(told, BTreeSet::from(PLATFORMS));
}

#[test]
#[ignore = "needs helm"]
fn a_wrong_value_is_refused_by_its_name() {
    for (wrong, named) in [
        ("platform=openstack", "platform"),
        ("resourceScope=both", "resourceScope"),
        ("controler.replicas=3", "controler"),
        ("controller.replica=3", "replica"),
        ("controller.replicas=0", "replicas"),
        ("controller.replicas=two", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.registry=https://example/", "registry"),
        ("trustDomain=Cluster Local", "trustDomain"),
        ("trustDomainAliases[0]=*.example", "trustDomainAliases"),
        ("cni.confDir=etc/cni", "confDir"),
        ("nodeProxy.accessLog=2", "accessLog"),
        ("nodeProxy.accessLog=some", "accessLog"),
        ("telemetry.accessLog.endpoint=collector:4317", "endpoint"),
        ("agent.maxUnavailable=0", "maxUnavailable"),
        ("agent.maxUnavailable=110%", "maxUnavailable"),
        ("nodeProxy.resources.limit.memory=1Gi", "limit"),
        ("nodeProxy.resources.limits.memory=lots", "memory"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("networkPolicy.metricsFrom[0].selector=x", "selector"),
        ("uninstall.timeoutSeconds=1", "timeoutSeconds"),
        ("test.namespace=Test", "namespace"),
        ("commonLabels.a=1", "commonLabels"),
        ("gatewayAPI.mesh=maybe", "mesh"),
        ("podRanges[0]=10.0.0.0", "podRanges"),
        ("gateways.parametersRef.name=x", "namespace"),
        ("gateways.extraArgs[0]=a b", "extraArgs"),
    ] {
        let output = helm(&["template", "weft", "charts/weft", "--kube-version=1.34.0", "--set", wrong]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wrong} was taken");
        assert!(said.contains(named) && said.contains("schema"), "{wrong}: {said}");
    }
    let both = "ca.issuerSecret=a,ca.cacertsSecret=b";
    let output = helm(&["template", "weft", "charts/weft", "--kube-version=1.34.0", "--set", both]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("leave one of them empty"), "{said}");
}

#[test]
#[ignore = "needs helm"]
fn objects_of_cluster_and_namespace_can_be_installed_apart() {
    let all = installed(&[]);
    let (cluster, namespaced) =
        (installed(&["--set=resourceScope=cluster"]), installed(&["--set=resourceScope=namespace"]));
    assert_eq!(names(&all), names(&cluster).union(&names(&namespaced)).cloned().collect());
    assert!(names(&cluster).is_disjoint(&names(&namespaced)));
    for object in &cluster {
        assert_eq!(text(object, "/metadata/namespace"), "", "{} isn't of the cluster", text(object, "/kind"));
    }
    for object in &namespaced {
        assert_eq!(text(object, "/metadata/namespace"), "weft-system", "{}", text(object, "/metadata/name"));
    }
    let kinds: BTreeSet<_> = cluster.iter().map(|object| text(object, "/kind")).collect();
    assert_eq!(kinds, BTreeSet::from(["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"]));
    let without = names(&installed(&["--set=crds.enabled=false"]));
    assert!(!without.iter().any(|name| name.starts_with("CustomResourceDefinition")));
}

#[test]
#[ignore = "needs helm"]
fn the_chart_of_crds_has_the_same_ones() {
    let output = helm(&["template", "weft-crds", "charts/weft-crds", "--kube-version=1.34.0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let apart = objects(&String::from_utf8(output.stdout).unwrap());
    let within = installed(&[]);
    let within: Vec<_> = within.into_iter().filter(|o| text(o, "/kind") == "CustomResourceDefinition").collect();
    assert_eq!(apart, within);
    for crd in &apart {
        assert_eq!(text(crd, "/metadata/annotations/helm.sh~1resource-policy"), "keep");
    }
    assert_eq!(names(&apart).len(), 4);
}

/// What each container may add to the capabilities that it drops, by the object that makes it.
fn allowed_capabilities(owner: &str) -> BTreeSet<&'static str> {
    match owner {
        "DaemonSet/weft-agent" => BTreeSet::from(["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),
        "DaemonSet/weft-node-proxy" => BTreeSet::from(["NET_ADMIN", "SYS_ADMIN"]),
        _ => BTreeSet::new(),
    }
}

#[test]
#[ignore = "needs helm"]
fn every_container_has_no_more_rights_than_it_needs() {
    for platform in PLATFORMS {
        let objects = objects(&render(&[&format!("--set=platform={platform}")]));
        let pods = pods(&objects);
        assert!(pods.len() >= 9, "only {} pods", pods.len());
        for (owner, pod) in pods {
            let node_part = owner.starts_with("DaemonSet/");
            assert!(pod.pointer("/initContainers").is_none(), "{owner}");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["privileged"], false, "{owner}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{owner}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{owner}");
                assert_eq!(context["runAsNonRoot"], !node_part, "{owner}");
                assert_eq!(text(context, "/seccompProfile/type"), "RuntimeDefault", "{owner}");
                assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{owner}");
                let added = context["capabilities"]["add"].as_array().into_iter().flatten();
                let added: BTreeSet<_> = added.map(|capability| capability.as_str().unwrap()).collect();
                assert_eq!(added, allowed_capabilities(&owner), "{owner}");
                assert!(container["resources"]["requests"]["memory"].is_string(), "{owner}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{owner}");
            }
            let agent = owner == "DaemonSet/weft-agent";
            assert_eq!(pod.get("hostNetwork").is_some(), agent, "{owner}");
            assert_eq!(pod.get("hostPID").is_some(), agent, "{owner}");
            assert_eq!(pod.pointer("/securityContext/appArmorProfile").is_some(), agent, "{owner}");
            let ports =
                pod["containers"].as_array().unwrap().iter().flat_map(|c| c["ports"].as_array().into_iter().flatten());
            assert!(ports.into_iter().all(|port| port.get("hostPort").is_none()), "{owner} has a host port");
        }
    }
}

/// API servers before 1.30 drop the field that says so.
#[test]
#[ignore = "needs helm"]
fn the_agent_is_unconfined_on_every_release_of_kubernetes() {
    let annotation = |arguments: &[&str]| {
        let objects = installed(arguments);
        let named = |o: &&Value| text(o, "/kind") == "DaemonSet" && text(o, "/metadata/name") == "weft-agent";
        let agent = objects.iter().find(named).unwrap();
        assert_eq!(text(agent, "/spec/template/spec/securityContext/appArmorProfile/type"), "Unconfined");
        let key = "/spec/template/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1weft-agent";
        text(agent, key).to_owned()
    };
    assert_eq!(annotation(&[OLDEST]), "unconfined");
    assert_eq!(annotation(&[]), "");
    let older = helm(&["template", "weft", "charts/weft", "--kube-version=1.28.15"]);
    assert!(!older.status.success() && String::from_utf8_lossy(&older.stderr).contains("kubeVersion"), "taken on 1.28");
}

#[test]
#[ignore = "needs helm"]
fn a_node_is_never_without_its_proxy_in_an_upgrade() {
    let objects = installed(&[]);
    let strategy = |name: &str| {
        let set =
            objects.iter().find(|o| text(o, "/kind") == "DaemonSet" && text(o, "/metadata/name") == name).unwrap();
        set["spec"]["updateStrategy"]["rollingUpdate"].clone()
    };
    assert_eq!(strategy("weft-node-proxy"), serde_json::json!({ "maxSurge": 1, "maxUnavailable": 0 }));
    assert_eq!(strategy("weft-agent"), serde_json::json!({ "maxSurge": 0, "maxUnavailable": 1 }));
}

/// Pods of the mesh are bound tokens and nothing else: the API server's own token is for those who speak to it.
#[test]
#[ignore = "needs helm"]
fn only_those_who_need_it_get_a_token_of_the_api_server() {
    let objects = objects(&render(&[]));
    for (owner, pod) in pods(&objects) {
        let speaks =
            ["weft-controller", "weft-ca", "weft-agent", "weft-uninstall"].iter().any(|name| owner.ends_with(name));
        assert_eq!(pod.get("automountServiceAccountToken") != Some(&Value::Bool(false)), speaks, "{owner}");
    }
}

/// Lines of the templates of the mesh, with the file that they are in.
fn templates() -> Vec<(String, Vec<String>)> {
    let folder = std::fs::read_dir(root().join("charts/weft/templates")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    files.map(|path| (path.display().to_string(), lines(&path))).collect()
}

#[test]
#[ignore = "needs helm"]
fn every_right_has_its_reason_beside_it() {
    let (mut rules, mut capabilities) = (0, 0);
    for (file, lines) in templates() {
        for (number, pair) in lines.windows(2).enumerate() {
            let (before, line) = (pair[0].trim(), pair[1].trim());
            let rule = line.starts_with("- apiGroups:");
            let capability = line.starts_with("- ") && line[2..].chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if rule || capability {
                assert!(before.starts_with("# "), "{file}:{}: {line} without a reason above it", number + 2);
            }
            rules += usize::from(rule);
            capabilities += usize::from(capability);
        }
    }
    assert!(rules >= 25 && capabilities >= 5, "only {rules} rules and {capabilities} capabilities were found");
}

#[test]
#[ignore = "needs helm"]
fn no_role_asks_for_everything() {
    for role in objects(&render(&[])).iter().filter(|o| text(o, "/kind").ends_with("Role")) {
        let summed = role["aggregationRule"].is_object();
        assert_ne!(
            summed,
            role["rules"].is_array(),
            "{}: its rules are others' or its own",
            text(role, "/metadata/name")
        );
        for rule in role["rules"].as_array().into_iter().flatten() {
            let said = rule.to_string();
            assert!(!said.contains('*'), "{}: {said}", text(role, "/metadata/name"));
            let secrets = said.contains("secrets") && said.contains("get");
            assert!(!secrets || rule.get("resourceNames").is_some(), "all Secrets: {said}");
            // Who can make tokens can be anybody: nodes ask with their own, and so get no more than is theirs.
            assert!(!said.contains("serviceaccounts/token"), "{}: {said}", text(role, "/metadata/name"));
            assert!(!said.contains("impersonate"), "{}: {said}", text(role, "/metadata/name"));
        }
    }
}

#[test]
#[ignore = "needs helm"]
fn every_value_is_documented() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("charts/weft/values.schema.json")).unwrap()).unwrap();
    let values = std::fs::read_to_string(root().join("charts/weft/values.yaml")).unwrap();
    let values: Value = serde_norway::from_str(&values).unwrap();
    described("", &values, &schema);
    closed("", &schema);
}

/// Every value has a property of the schema, and a description there or around it.
fn described(path: &str, values: &Value, schema: &Value) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let property = &schema["properties"][name];
        let path = format!("{path}.{name}");
        assert!(property.is_object(), "{path} isn't in the schema");
        match property.get("properties") {
            Some(_) => described(&path, value, property),
            None => assert!(property["description"].is_string(), "{path} has no description"),
        }
    }
}

/// Nothing in the schema lets unknown names in.
fn closed(path: &str, schema: &Value) {
    if schema["properties"].is_object() {
        assert_eq!(schema["additionalProperties"], false, "{path} takes whatever it is given");
    }
    for (name, inner) in schema.as_object().into_iter().flatten() {
        closed(&format!("{path}.{name}"), inner);
    }
}
