//! TelemetryPolicies: where they are in force, what of two wins, and what their statuses say.

use weft_core::policy::Scope;
use weft_core::telemetry::{LogFormat, LogMode, LogOutput, ParentSampling, Share, TelemetryPolicy};

use super::*;

fn policy(name: &str, namespace: &str, created: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: TelemetryPolicy\nmetadata: {{name: {name}, namespace: {namespace}, \
         creationTimestamp: '{created}', generation: 3}}\nspec: {{{spec}}}\n"
    )
}

fn one(namespace: &str, spec: &str) -> String {
    policy("t", namespace, "2026-01-01T00:00:00Z", spec)
}

fn serve(text: &str) -> (Index, Output) {
    let mut index = Index::new(super::gateways::serving());
    objects(text).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    (index, out)
}

fn emitted(index: &Index) -> Vec<TelemetryPolicy> {
    let of = |resource: &Resource| match resource {
        Resource::Telemetry(policy) => Some((**policy).clone()),
        _ => None,
    };
    index.resources().filter_map(of).collect()
}

fn listed(index: &Index) -> Vec<String> {
    let found = index.resources().find_map(|resource| match resource {
        Resource::Workload(it) if it.name.as_str() == "cart-1" => {
            assert!(it.policies.is_empty(), "nothing may wait for what only tells");
            Some(it.telemetry.iter().map(ToString::to_string).collect())
        }
        _ => None,
    });
    found.unwrap()
}

/// The conditions of each target, with their messages.
fn told(index: &Index, name: &str, namespace: &str) -> Vec<Vec<(String, String)>> {
    let reference = ObjectRef::new(Kind::TelemetryPolicy, namespace, name);
    let Some((3, ObjectStatus::Ancestors(ancestors))) = index.status(&reference) else { panic!("no status") };
    let show = |c: &crate::object::Condition| (format!("{:?}={}/{}", c.kind, c.status, c.reason), c.message.clone());
    ancestors.iter().map(|ancestor| ancestor.conditions.iter().map(show).collect()).collect()
}

fn reasons(index: &Index, name: &str) -> Vec<String> {
    told(index, name, "shop").into_iter().flatten().map(|(reason, _)| reason).collect()
}

const LOG: &str = "accessLog: {mode: All}";

#[test]
fn a_policy_is_for_its_namespace_the_mesh_or_what_it_names() {
    let target = |target: &str| format!("targetRefs: [{target}], {LOG}");
    let pods = "{kind: Pod, selector: {matchLabels: {app: cart}}}";
    let shop = Scope::Namespace("shop".into());
    for (namespace, spec, scope, selected) in [
        ("shop", LOG.to_owned(), shop.clone(), false),
        ("weft-system", LOG.to_owned(), Scope::Mesh, false),
        ("weft-system", target("{kind: Namespace, name: shop}"), shop, false),
        ("shop", target("{kind: Service, name: cart}"), Scope::Selected, true),
        ("shop", target(pods), Scope::Selected, true),
        ("money", target(pods), Scope::Selected, false),
        ("weft-system", target(pods), Scope::Selected, true),
        ("weft-system", target(&pods.replace("Pod,", "Pod, namespace: shop,")), Scope::Selected, true),
    ] {
        let (index, _) = serve(&(SHOP.to_owned() + &one(namespace, &spec)));
        let [made] = &emitted(&index)[..] else { panic!("{spec}") };
        assert_eq!((&made.scope, made.access_log.mode), (&scope, Some(LogMode::All)), "{namespace} {spec}");
        let expected = if selected { vec![format!("{namespace}/t")] } else { Vec::new() };
        assert_eq!(listed(&index), expected, "{namespace} {spec}");
        assert_eq!(
            told(&index, "t", namespace),
            [[("Accepted=true/Accepted".into(), "The policy is in force".into())]]
        );
    }
}

