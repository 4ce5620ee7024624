//! Which settings win, and what is sampled.

use super::*;
use crate::ids::{Port, ServiceKey};

fn port(name: &str) -> ServicePortKey {
    ServicePortKey { service: ServiceKey::new("telemetry", name), port: Port::new(4317).unwrap() }
}

fn policy(name: &str, scope: Scope, created: i64) -> TelemetryPolicy {
    TelemetryPolicy {
        key: PolicyKey::new("ns", name),
        scope,
        gateways: Vec::new(),
        created_unix_seconds: created,
        access_log: AccessLogPolicy::default(),
        tracing: TracingPolicy::default(),
    }
}

fn merged(policies: &[&TelemetryPolicy]) -> Telemetry {
    effective(policies.iter().copied(), None, &Defaults::default())
}

#[test]
fn without_a_policy_errors_are_logged_and_nothing_is_traced() {
    let all = merged(&[]);
    assert_eq!((all.access_log.mode, all.access_log.format), (LogMode::Errors, LogFormat::Json));
    assert!(all.access_log.wants(true, 0) && !all.access_log.wants(false, 0));
    assert_eq!(all.tracing, None);
    let traced = effective([].into_iter(), None, &Defaults { has_collector: true, ..Defaults::default() });
    let tracing = traced.tracing.unwrap();
    assert_eq!((tracing.collector, tracing.sampling), (Collector::Default, Share::ONE_PERCENT));
    assert_eq!(tracing.parent, ParentSampling::Respected(Share::ALL));
}

#[test]
fn each_setting_is_the_most_specific_policys_that_gives_it() {
    let mut mesh = policy("mesh", Scope::Mesh, 0);
    mesh.access_log = AccessLogPolicy { mode: Some(LogMode::All), format: Some(LogFormat::Text), ..mesh.access_log };
    mesh.tracing =
        TracingPolicy { provider: Some(port("mesh")), sampling: Share::new(1, 2), ..TracingPolicy::default() };
    let mut namespace = policy("ns", Scope::Namespace("ns".into()), 0);
    namespace.access_log.mode = Some(LogMode::Disabled);
    namespace.tracing.sampling = Some(Share::ALL);
    let mut workload = policy("w", Scope::Selected, 9);
    workload.access_log.fields = Some(LogFields::named(["time", "status"]));
    let all = merged(&[&mesh, &workload, &namespace]);
    assert_eq!((all.access_log.mode, all.access_log.format), (LogMode::Disabled, LogFormat::Text));
    assert_eq!(all.access_log.fields.names().collect::<Vec<_>>(), ["time", "status"]);
    let tracing = all.tracing.unwrap();
    assert_eq!((tracing.sampling, tracing.collector), (Share::ALL, Collector::Service(port("mesh"))));
    assert_eq!(all.access_log.collector, None);

    // Among equals the older, then the name.
    let mut older = policy("z", Scope::Selected, 1);
    older.access_log.mode = Some(LogMode::Errors);
    let mut younger = policy("a", Scope::Selected, 2);
    younger.access_log.mode = Some(LogMode::All);
    assert_eq!(merged(&[&younger, &older, &namespace]).access_log.mode, LogMode::Errors);
    younger.created_unix_seconds = 1;
    assert_eq!(merged(&[&older, &younger]).access_log.mode, LogMode::All);
}

#[test]
fn lines_go_where_the_most_specific_policy_says_else_where_the_process_was_told() {
    let default = AccessLog { collector: Some(Collector::Default), ..AccessLog::default() };
    let defaults = Defaults { access_log: default, ..Defaults::default() };
    let of = |policies: &[&TelemetryPolicy]| effective(policies.iter().copied(), None, &defaults).access_log.collector;
    assert_eq!(of(&[]), Some(Collector::Default));
    let mut mesh = policy("mesh", Scope::Mesh, 0);
    assert_eq!(of(&[&mesh]), Some(Collector::Default), "it says nothing");
    mesh.access_log.output = Some(LogOutput::Collector(port("logs")));
    assert_eq!(of(&[&mesh]), Some(Collector::Service(port("logs"))));
    let mut workload = policy("w", Scope::Selected, 0);
    workload.access_log.output = Some(LogOutput::Standard);
    assert_eq!(of(&[&mesh, &workload]), None);
}

#[test]
fn tracing_that_is_disabled_somewhere_specific_is_off_whatever_the_rest_says() {
    let mut mesh = policy("mesh", Scope::Mesh, 0);
    mesh.tracing.provider = Some(port("mesh"));
    let mut workload = policy("w", Scope::Selected, 0);
    workload.tracing.enabled = Some(false);
    assert_eq!(merged(&[&mesh, &workload]).tracing, None);
    mesh.tracing.enabled = Some(false);
    workload.tracing.enabled = Some(true);
    assert!(merged(&[&mesh, &workload]).tracing.is_some(), "and enabled there it is on");
}

/// Whoever enables traces more specifically didn't mean another collector.
#[test]
fn a_provider_that_cannot_be_had_is_replaced_by_no_other() {
    let defaults = Defaults { has_collector: true, ..Defaults::default() };
    let collector = |policies: &[&TelemetryPolicy]| {
        effective(policies.iter().copied(), None, &defaults).tracing.map(|it| it.collector)
    };
    let mut mesh = policy("mesh", Scope::Mesh, 0);
    mesh.tracing.provider = Some(port("mesh"));
    let mut namespace = policy("ns", Scope::Namespace("ns".into()), 0);
    namespace.tracing.withheld = true;
    let mut workload = policy("w", Scope::Selected, 0);
    workload.tracing.enabled = Some(true);
    assert_eq!(collector(&[&namespace, &workload]), None, "not the process's own");
    assert_eq!(collector(&[&mesh, &namespace, &workload]), None, "nor a less specific policy's");
    workload.tracing.provider = Some(port("own"));
    assert_eq!(collector(&[&mesh, &namespace, &workload]), Some(Collector::Service(port("own"))));
    workload.tracing.provider = None;
    mesh.tracing.withheld = true;
    namespace.tracing = TracingPolicy { provider: Some(port("ns")), ..TracingPolicy::default() };
    assert_eq!(collector(&[&mesh, &namespace, &workload]), Some(Collector::Service(port("ns"))));
}

