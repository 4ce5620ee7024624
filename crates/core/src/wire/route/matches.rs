//! `matches[]`.

use http::{HeaderName, Method};
use weft_api::weft::config::v1 as proto;

use crate::route::{HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, TextMatch};
use crate::wire::convert::{InvalidField, Wire, field, list, optional, present, required, wire_list, wire_optional};

impl Wire for HttpMatch {
    type Message = proto::HttpMatch;

    fn to_wire(&self) -> proto::HttpMatch {
        proto::HttpMatch {
            path: Some(self.path.to_wire()),
            method: wire_optional(self.method.as_ref()),
            headers: wire_list(&self.headers),
            query: wire_list(&self.query),
        }
    }

    fn from_wire(it: proto::HttpMatch) -> Result<Self, InvalidField> {
        Ok(Self {
            path: required(it.path, "path")?,
            method: optional(it.method, "method")?,
            headers: list(it.headers, "headers")?,
            query: list(it.query, "query")?,
        })
    }
}

impl Wire for PathMatch {
    type Message = proto::http_match::Path;

    fn to_wire(&self) -> proto::http_match::Path {
        use proto::http_match::Path;
        match self {
            Self::Exact(path) => Path::Exact(path.clone()),
            Self::Prefix(prefix) => Path::Prefix(prefix.clone()),
            Self::Regex(pattern) => Path::Regex(pattern.to_wire()),
            Self::Grpc { service, method } => Path::Grpc(proto::GrpcMethod {
                service: wire_optional(service.as_ref()),
                method: wire_optional(method.as_ref()),
            }),
        }
    }

    fn from_wire(it: proto::http_match::Path) -> Result<Self, InvalidField> {
        use proto::http_match::Path;
        match it {
            Path::Exact(path) if path.starts_with('/') => Ok(Self::Exact(path)),
            Path::Exact(_) => Err(InvalidField::expected("a path that starts with '/'")),
            Path::Prefix(prefix) if prefix.is_empty() => Ok(Self::Prefix(prefix)),
            Path::Prefix(prefix) if prefix.starts_with('/') && !prefix.ends_with('/') => Ok(Self::Prefix(prefix)),
            Path::Prefix(_) => Err(InvalidField::expected("a prefix that starts with '/' and does not end with it")),
            Path::Regex(source) => field(source, "regex").map(Self::Regex),
            Path::Grpc(it) => {
                Ok(Self::Grpc { service: optional(it.service, "service")?, method: optional(it.method, "method")? })
            }
        }
    }
}

impl Wire for Pattern {
    type Message = String;

    fn to_wire(&self) -> String {
        self.source().to_owned()
    }

    fn from_wire(source: String) -> Result<Self, InvalidField> {
        Self::new(&source).map_err(InvalidField::invalid)
    }
}

impl Wire for Method {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        Self::from_bytes(text.as_bytes()).map_err(|_| InvalidField::expected("an HTTP method"))
    }
}

impl Wire for TextMatch {
    type Message = proto::TextMatch;

    fn to_wire(&self) -> proto::TextMatch {
        use proto::text_match::Text;
        proto::TextMatch {
            text: Some(match self {
                Self::Exact(text) => Text::Exact(text.clone()),
                Self::Regex(pattern) => Text::Regex(pattern.to_wire()),
            }),
        }
    }

    fn from_wire(it: proto::TextMatch) -> Result<Self, InvalidField> {
        use proto::text_match::Text;
        match present(it.text, "text")? {
            Text::Exact(text) => Ok(Self::Exact(text)),
            Text::Regex(source) => field(source, "regex").map(Self::Regex),
        }
    }
}

impl Wire for HeaderName {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        Self::from_lowercase(text.as_bytes()).map_err(|_| InvalidField::expected("a header name in lower case"))
    }
}

impl Wire for HeaderMatch {
    type Message = proto::NamedMatch;

    fn to_wire(&self) -> proto::NamedMatch {
        proto::NamedMatch { name: self.name.to_wire(), value: Some(self.value.to_wire()) }
    }

    fn from_wire(it: proto::NamedMatch) -> Result<Self, InvalidField> {
        Ok(Self { name: field(it.name, "name")?, value: required(it.value, "value")? })
    }
}

impl Wire for QueryMatch {
    type Message = proto::NamedMatch;

    fn to_wire(&self) -> proto::NamedMatch {
        proto::NamedMatch { name: self.name.clone(), value: Some(self.value.to_wire()) }
    }

    fn from_wire(it: proto::NamedMatch) -> Result<Self, InvalidField> {
        Ok(Self { name: it.name, value: required(it.value, "value")? })
    }
}
