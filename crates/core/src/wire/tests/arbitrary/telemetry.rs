//! Any telemetry policy.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{FEW, any_text, policy_key, service_port_key, text};
use crate::ids::GatewayKey;
use crate::policy::Scope;
use crate::telemetry::*;

fn share() -> impl Strategy<Value = Share> {
    (1..1000_u32).prop_flat_map(|of| (0..=of).prop_map(move |some| Share::new(some, of).unwrap()))
}

fn access_log() -> impl Strategy<Value = AccessLogPolicy> {
    let mode = of(select(&[LogMode::Disabled, LogMode::Errors, LogMode::All][..]));
    let format = of(select(&[LogFormat::Json, LogFormat::Text][..]));
    let fields = of(subsequence(&LOG_FIELDS[..], 0..LOG_FIELDS.len()).prop_map(LogFields::named));
    let output = of(prop_oneof![Just(LogOutput::Standard), service_port_key().prop_map(LogOutput::Collector)]);
    (mode, of(share()), format, fields, output).prop_map(|(mode, sampling, format, fields, output)| AccessLogPolicy {
        mode,
        sampling,
        format,
        fields,
        output,
    })
}

fn tracing() -> impl Strategy<Value = TracingPolicy> {
    let parent = of(prop_oneof![Just(ParentSampling::Ignored), share().prop_map(ParentSampling::Respected)]);
    let value = prop_oneof![
        any_text().prop_map(AttributeSource::Literal),
        "x-[a-z0-9]{1,6}".prop_map(AttributeSource::Header),
    ];
    let attribute = (any_text(), value).prop_map(|(name, value)| SpanAttribute { name, value });
    let rest = (of(any_text()), vec(attribute, FEW));
    let provider = (of(service_port_key()), any::<bool>());
    (of(any::<bool>()), provider, of(share()), parent, rest).prop_map(
        |(enabled, (provider, withheld), sampling, parent, (service_name, attributes))| TracingPolicy {
            enabled,
            provider,
            withheld,
            sampling,
            parent,
            service_name,
            attributes,
        },
    )
}

pub(super) fn policy() -> impl Strategy<Value = TelemetryPolicy> {
    let scope =
        prop_oneof![Just(Scope::Mesh), text().prop_map(|it| Scope::Namespace(it.into())), Just(Scope::Selected)];
    let gateway = (text(), text()).prop_map(|(namespace, name)| GatewayKey::new(namespace, name));
    (policy_key(), scope, vec(gateway, FEW), any::<i64>(), access_log(), tracing()).prop_map(
        |(key, scope, gateways, created_unix_seconds, access_log, tracing)| TelemetryPolicy {
            key,
            scope,
            gateways,
            created_unix_seconds,
            access_log,
            tracing,
        },
    )
}