#[test]
fn a_gateway_is_a_target_as_a_whole_from_its_first_moment() {
    let gateway = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: shop}\n\
                   spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}\n";
    let target = "{group: gateway.networking.k8s.io, kind: Gateway, name: gw}";
    let spec = format!("targetRefs: [{target}, {{kind: Service, name: cart}}], {LOG}");
    let (mut index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec)));
    assert_eq!(reasons(&index, "t"), ["Accepted=false/TargetNotFound", "Accepted=true/Accepted"]);
    let gateways = |index: &Index| emitted(index)[0].gateways.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((gateways(&index), listed(&index)), (vec!["shop/gw".to_owned()], vec!["shop/t".to_owned()]));
    objects(gateway).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    assert_eq!(reasons(&index, "t"), ["Accepted=true/Accepted", "Accepted=true/Accepted"]);
    assert!(out.statuses.iter().any(|update| update.object.kind == Kind::TelemetryPolicy));
    assert!(!out.changes.iter().any(|change| matches!(change, Change::Upsert(Resource::Telemetry(_)))), "{out:?}");

    let section = format!("targetRefs: [{}], {LOG}", target.replace("gw}", "gw, sectionName: http}"));
    let (index, _) = serve(&(SHOP.to_owned() + gateway + &one("shop", &section)));
    assert_eq!(reasons(&index, "t"), ["Accepted=false/Invalid"]);
    assert_eq!(emitted(&index), []);
}

#[test]
fn of_two_with_the_same_target_the_older_is_in_force_there() {
    let spec = |targets: &str, mode: &str| format!("targetRefs: [{targets}], accessLog: {{mode: {mode}}}");
    let cart = "{kind: Service, name: cart}";
    let pods = "{kind: Pod, selector: {matchLabels: {app: cart}}}";
    let older = policy("b", "shop", "2026-01-01T00:00:00Z", &spec(cart, "All"));
    let newer = policy("a", "shop", "2026-01-02T00:00:00Z", &spec(&format!("{cart}, {pods}"), "Errors"));
    for text in [older.clone() + &newer, newer.clone() + &older] {
        let (mut index, _) = serve(&(SHOP.to_owned() + &text));
        assert_eq!(reasons(&index, "b"), ["Accepted=true/Accepted"]);
        assert_eq!(reasons(&index, "a"), ["Accepted=false/Conflicted", "Accepted=true/Accepted"]);
        assert!(told(&index, "a", "shop")[0][0].1.contains("TelemetryPolicy shop/b is older"));
        assert_eq!(listed(&index), ["shop/a", "shop/b"]);
        index.delete(&ObjectRef::new(Kind::TelemetryPolicy, "shop", "b"));
        index.commit();
        assert_eq!(reasons(&index, "a"), ["Accepted=true/Accepted", "Accepted=true/Accepted"]);
        assert_eq!(listed(&index), ["shop/a"]);
        assert_eq!(emitted(&index).len(), 1);
    }
    let again = one("shop", &spec(&format!("{cart}, {cart}"), "All"));
    let (index, _) = serve(&(SHOP.to_owned() + &again));
    assert_eq!(reasons(&index, "t"), ["Accepted=true/Accepted", "Accepted=false/Conflicted"]);
    assert_eq!(emitted(&index).len(), 1, "it is in force all the same");
}

