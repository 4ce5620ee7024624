//! Filters.

use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};
use weft_api::weft::config::v1 as proto;

use crate::route::{
    Cors, Fraction, HeaderModifier, HttpFilter, Mirror, OriginMatch, PathModifier, RedirectScheme, Rewrite,
};
use crate::wire::convert::{InvalidField, Wire, field, list, optional, present, required, wire_list, wire_optional};

impl Wire for HttpFilter {
    type Message = proto::HttpFilter;

    fn to_wire(&self) -> proto::HttpFilter {
        use proto::http_filter::Filter;
        proto::HttpFilter {
            filter: Some(match self {
                Self::RequestHeaders(it) => Filter::RequestHeaders(it.to_wire()),
                Self::ResponseHeaders(it) => Filter::ResponseHeaders(it.to_wire()),
                Self::Rewrite(it) => Filter::Rewrite(it.to_wire()),
                Self::Mirror(it) => Filter::Mirror(it.to_wire()),
                Self::Cors(it) => Filter::Cors(it.to_wire()),
                Self::ExternalAuth(it) => Filter::ExternalAuth(it.to_wire()),
            }),
        }
    }

    fn from_wire(it: proto::HttpFilter) -> Result<Self, InvalidField> {
        use proto::http_filter::Filter;
        match present(it.filter, "filter")? {
            Filter::RequestHeaders(it) => field(it, "request_headers").map(Self::RequestHeaders),
            Filter::ResponseHeaders(it) => field(it, "response_headers").map(Self::ResponseHeaders),
            Filter::Rewrite(it) => field(it, "rewrite").map(Self::Rewrite),
            Filter::Mirror(it) => field(it, "mirror").map(Self::Mirror),
            Filter::Cors(it) => field(it, "cors").map(Self::Cors),
            Filter::ExternalAuth(it) => field(it, "external_auth").map(Self::ExternalAuth),
        }
    }
}

impl Wire for (HeaderName, HeaderValue) {
    type Message = proto::Header;

    fn to_wire(&self) -> proto::Header {
        proto::Header { name: self.0.to_wire(), value: self.1.to_wire() }
    }

    fn from_wire(it: proto::Header) -> Result<Self, InvalidField> {
        Ok((field(it.name, "name")?, field(it.value, "value")?))
    }
}

impl Wire for HeaderValue {
    type Message = Vec<u8>;

    fn to_wire(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_wire(bytes: Vec<u8>) -> Result<Self, InvalidField> {
        Self::try_from(bytes).map_err(|_| InvalidField::expected("a header value"))
    }
}

impl Wire for HeaderModifier {
    type Message = proto::HeaderModifier;

    fn to_wire(&self) -> proto::HeaderModifier {
        proto::HeaderModifier { set: wire_list(&self.set), add: wire_list(&self.add), remove: wire_list(&self.remove) }
    }

    fn from_wire(it: proto::HeaderModifier) -> Result<Self, InvalidField> {
        Ok(Self { set: list(it.set, "set")?, add: list(it.add, "add")?, remove: list(it.remove, "remove")? })
    }
}

impl Wire for PathModifier {
    type Message = proto::PathModifier;

    fn to_wire(&self) -> proto::PathModifier {
        use proto::path_modifier::Path;
        proto::PathModifier {
            path: Some(match self {
                Self::Full(path) => Path::Full(path.clone()),
                Self::Prefix(prefix) => Path::Prefix(prefix.clone()),
            }),
        }
    }

    fn from_wire(it: proto::PathModifier) -> Result<Self, InvalidField> {
        use proto::path_modifier::Path;
        Ok(match present(it.path, "path")? {
            Path::Full(path) => Self::Full(path),
            Path::Prefix(prefix) => Self::Prefix(prefix),
        })
    }
}

/// A scheme, where the wire's zero stands for the request's own.
pub(super) fn scheme_to_wire(scheme: Option<RedirectScheme>) -> i32 {
    let scheme = match scheme {
        None => proto::Scheme::Unspecified,
        Some(RedirectScheme::Http) => proto::Scheme::Http,
        Some(RedirectScheme::Https) => proto::Scheme::Https,
    };
    scheme.into()
}

pub(super) fn scheme_from_wire(value: i32) -> Result<Option<RedirectScheme>, InvalidField> {
    match proto::Scheme::try_from(value) {
        Ok(proto::Scheme::Unspecified) => Ok(None),
        Ok(proto::Scheme::Http) => Ok(Some(RedirectScheme::Http)),
        Ok(proto::Scheme::Https) => Ok(Some(RedirectScheme::Https)),
        Err(_) => Err(InvalidField::new(crate::wire::Problem::UnknownValue(value)).within("scheme")),
    }
}

impl Wire for Rewrite {
    type Message = proto::Rewrite;

    fn to_wire(&self) -> proto::Rewrite {
        proto::Rewrite { hostname: wire_optional(self.hostname.as_ref()), path: wire_optional(self.path.as_ref()) }
    }

    fn from_wire(it: proto::Rewrite) -> Result<Self, InvalidField> {
        Ok(Self { hostname: optional(it.hostname, "hostname")?, path: optional(it.path, "path")? })
    }
}

impl Wire for Mirror {
    type Message = proto::Mirror;

    fn to_wire(&self) -> proto::Mirror {
        proto::Mirror {
            backend: Some(self.backend.to_wire()),
            numerator: self.fraction.numerator,
            denominator: self.fraction.denominator.get(),
        }
    }

    fn from_wire(it: proto::Mirror) -> Result<Self, InvalidField> {
        let denominator = NonZeroU32::new(it.denominator);
        let denominator = denominator.ok_or_else(|| InvalidField::expected("not 0").within("denominator"))?;
        let fraction = Fraction { numerator: it.numerator, denominator };
        Ok(Self { backend: required(it.backend, "backend")?, fraction })
    }
}

impl Wire for Cors {
    type Message = proto::Cors;

    fn to_wire(&self) -> proto::Cors {
        proto::Cors {
            allow_origins: wire_list(&self.allow_origins),
            allow_credentials: self.allow_credentials,
            allow_methods: self.allow_methods.clone(),
            allow_headers: self.allow_headers.clone(),
            expose_headers: self.expose_headers.clone(),
            max_age_seconds: self.max_age_seconds,
        }
    }

    fn from_wire(it: proto::Cors) -> Result<Self, InvalidField> {
        Ok(Self {
            allow_origins: list(it.allow_origins, "allow_origins")?,
            allow_credentials: it.allow_credentials,
            allow_methods: it.allow_methods,
            allow_headers: it.allow_headers,
            expose_headers: it.expose_headers,
            max_age_seconds: it.max_age_seconds,
        })
    }
}

impl Wire for OriginMatch {
    type Message = proto::Origin;

    fn to_wire(&self) -> proto::Origin {
        use proto::origin::Origin;
        proto::Origin {
            origin: Some(match self {
                Self::Any => Origin::Any(proto::Empty {}),
                Self::Exact(origin) => Origin::Exact(origin.clone()),
                Self::Wildcard { scheme, suffix } => {
                    Origin::Wildcard(proto::WildcardOrigin { scheme: scheme.clone(), suffix: suffix.clone() })
                }
            }),
        }
    }

    fn from_wire(it: proto::Origin) -> Result<Self, InvalidField> {
        use proto::origin::Origin;
        Ok(match present(it.origin, "origin")? {
            Origin::Any(_) => Self::Any,
            Origin::Exact(origin) => Self::Exact(origin),
            Origin::Wildcard(it) => Self::Wildcard { scheme: it.scheme, suffix: it.suffix },
        })
    }
}
