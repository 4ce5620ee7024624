//! Rules: what HTTP and L4 rules have in common. Their parts are in the modules below.

mod action;
mod external_auth;
mod filter;
mod matches;

use http::StatusCode;
use weft_api::weft::config::v1 as proto;

use super::convert::{
    InvalidField, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};
use super::traffic::{sessions_from_wire, sessions_to_wire};
use crate::filter::validate_rule;
use crate::ids::{ListenerKey, RouteKey, RouteKind, RuleKey, SectionName};
use crate::route::{Created, HostnameMatch, HttpRule, L4Backend, L4Rule, Parent, RouteRule, Timeouts};

wire_enum!(RouteKind, proto::RouteKind: Grpc = Grpc, Http = Http, Tls = Tls, Tcp = Tcp, Udp = Udp);

/// What every rule has.
struct Common {
    key: RuleKey,
    name: Option<SectionName>,
    created: Created,
    parents: Vec<Parent>,
    hostnames: Vec<HostnameMatch>,
}

impl Wire for RouteRule {
    type Message = proto::Rule;

    fn to_wire(&self) -> proto::Rule {
        use proto::rule::Layer;
        let (name, created, hostnames, layer) = match self {
            Self::Http(rule) => (&rule.name, rule.created, &rule.hostnames, Layer::Http(http_to_wire(rule))),
            Self::L4(rule) => {
                let backends = wire_list(&rule.backends);
                (&rule.name, rule.created, &rule.hostnames, Layer::L4(proto::L4Rule { backends }))
            }
        };
        proto::Rule {
            key: Some(self.key().to_wire()),
            name: wire_optional(name.as_ref()),
            created_unix_seconds: created.unix_seconds,
            parents: wire_list(self.parents()),
            hostnames: wire_list(hostnames),
            layer: Some(layer),
        }
    }

    fn from_wire(it: proto::Rule) -> Result<Self, InvalidField> {
        use proto::rule::Layer;
        let common = Common {
            key: required(it.key, "key")?,
            name: optional(it.name, "name")?,
            created: Created { unix_seconds: it.created_unix_seconds },
            parents: list(it.parents, "parents")?,
            hostnames: list(it.hostnames, "hostnames")?,
        };
        let is_http = matches!(common.key.route.kind, RouteKind::Http | RouteKind::Grpc);
        match present(it.layer, "layer")? {
            Layer::Http(http) if is_http => {
                http_from_wire(common, http).map(Self::Http).map_err(|it| it.within("http"))
            }
            Layer::L4(l4) if !is_http => {
                let backends = list(l4.backends, "backends").map_err(|it| it.within("l4"))?;
                let Common { key, name, created, parents, hostnames } = common;
                Ok(Self::L4(L4Rule { key, name, created, parents, hostnames, backends }))
            }
            _ => Err(InvalidField::expected("the layer of the route's kind").within("layer")),
        }
    }
}

fn http_to_wire(rule: &HttpRule) -> proto::HttpRule {
    let (session, backend_sessions) = sessions_to_wire(&rule.sessions);
    proto::HttpRule {
        matches: wire_list(&rule.matches),
        filters: wire_list(&rule.filters),
        action: Some(rule.action.to_wire()),
        request_timeout: wire_optional(rule.timeouts.request.as_ref()),
        backend_request_timeout: wire_optional(rule.timeouts.backend_request.as_ref()),
        retry: wire_optional(rule.retry.as_ref()),
        session,
        backend_sessions,
    }
}

fn http_from_wire(common: Common, it: proto::HttpRule) -> Result<HttpRule, InvalidField> {
    let Common { key, name, created, parents, hostnames } = common;
    let rule = HttpRule {
        key,
        name,
        created,
        parents,
        hostnames,
        matches: list(it.matches, "matches")?,
        filters: list(it.filters, "filters")?,
        action: required(it.action, "action")?,
        timeouts: Timeouts {
            request: optional(it.request_timeout, "request_timeout")?,
            backend_request: optional(it.backend_request_timeout, "backend_request_timeout")?,
        },
        retry: optional(it.retry, "retry")?,
        sessions: sessions_from_wire(it.session, it.backend_sessions)?,
    };
    validate_rule(&rule).map_err(InvalidField::invalid)?;
    Ok(rule)
}

impl Wire for RuleKey {
    type Message = proto::RuleKey;

    fn to_wire(&self) -> proto::RuleKey {
        proto::RuleKey {
            kind: self.route.kind.to_wire(),
            namespace: self.route.namespace.to_wire(),
            name: self.route.name.to_wire(),
            index: self.index.into(),
        }
    }

    fn from_wire(it: proto::RuleKey) -> Result<Self, InvalidField> {
        let route = RouteKey {
            kind: field(it.kind, "kind")?,
            namespace: field(it.namespace, "namespace")?,
            name: field(it.name, "name")?,
        };
        let index =
            u16::try_from(it.index).map_err(|_| InvalidField::expected("an index up to 65535").within("index"))?;
        Ok(Self { route, index })
    }
}

impl Wire for Parent {
    type Message = proto::Parent;

    fn to_wire(&self) -> proto::Parent {
        use proto::parent::Parent as Form;
        proto::Parent {
            parent: Some(match self {
                Self::Service { port, consumer } => {
                    let consumer = wire_optional(consumer.as_ref());
                    Form::Service(proto::ServiceParent { port: Some(port.to_wire()), consumer })
                }
                Self::Listener(key) => Form::Listener(key.to_wire()),
            }),
        }
    }

    fn from_wire(it: proto::Parent) -> Result<Self, InvalidField> {
        use proto::parent::Parent as Form;
        Ok(match present(it.parent, "parent")? {
            Form::Service(it) => {
                Self::Service { port: required(it.port, "port")?, consumer: optional(it.consumer, "consumer")? }
            }
            Form::Listener(it) => Self::Listener(ListenerKey::from_wire(it)?),
        })
    }
}

impl Wire for HostnameMatch {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        let hostname = Self::new(&text);
        let (Self::Exact(host) | Self::Suffix(host)) = &hostname;
        // The same letters as in the host of a request, or it would never match.
        if hostname.to_string() != text || crate::normalize::host(host).as_deref() != Ok(host) {
            return Err(InvalidField::expected("a hostname in lower case, perhaps after '*.'"));
        }
        Ok(hostname)
    }
}

impl Wire for StatusCode {
    type Message = u32;

    fn to_wire(&self) -> u32 {
        self.as_u16().into()
    }

    fn from_wire(code: u32) -> Result<Self, InvalidField> {
        let code = u16::try_from(code).ok().and_then(|code| Self::from_u16(code).ok());
        code.ok_or_else(|| InvalidField::expected("an HTTP status code"))
    }
}

impl Wire for L4Backend {
    type Message = proto::L4Backend;

    fn to_wire(&self) -> proto::L4Backend {
        proto::L4Backend { target: Some(self.target.to_wire()), weight: self.weight }
    }

    fn from_wire(it: proto::L4Backend) -> Result<Self, InvalidField> {
        Ok(Self { target: required(it.target, "target")?, weight: it.weight })
    }
}
