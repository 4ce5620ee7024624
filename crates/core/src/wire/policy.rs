//! Policies.

use weft_api::weft::config::v1 as proto;

use super::convert::{InvalidField, Wire, field, list, present, required, wire_enum, wire_list};
use crate::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, HeaderCondition, MeshPolicy, Mode, Operation, Scope,
    Source, WorkloadLimits,
};

wire_enum!(Action, proto::Action: Allow = Allow, Deny = Deny, Audit = Audit);
wire_enum!(Mode, proto::Mode: Permissive = Permissive, Strict = Strict, StrictAudit = StrictAudit);

impl Wire for Scope {
    type Message = proto::Scope;

    fn to_wire(&self) -> proto::Scope {
        use proto::scope::Scope as Form;
        proto::Scope {
            scope: Some(match self {
                Self::Mesh => Form::Mesh(proto::Empty {}),
                Self::Namespace(namespace) => Form::Namespace(namespace.to_wire()),
                Self::Selected => Form::Selected(proto::Empty {}),
            }),
        }
    }

    fn from_wire(it: proto::Scope) -> Result<Self, InvalidField> {
        use proto::scope::Scope as Form;
        Ok(match present(it.scope, "scope")? {
            Form::Mesh(_) => Self::Mesh,
            Form::Namespace(namespace) => Self::Namespace(field(namespace, "namespace")?),
            Form::Selected(_) => Self::Selected,
        })
    }
}

impl Wire for AuthorizationPolicy {
    type Message = proto::AuthorizationPolicy;

    fn to_wire(&self) -> proto::AuthorizationPolicy {
        proto::AuthorizationPolicy {
            key: Some(self.key.to_wire()),
            scope: Some(self.scope.to_wire()),
            action: self.action.to_wire(),
            dry_run: self.dry_run,
            rules: wire_list(&self.rules),
        }
    }

    fn from_wire(it: proto::AuthorizationPolicy) -> Result<Self, InvalidField> {
        Ok(Self {
            key: required(it.key, "key")?,
            scope: required(it.scope, "scope")?,
            action: field(it.action, "action")?,
            dry_run: it.dry_run,
            rules: list(it.rules, "rules")?,
        })
    }
}

impl Wire for AuthorizationRule {
    type Message = proto::AuthorizationRule;

    fn to_wire(&self) -> proto::AuthorizationRule {
        proto::AuthorizationRule { from: wire_list(&self.from), to: wire_list(&self.to) }
    }

    fn from_wire(it: proto::AuthorizationRule) -> Result<Self, InvalidField> {
        Ok(Self { from: list(it.from, "from")?, to: list(it.to, "to")? })
    }
}

impl Wire for Source {
    type Message = proto::Source;

    fn to_wire(&self) -> proto::Source {
        proto::Source {
            identities: wire_list(&self.identities),
            not_identities: wire_list(&self.not_identities),
            namespaces: wire_list(&self.namespaces),
            not_namespaces: wire_list(&self.not_namespaces),
            addresses: wire_list(&self.addresses),
            not_addresses: wire_list(&self.not_addresses),
        }
    }

    fn from_wire(it: proto::Source) -> Result<Self, InvalidField> {
        Ok(Self {
            identities: list(it.identities, "identities")?,
            not_identities: list(it.not_identities, "not_identities")?,
            namespaces: list(it.namespaces, "namespaces")?,
            not_namespaces: list(it.not_namespaces, "not_namespaces")?,
            addresses: list(it.addresses, "addresses")?,
            not_addresses: list(it.not_addresses, "not_addresses")?,
        })
    }
}

impl Wire for Operation {
    type Message = proto::Operation;

    fn to_wire(&self) -> proto::Operation {
        proto::Operation {
            ports: wire_list(&self.ports),
            not_ports: wire_list(&self.not_ports),
            methods: wire_list(&self.methods),
            not_methods: wire_list(&self.not_methods),
            paths: wire_list(&self.paths),
            not_paths: wire_list(&self.not_paths),
            hosts: wire_list(&self.hosts),
            not_hosts: wire_list(&self.not_hosts),
            headers: wire_list(&self.headers),
        }
    }