#[test]
fn a_policy_for_a_gateway_wins_there_and_its_clients_have_no_say() {
    let mut namespace = policy("ns", Scope::Namespace("edge".into()), 0);
    namespace.access_log.mode = Some(LogMode::Disabled);
    namespace.tracing.provider = Some(port("ns"));
    let mut own = policy("gw", Scope::Selected, 5);
    own.gateways = vec![GatewayKey::new("edge", "web")];
    own.access_log.mode = Some(LogMode::All);
    let gateway = GatewayKey::new("edge", "web");
    let all = effective([&namespace, &own].into_iter(), Some(&gateway), &Defaults::default());
    assert_eq!(all.access_log.mode, LogMode::All);
    assert_eq!(all.tracing.as_ref().map(|it| it.parent), Some(ParentSampling::Ignored));
    own.tracing.parent = Some(ParentSampling::Respected(Share::ALL));
    let all = effective([&namespace, &own].into_iter(), Some(&gateway), &Defaults::default());
    assert_eq!(all.tracing.map(|it| it.parent), Some(own.tracing.parent.unwrap()));
}

#[test]
fn the_clients_of_a_gateway_have_no_say_where_it_traces_nothing_either() {
    let gateway = GatewayKey::new("edge", "web");
    let at = |policies: &[&TelemetryPolicy], gateway: Option<&GatewayKey>| {
        effective(policies.iter().copied(), gateway, &Defaults::default())
    };
    let none = at(&[], Some(&gateway));
    assert_eq!((none.tracing, none.parent), (None, ParentSampling::Ignored));
    assert_eq!(at(&[], None).parent, ParentSampling::Respected(Share::ALL));
    let mut own = policy("gw", Scope::Namespace("edge".into()), 0);
    own.tracing.parent = Some(ParentSampling::Respected(Share::NONE));
    assert_eq!(at(&[&own], Some(&gateway)).parent, ParentSampling::Respected(Share::NONE));
}

#[test]
fn only_the_mesh_can_do_without_lines_of_what_policies_refuse() {
    let disabled = |name: &str, scope: Scope| {
        let mut made = policy(name, scope, 0);
        made.access_log.mode = Some(LogMode::Disabled);
        made
    };
    let of = |policies: &[&TelemetryPolicy]| {
        let told = merged(policies).access_log;
        (told.mode, told.audit)
    };
    let namespace = disabled("ns", Scope::Namespace("ns".into()));
    assert_eq!(of(&[&namespace]), (LogMode::Disabled, true));
    assert_eq!(of(&[&disabled("w", Scope::Selected)]), (LogMode::Disabled, true));
    let mesh = disabled("mesh", Scope::Mesh);
    assert_eq!(of(&[&namespace, &mesh]), (LogMode::Disabled, false));
    let mut on = policy("w", Scope::Selected, 0);
    on.access_log.mode = Some(LogMode::All);
    assert_eq!(of(&[&on, &mesh]), (LogMode::All, false));
    let off = AccessLog { audit: false, ..AccessLog::default() };
    let defaults = Defaults { access_log: off, ..Defaults::default() };
    assert!(!effective([&namespace].into_iter(), None, &defaults).access_log.audit);
}

#[test]
fn shares_take_what_they_say() {
    assert!(Share::ALL.takes(u64::MAX) && !Share::NONE.takes(0));
    let quarter = Share::new(1, 4).unwrap();
    assert!(quarter.takes(u64::MAX / 4 - 1) && !quarter.takes(u64::MAX / 4 + 2));
    assert_eq!((Share::new(2, 1), Share::new(0, 0)), (None, None));
    assert_eq!(Share::of(0.01).map(|it| (it.numerator(), it.denominator())), Some((10_000, 1_000_000)));
    assert!([-0.1, 1.1, f64::NAN].into_iter().all(|it| Share::of(it).is_none()));
}

#[test]
fn who_began_the_trace_decides_as_far_as_its_word_counts() {
    let (low, high) = (0, u64::MAX);
    let tracing = |parent| Tracing {
        collector: Collector::Default,
        sampling: Share::ONE_PERCENT,
        parent,
        service_name: None,
        attributes: Vec::new(),
    };
    let respected = tracing(ParentSampling::Respected(Share::new(1, 2).unwrap()));
    let ignored = tracing(ParentSampling::Ignored);
    for (it, parent, random, expected) in [
        (&respected, Some(false), low, false),
        (&respected, Some(true), u64::MAX / 4, true),
        (&respected, Some(true), high, false),
        (&respected, None, low, true),
        (&respected, None, u64::MAX / 4, false),
        (&ignored, Some(false), low, true),
        (&ignored, Some(true), u64::MAX / 4, false),
    ] {
        assert_eq!(it.samples(parent, random), expected, "{parent:?} {random}");
    }
}

#[test]
fn a_gateway_is_known_by_its_id() {
    let names = |uid: &str| gateway_of(&uid.into()).map(|key| key.to_string());
    assert_eq!(names("Kubernetes//Gateway/edge/web").as_deref(), Some("edge/web"));
    assert_eq!(names("Kubernetes//Pod/edge/web"), None);
}