#[test]
fn all_settings_are_understood() {
    let spec = "accessLog: {mode: All, samplingRate: {numerator: 5}, format: Text, fields: [time, status]}, \
                tracing: {mode: Enabled, provider: {backendRef: {name: cart, port: 9090}}, samplingRate: {numerator: 1, denominator: 2}, \
                parentBasedSampling: {mode: Enabled, samplingRate: {numerator: 50}}, serviceName: s, \
                attributes: [{name: env, type: Literal, literalValue: x}, {name: user, type: Header, headerName: X-User}]}";
    let (index, _) = serve(&(SHOP.to_owned() + &one("shop", spec)));
    let made = emitted(&index).remove(0);
    let share = |n, d| Share::new(n, d);
    assert_eq!((made.access_log.sampling, made.access_log.format), (share(5, 100), Some(LogFormat::Text)));
    assert_eq!(made.access_log.fields.unwrap().names().collect::<Vec<_>>(), ["time", "status"]);
    assert_eq!((made.tracing.enabled, made.tracing.sampling), (Some(true), share(1, 2)));
    assert_eq!(made.tracing.parent, share(50, 100).map(ParentSampling::Respected));
    assert_eq!(made.tracing.provider.unwrap().to_string(), "shop/cart:9090");
    assert_eq!(made.tracing.service_name.as_deref(), Some("s"));
    let attributes: Vec<_> = made.tracing.attributes.iter().map(|it| format!("{it:?}")).collect();
    assert!(attributes[1].contains(r#"Header("x-user")"#), "{attributes:?}");
    assert_eq!(reasons(&index, "t"), ["Accepted=true/Accepted", "ResolvedRefs=true/ResolvedRefs"]);
}

#[test]
fn a_policy_that_cannot_be_understood_is_not_in_force_and_says_which_field() {
    let tracing = |part: &str| format!("tracing: {{{part}}}");
    for (spec, field) in [
        ("accessLog: {mode: All, samplingRate: {numerator: 5, denominator: 4}}".into(), "spec.accessLog.samplingRate"),
        ("accessLog: {mode: Errors, samplingRate: {numerator: 5}}".into(), "spec.accessLog.samplingRate"),
        ("accessLog: {fields: []}".into(), "spec.accessLog.fields"),
        ("accessLog: {fields: [time, pth]}".into(), "spec.accessLog.fields[1]"),
        (tracing("samplingRate: {numerator: -1}"), "spec.tracing.samplingRate"),
        (tracing("samplingRate: {numerator: 0, denominator: 0}"), "spec.tracing.samplingRate"),
        (
            tracing("parentBasedSampling: {samplingRate: {numerator: 101}}"),
            "spec.tracing.parentBasedSampling.samplingRate",
        ),
        (tracing("mode: Disabled, provider: {backendRef: {name: cart, port: 80}}"), "spec.tracing.provider"),
        (
            "accessLog: {mode: Disabled, provider: {backendRef: {name: cart, port: 80}}}".into(),
            "spec.accessLog.provider",
        ),
        (
            "accessLog: {provider: {backendRef: {name: cart, port: 0}}}".into(),
            "spec.accessLog.provider.backendRef.port",
        ),
        (tracing("provider: {backendRef: {name: cart, port: 0}}"), "spec.tracing.provider.backendRef.port"),
        (tracing("attributes: [{name: a, type: Literal}]"), "spec.tracing.attributes[0].literalValue"),
        (tracing("attributes: [{name: a, type: Header, headerName: 'a b'}]"), "spec.tracing.attributes[0].headerName"),
        (tracing("attributes: [{name: '', type: Literal, literalValue: x}]"), "spec.tracing.attributes[0].name"),
        (format!("targetRefs: [], {LOG}"), "spec.targetRefs"),
        (
            format!("targetRefs: [{{kind: Service, name: cart}}, {{kind: ListenerSet, name: x}}], {LOG}"),
            "spec.targetRefs[1].kind",
        ),
        (
            format!("targetRefs: [{{kind: Service, name: cart}}, {{kind: Namespace, name: shop}}], {LOG}"),
            "spec.targetRefs[1]",
        ),
        (format!("targetRefs: [{{kind: Namespace, name: money}}], {LOG}"), "spec.targetRefs[0].name"),
    ] {
        let (index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec)));
        assert_eq!(emitted(&index), [], "{spec}");
        let told = told(&index, "t", "shop");
        assert!(!told.is_empty(), "{spec}");
        for target in told {
            assert_eq!(target.len(), 1, "{spec}");
            assert_eq!(target[0].0, "Accepted=false/Invalid", "{spec}");
            assert!(target[0].1.starts_with(&format!("{field}: ")), "{spec}: {}", target[0].1);
            assert!(target[0].1.contains("not in force"), "{spec}: {}", target[0].1);
        }
        assert_eq!(listed(&index), Vec::<String>::new());
    }
    let (index, _) = serve(&(SHOP.to_owned() + &one("shop", "accessLog: {fields: [pth]}")));
    assert!(told(&index, "t", "shop")[0][0].1.contains(r#"did you mean "path"?"#));
}

#[test]
fn a_collector_that_cannot_be_had_costs_the_traces_and_nothing_else() {
    let spec = |backend: &str| format!("{LOG}, tracing: {{provider: {{backendRef: {{{backend}}}}}}}");
    for (backend, reason) in [
        ("name: nobody", "BackendNotFound"),
        ("name: cart", "BackendNotFound"),
        ("name: bank, namespace: money, port: 80", "RefNotPermitted"),
        ("name: cart, kind: Pod, port: 80", "InvalidKind"),
    ] {
        let (index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec(backend))));
        let made = emitted(&index).remove(0);
        assert_eq!((made.tracing.withheld, made.tracing.provider.clone()), (true, None), "{backend}");
        assert_eq!(made.access_log.mode, Some(LogMode::All));
        assert_eq!(reasons(&index, "t"), ["Accepted=true/Accepted".to_owned(), format!("ResolvedRefs=false/{reason}")]);
    }
    // A grant permits it, as long as it is there, and a Service that comes is found.
    let (mut index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec("name: bank, namespace: money, port: 80"))));
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: money}\n\
                 spec: {from: [{group: weftmesh.io, kind: TelemetryPolicy, namespace: shop}], to: [{group: '', kind: Service}]}";
    objects(grant).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(emitted(&index)[0].tracing.provider.as_ref().map(ToString::to_string).as_deref(), Some("money/bank:80"));
    index.delete(&ObjectRef::new(Kind::Service, "money", "bank"));
    index.commit();
    assert_eq!(reasons(&index, "t")[1], "ResolvedRefs=false/BackendNotFound");
    index.delete(&ObjectRef::new(Kind::ReferenceGrant, "money", "g"));
    index.commit();
    assert_eq!(reasons(&index, "t")[1], "ResolvedRefs=false/RefNotPermitted");
}