    fn from_wire(it: proto::Operation) -> Result<Self, InvalidField> {
        Ok(Self {
            ports: list(it.ports, "ports")?,
            not_ports: list(it.not_ports, "not_ports")?,
            methods: list(it.methods, "methods")?,
            not_methods: list(it.not_methods, "not_methods")?,
            paths: list(it.paths, "paths")?,
            not_paths: list(it.not_paths, "not_paths")?,
            hosts: list(it.hosts, "hosts")?,
            not_hosts: list(it.not_hosts, "not_hosts")?,
            headers: list(it.headers, "headers")?,
        })
    }
}

impl Wire for HeaderCondition {
    type Message = proto::HeaderCondition;

    fn to_wire(&self) -> proto::HeaderCondition {
        proto::HeaderCondition {
            name: self.name.clone(),
            values: wire_list(&self.values),
            not_values: wire_list(&self.not_values),
        }
    }

    fn from_wire(it: proto::HeaderCondition) -> Result<Self, InvalidField> {
        // A name that no request can have would make a DENY rule match nothing.
        http::HeaderName::from_lowercase(it.name.as_bytes())
            .map_err(|_| InvalidField::expected("a header name in lower case").within("name"))?;
        Ok(Self { name: it.name, values: list(it.values, "values")?, not_values: list(it.not_values, "not_values")? })
    }
}

impl Wire for GlobMatch {
    type Message = proto::Glob;

    fn to_wire(&self) -> proto::Glob {
        use proto::glob::Glob as Form;
        proto::Glob {
            glob: Some(match self {
                Self::Any => Form::Any(proto::Empty {}),
                Self::Exact(text) => Form::Exact(text.clone()),
                Self::Prefix(text) => Form::Prefix(text.clone()),
                Self::Suffix(text) => Form::Suffix(text.clone()),
            }),
        }
    }

    fn from_wire(it: proto::Glob) -> Result<Self, InvalidField> {
        use proto::glob::Glob as Form;
        Ok(match present(it.glob, "glob")? {
            Form::Any(_) => Self::Any,
            Form::Exact(text) => Self::Exact(text),
            Form::Prefix(text) => Self::Prefix(text),
            Form::Suffix(text) => Self::Suffix(text),
        })
    }
}

impl Wire for MeshPolicy {
    type Message = proto::MeshPolicy;

    fn to_wire(&self) -> proto::MeshPolicy {
        proto::MeshPolicy {
            key: Some(self.key.to_wire()),
            scope: Some(self.scope.to_wire()),
            created_unix_seconds: self.created_unix_seconds,
            mode: self.mode.map_or(proto::Mode::Unspecified.into(), |mode| mode.to_wire()),
            port_modes: self
                .port_modes
                .iter()
                .map(|(port, mode)| proto::PortMode { port: port.to_wire(), mode: mode.to_wire() })
                .collect(),
            max_connections: self.limits.max_connections,
            max_handshakes: self.limits.max_handshakes,
            max_buffer_bytes: self.limits.max_buffer_bytes,
            enforced: self.enforced,
        }
    }

    fn from_wire(it: proto::MeshPolicy) -> Result<Self, InvalidField> {
        let silent = it.mode == i32::from(proto::Mode::Unspecified);
        let port_modes = it.port_modes.into_iter().enumerate().map(|(index, it)| {
            let at = |name: &str| format!("port_modes[{index}].{name}");
            Ok((field(it.port, &at("port"))?, field(it.mode, &at("mode"))?))
        });
        Ok(Self {
            key: required(it.key, "key")?,
            scope: required(it.scope, "scope")?,
            created_unix_seconds: it.created_unix_seconds,
            mode: (!silent).then(|| field(it.mode, "mode")).transpose()?,
            port_modes: port_modes.collect::<Result<_, InvalidField>>()?,
            enforced: it.enforced,
            limits: WorkloadLimits {
                max_connections: it.max_connections,
                max_handshakes: it.max_handshakes,
                max_buffer_bytes: it.max_buffer_bytes,
            },
        })
    }
}
