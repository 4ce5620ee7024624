//! Telemetry policies.

use weft_api::weft::config::v1 as proto;

use super::convert::{
    InvalidField, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};
use crate::telemetry::{
    AccessLogPolicy, AttributeSource, LogFields, LogFormat, LogMode, LogOutput, ParentSampling, Share, SpanAttribute,
    TelemetryPolicy, TracingPolicy,
};

wire_enum!(LogMode, proto::LogMode: Disabled = Disabled, Errors = Errors, All = All);
wire_enum!(LogFormat, proto::LogFormat: Json = Json, Text = Text);

impl Wire for TelemetryPolicy {
    type Message = proto::TelemetryPolicy;

    fn to_wire(&self) -> proto::TelemetryPolicy {
        proto::TelemetryPolicy {
            key: Some(self.key.to_wire()),
            scope: Some(self.scope.to_wire()),
            gateways: wire_list(&self.gateways),
            created_unix_seconds: self.created_unix_seconds,
            access_log: Some(self.access_log.to_wire()),
            tracing: Some(self.tracing.to_wire()),
        }
    }

    fn from_wire(it: proto::TelemetryPolicy) -> Result<Self, InvalidField> {
        Ok(Self {
            key: required(it.key, "key")?,
            scope: required(it.scope, "scope")?,
            gateways: list(it.gateways, "gateways")?,
            created_unix_seconds: it.created_unix_seconds,
            access_log: optional(it.access_log, "access_log")?.unwrap_or_default(),
            tracing: optional(it.tracing, "tracing")?.unwrap_or_default(),
        })
    }
}

/// An enum whose zero on the wire is silence.
fn said<T: Wire<Message = i32>>(value: i32, name: &str) -> Result<Option<T>, InvalidField> {
    (value != 0).then(|| field(value, name)).transpose()
}

impl Wire for AccessLogPolicy {
    type Message = proto::AccessLogPolicy;

    fn to_wire(&self) -> proto::AccessLogPolicy {
        proto::AccessLogPolicy {
            mode: self.mode.map_or(0, |mode| mode.to_wire()),
            sampling: wire_optional(self.sampling.as_ref()),
            format: self.format.map_or(0, |format| format.to_wire()),
            fields: wire_optional(self.fields.as_ref()),
            output: wire_optional(self.output.as_ref()),
        }
    }

    fn from_wire(it: proto::AccessLogPolicy) -> Result<Self, InvalidField> {
        Ok(Self {
            mode: said(it.mode, "mode")?,
            sampling: optional(it.sampling, "sampling")?,
            format: said(it.format, "format")?,
            fields: optional(it.fields, "fields")?,
            output: optional(it.output, "output")?,
        })
    }
}

impl Wire for LogOutput {
    type Message = proto::LogOutput;

    fn to_wire(&self) -> proto::LogOutput {
        use proto::log_output::Output as Form;
        proto::LogOutput {
            output: Some(match self {
                Self::Standard => Form::Standard(proto::Empty {}),
                Self::Collector(port) => Form::Collector(port.to_wire()),
            }),
        }
    }

    fn from_wire(it: proto::LogOutput) -> Result<Self, InvalidField> {
        use proto::log_output::Output as Form;
        Ok(match present(it.output, "output")? {
            Form::Standard(_) => Self::Standard,
            Form::Collector(port) => Self::Collector(field(port, "collector")?),
        })
    }
}

impl Wire for LogFields {
    type Message = proto::LogFields;

    fn to_wire(&self) -> proto::LogFields {
        proto::LogFields { names: self.names().map(str::to_owned).collect() }
    }

    fn from_wire(it: proto::LogFields) -> Result<Self, InvalidField> {
        Ok(Self::named(it.names))
    }
}

impl Wire for Share {
    type Message = proto::Share;

    fn to_wire(&self) -> proto::Share {
        proto::Share { numerator: self.numerator(), denominator: self.denominator() }
    }

    fn from_wire(it: proto::Share) -> Result<Self, InvalidField> {
        Self::new(it.numerator, it.denominator).ok_or_else(|| InvalidField::expected("a share from none to all"))
    }
}

impl Wire for TracingPolicy {
    type Message = proto::TracingPolicy;

    fn to_wire(&self) -> proto::TracingPolicy {
        proto::TracingPolicy {
            enabled: self.enabled,
            provider: wire_optional(self.provider.as_ref()),
            withheld: self.withheld,
            sampling: wire_optional(self.sampling.as_ref()),
            parent: wire_optional(self.parent.as_ref()),
            service_name: self.service_name.clone(),
            attributes: wire_list(&self.attributes),
        }
    }

    fn from_wire(it: proto::TracingPolicy) -> Result<Self, InvalidField> {
        Ok(Self {
            enabled: it.enabled,
            provider: optional(it.provider, "provider")?,
            withheld: it.withheld,
            sampling: optional(it.sampling, "sampling")?,
            parent: optional(it.parent, "parent")?,
            service_name: it.service_name,
            attributes: list(it.attributes, "attributes")?,
        })
    }
}

impl Wire for ParentSampling {
    type Message = proto::ParentSampling;

    fn to_wire(&self) -> proto::ParentSampling {
        use proto::parent_sampling::Parent as Form;
        proto::ParentSampling {
            parent: Some(match self {
                Self::Ignored => Form::Ignored(proto::Empty {}),
                Self::Respected(share) => Form::Respected(share.to_wire()),
            }),
        }
    }

    fn from_wire(it: proto::ParentSampling) -> Result<Self, InvalidField> {
        use proto::parent_sampling::Parent as Form;
        Ok(match present(it.parent, "parent")? {
            Form::Ignored(_) => Self::Ignored,
            Form::Respected(share) => Self::Respected(field(share, "respected")?),
        })
    }
}

impl Wire for SpanAttribute {
    type Message = proto::SpanAttribute;

    fn to_wire(&self) -> proto::SpanAttribute {
        use proto::span_attribute::Value as Form;
        let value = match &self.value {
            AttributeSource::Literal(text) => Form::Literal(text.clone()),
            AttributeSource::Header(name) => Form::Header(name.clone()),
        };
        proto::SpanAttribute { name: self.name.clone(), value: Some(value) }
    }

    fn from_wire(it: proto::SpanAttribute) -> Result<Self, InvalidField> {
        use proto::span_attribute::Value as Form;
        let value = match present(it.value, "value")? {
            Form::Literal(text) => AttributeSource::Literal(text),
            Form::Header(name) => {
                http::HeaderName::from_lowercase(name.as_bytes())
                    .map_err(|_| InvalidField::expected("a header name in lower case").within("header"))?;
                AttributeSource::Header(name)
            }
        };
        Ok(Self { name: it.name, value })
    }
}