#[test]
fn lines_go_to_the_collector_that_is_meant_or_to_the_standard_output() {
    let spec = |backend: &str| format!("accessLog: {{provider: {{backendRef: {{{backend}}}}}}}");
    let made = |index: &Index| emitted(index).remove(0).access_log.output;
    let (index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec("name: cart, port: 9090"))));
    let Some(LogOutput::Collector(port)) = made(&index) else { panic!("{:?}", made(&index)) };
    assert_eq!(port.to_string(), "shop/cart:9090");
    assert_eq!(reasons(&index, "t"), ["Accepted=true/Accepted", "ResolvedRefs=true/ResolvedRefs"]);
    let (mut index, _) = serve(&(SHOP.to_owned() + &one("shop", &spec("name: bank, namespace: money, port: 80"))));
    assert_eq!(made(&index), Some(LogOutput::Standard));
    assert_eq!(reasons(&index, "t")[1], "ResolvedRefs=false/RefNotPermitted");
    assert!(told(&index, "t", "shop")[0][1].1.contains("go to the standard output until then"));
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: money}\n\
                 spec: {from: [{group: weftmesh.io, kind: TelemetryPolicy, namespace: shop}], to: [{group: '', kind: Service}]}";
    objects(grant).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert!(matches!(made(&index), Some(LogOutput::Collector(_))), "{:?}", made(&index));
    index.delete(&ObjectRef::new(Kind::Service, "money", "bank"));
    index.commit();
    assert_eq!(reasons(&index, "t")[1], "ResolvedRefs=false/BackendNotFound");
    // Each collector by itself.
    let both = spec("name: nobody") + ", tracing: {provider: {backendRef: {name: cart, port: 9090}}}";
    let (index, _) = serve(&(SHOP.to_owned() + &one("shop", &both)));
    assert_eq!(made(&index), Some(LogOutput::Standard));
    assert!(emitted(&index)[0].tracing.provider.is_some());
    assert_eq!(reasons(&index, "t")[1], "ResolvedRefs=false/BackendNotFound");
}

#[test]
fn what_is_gone_leaves_nothing() {
    let (mut index, _) =
        serve(&(SHOP.to_owned() + &one("shop", &format!("targetRefs: [{{kind: Service, name: cart}}], {LOG}"))));
    assert_eq!(listed(&index), ["shop/t"]);
    index.delete(&ObjectRef::new(Kind::TelemetryPolicy, "shop", "t"));
    let out = index.commit();
    assert_eq!((emitted(&index).len(), listed(&index).len()), (0, 0));
    assert_eq!(out.changes.len(), 2, "the policy, and the pod that listed it: {out:?}");
    assert!(index.commit().is_empty());
}
