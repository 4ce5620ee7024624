//! What a rule does with a request, and where it goes.

use weft_api::weft::config::v1 as proto;

use super::filter::{scheme_from_wire, scheme_to_wire};
use crate::route::{BackendTarget, HttpAction, HttpBackend, InvalidBackend, Redirect, Retry};
use crate::wire::convert::{
    InvalidField, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};

wire_enum!(InvalidBackend, proto::InvalidBackendReason:
    NotFound = NotFound, NotPermitted = NotPermitted, InvalidKind = InvalidKind, UnsupportedPort = UnsupportedPort,
);

impl Wire for HttpAction {
    type Message = proto::http_rule::Action;

    fn to_wire(&self) -> proto::http_rule::Action {
        use proto::http_rule::Action;
        match self {
            Self::Forward(backends) => Action::Forward(proto::HttpBackends { backends: wire_list(backends) }),
            Self::Redirect(redirect) => Action::Redirect(redirect.to_wire()),
            Self::Invalid(why) => Action::Invalid(why.clone()),
        }
    }

    fn from_wire(it: proto::http_rule::Action) -> Result<Self, InvalidField> {
        use proto::http_rule::Action;
        match it {
            Action::Forward(it) => list(it.backends, "forward.backends").map(Self::Forward),
            Action::Redirect(it) => field(it, "redirect").map(Self::Redirect),
            Action::Invalid(why) => Ok(Self::Invalid(why)),
        }
    }
}

impl Wire for Redirect {
    type Message = proto::Redirect;

    fn to_wire(&self) -> proto::Redirect {
        proto::Redirect {
            scheme: scheme_to_wire(self.scheme),
            hostname: self.hostname.clone(),
            path: wire_optional(self.path.as_ref()),
            port: wire_optional(self.port.as_ref()),
            status: self.status.to_wire(),
        }
    }

    fn from_wire(it: proto::Redirect) -> Result<Self, InvalidField> {
        Ok(Self {
            scheme: scheme_from_wire(it.scheme)?,
            hostname: it.hostname,
            path: optional(it.path, "path")?,
            port: optional(it.port, "port")?,
            status: field(it.status, "status")?,
        })
    }
}

impl Wire for HttpBackend {
    type Message = proto::HttpBackend;

    fn to_wire(&self) -> proto::HttpBackend {
        proto::HttpBackend {
            target: Some(self.target.to_wire()),
            weight: self.weight,
            filters: wire_list(&self.filters),
        }
    }

    fn from_wire(it: proto::HttpBackend) -> Result<Self, InvalidField> {
        Ok(Self { target: required(it.target, "target")?, weight: it.weight, filters: list(it.filters, "filters")? })
    }
}

impl Wire for BackendTarget {
    type Message = proto::BackendTarget;

    fn to_wire(&self) -> proto::BackendTarget {
        use proto::backend_target::Target;
        proto::BackendTarget {
            target: Some(match self {
                Self::Service(key) => Target::Service(key.to_wire()),
                Self::Invalid { reference, reason } => {
                    Target::Invalid(proto::InvalidBackend { reference: reference.clone(), reason: reason.to_wire() })
                }
            }),
        }
    }

    fn from_wire(it: proto::BackendTarget) -> Result<Self, InvalidField> {
        use proto::backend_target::Target;
        match present(it.target, "target")? {
            Target::Service(key) => field(key, "service").map(Self::Service),
            Target::Invalid(it) => {
                Ok(Self::Invalid { reference: it.reference, reason: field(it.reason, "invalid.reason")? })
            }
        }
    }
}

impl Wire for Retry {
    type Message = proto::Retry;

    fn to_wire(&self) -> proto::Retry {
        proto::Retry { attempts: self.attempts, backoff: Some(self.backoff.to_wire()), codes: wire_list(&self.codes) }
    }

    fn from_wire(it: proto::Retry) -> Result<Self, InvalidField> {
        Ok(Self { attempts: it.attempts, backoff: required(it.backoff, "backoff")?, codes: list(it.codes, "codes")? })
    }
}
