//! The conversion of one type, and those of the small types that the others are made of.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use weft_api::weft::config::v1 as proto;

use super::common::common;
use crate::ids::{
    GatewayKey, ListenerSetKey, Name, Namespace, NodeName, PolicyKey, Port, SecretKey, SectionName, ServiceKey,
    ServicePortKey, WorkloadUid, Zone,
};
use crate::service::SliceKey;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is not there.
    Missing,
    /// An enum value that this version does not know.
    UnknownValue(i32),
    /// Not a port, an address, a status...; what it should be.
    Expected(&'static str),
    /// What the reader of the value said.
    Invalid(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::UnknownValue(value) => write!(f, "unknown value {value}"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

/// Which field is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct InvalidField {
    path: String,
    problem: Problem,
}

impl InvalidField {
    /// A problem of the value itself; whoever holds the value adds where it stands.
    pub(super) fn new(problem: Problem) -> Self {
        Self { path: String::new(), problem }
    }

    /// Of a value that should be something.
    pub(super) fn expected(what: &'static str) -> Self {
        Self::new(Problem::Expected(what))
    }

    /// Of a value that its reader refused.
    pub(super) fn invalid(why: impl fmt::Display) -> Self {
        Self::new(Problem::Invalid(why.to_string()))
    }

    /// The same, one level further out.
    pub(super) fn within(self, parent: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{parent}{dot}{}", self.path), ..self }
    }

    /// The field, from the resource down: `ports[2].port`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// A type with a form on the wire.
pub(super) trait Wire: Sized {
    /// That form.
    type Message;

    /// Encodes.
    fn to_wire(&self) -> Self::Message;

    /// Decodes.
    fn from_wire(message: Self::Message) -> Result<Self, InvalidField>;
}

/// Decodes a field.
pub(super) fn field<T: Wire>(value: T::Message, name: &str) -> Result<T, InvalidField> {
    T::from_wire(value).map_err(|it| it.within(name))
}

/// Decodes a field that must be there.
pub(super) fn required<T: Wire>(value: Option<T::Message>, name: &str) -> Result<T, InvalidField> {
    field(present(value, name)?, name)
}

/// The field, which must be there.
pub(super) fn present<M>(value: Option<M>, name: &str) -> Result<M, InvalidField> {
    value.ok_or_else(|| InvalidField::new(Problem::Missing).within(name))
}

/// Decodes a field that may be absent.
pub(super) fn optional<T: Wire>(value: Option<T::Message>, name: &str) -> Result<Option<T>, InvalidField> {
    value.map(|value| field(value, name)).transpose()
}

/// Decodes a list.
pub(super) fn list<T: Wire>(values: Vec<T::Message>, name: &str) -> Result<Vec<T>, InvalidField> {
    let numbered = values.into_iter().enumerate();
    let read = numbered.map(|(index, value)| T::from_wire(value).map_err(|it| it.within(&format!("{name}[{index}]"))));
    let mut list: Vec<T> = read.collect::<Result<_, _>>()?;
    // What is read here is kept for long, and takes the room of the messages until then: those are larger, and have room for
    // more.
    list.shrink_to_fit();
    Ok(list)
}

/// Encodes a list.
pub(super) fn wire_list<T: Wire>(values: &[T]) -> Vec<T::Message> {
    values.iter().map(T::to_wire).collect()
}

/// Encodes a field that may be absent.
pub(super) fn wire_optional<T: Wire>(value: Option<&T>) -> Option<T::Message> {
    value.map(T::to_wire)
}

/// The conversion of an enum without data; the wire's zero is no value.
macro_rules! wire_enum {
    ($domain:ty, $wire:ty: $($name:ident = $wire_name:ident),+ $(,)?) => {
        impl $crate::wire::convert::Wire for $domain {
            type Message = i32;

            fn to_wire(&self) -> i32 {
                match self {
                    $(Self::$name => <$wire>::$wire_name.into(),)+
                }
            }

            fn from_wire(value: i32) -> Result<Self, $crate::wire::convert::InvalidField> {
                match <$wire>::try_from(value) {
                    $(Ok(<$wire>::$wire_name) => Ok(Self::$name),)+
                    _ => Err($crate::wire::convert::InvalidField::new(
                        $crate::wire::convert::Problem::UnknownValue(value),
                    )),
                }
            }
        }
    };
}
pub(super) use wire_enum;

impl Wire for String {
    type Message = Self;

    fn to_wire(&self) -> Self {
        self.clone()
    }

    fn from_wire(text: Self) -> Result<Self, InvalidField> {
        Ok(text)
    }
}

/// Names of objects: never empty and without a slash, so that keys can be written as one text.
macro_rules! wire_names {
    ($($name:ty),+) => {$(
        impl Wire for $name {
            type Message = String;

            fn to_wire(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_wire(text: String) -> Result<Self, InvalidField> {
                if text.is_empty() || text.contains('/') {
                    return Err(InvalidField::expected("a name"));
                }
                Ok(text.into())
            }
        }
    )+};
}
wire_names!(Name);

/// The same of names that thousands of resources have in common.
macro_rules! wire_common_names {
    ($($name:ty),+) => {$(
        impl Wire for $name {
            type Message = String;

            fn to_wire(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_wire(text: String) -> Result<Self, InvalidField> {
                if text.is_empty() || text.contains('/') {
                    return Err(InvalidField::expected("a name"));
                }
                Ok(common(&text).into())
            }
        }
    )+};
}
wire_common_names!(Namespace, NodeName, Zone);

impl Wire for SectionName {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        Ok(common(&text).into())
    }
}

impl Wire for WorkloadUid {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        if text.is_empty() { Err(InvalidField::expected("a workload's id")) } else { Ok(text.into()) }
    }
}

macro_rules! wire_object_keys {
    ($($key:ty),+) => {$(
        impl Wire for $key {
            type Message = proto::ObjectKey;

            fn to_wire(&self) -> proto::ObjectKey {
                proto::ObjectKey { namespace: self.namespace.to_wire(), name: self.name.to_wire() }
            }

            fn from_wire(key: proto::ObjectKey) -> Result<Self, InvalidField> {
                Ok(Self { namespace: field(key.namespace, "namespace")?, name: field(key.name, "name")? })
            }
        }
    )+};
}
wire_object_keys!(ServiceKey, ListenerSetKey, PolicyKey, SecretKey, SliceKey);

/// In the key of every rule and listener that it has.
impl Wire for GatewayKey {
    type Message = proto::ObjectKey;

    fn to_wire(&self) -> proto::ObjectKey {
        proto::ObjectKey { namespace: self.namespace.to_wire(), name: self.name.to_wire() }
    }

    fn from_wire(key: proto::ObjectKey) -> Result<Self, InvalidField> {
        let name: Name = field(key.name, "name")?;
        Ok(Self { namespace: field(key.namespace, "namespace")?, name: common(name.as_str()).into() })
    }
}

impl Wire for ServicePortKey {
    type Message = proto::ServicePortKey;

    fn to_wire(&self) -> proto::ServicePortKey {
        proto::ServicePortKey { service: Some(self.service.to_wire()), port: self.port.to_wire() }
    }

    fn from_wire(key: proto::ServicePortKey) -> Result<Self, InvalidField> {
        Ok(Self { service: required(key.service, "service")?, port: field(key.port, "port")? })
    }
}

impl Wire for Port {
    type Message = u32;

    fn to_wire(&self) -> u32 {
        self.get().into()
    }

    fn from_wire(port: u32) -> Result<Self, InvalidField> {
        let port = u16::try_from(port).ok().and_then(Self::new);
        port.ok_or_else(|| InvalidField::expected("a port from 1 to 65535"))
    }
}

impl Wire for IpAddr {
    type Message = Vec<u8>;

    fn to_wire(&self) -> Vec<u8> {
        match self {
            Self::V4(address) => address.octets().to_vec(),
            Self::V6(address) => address.octets().to_vec(),
        }
    }

    fn from_wire(bytes: Vec<u8>) -> Result<Self, InvalidField> {
        let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(Self::from);
        let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(Self::from);
        v4.or_else(|_| v6()).map_err(|_| InvalidField::expected("an address of 4 or 16 bytes"))
    }
}

impl Wire for IpNet {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        text.parse().map_err(|_| InvalidField::expected("an address prefix"))
    }
}

impl Wire for Duration {
    type Message = proto::Duration;

    fn to_wire(&self) -> proto::Duration {
        proto::Duration { seconds: self.as_secs(), nanos: self.subsec_nanos() }
    }

    fn from_wire(it: proto::Duration) -> Result<Self, InvalidField> {
        if it.nanos >= 1_000_000_000 {
            return Err(InvalidField::expected("less than a second of nanoseconds").within("nanos"));
        }
        Ok(Self::new(it.seconds, it.nanos))
    }
}
