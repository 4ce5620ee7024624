//! Names and keys, one type for each role, so that the compiler refuses to swap them.
//!
//! All are cheap to clone (`Arc<str>` inside) and compare as text.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_newtype {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the text as it is; validation belongs to the edge that read it.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )+};
}

text_newtype! {
    /// A Kubernetes namespace.
    Namespace;
    /// The name of an object inside its namespace.
    Name;
    /// The name of a node.
    NodeName;
    /// The name of a ServiceAccount.
    ServiceAccount;
    /// The name of a port, listener or route rule (Gateway API `SectionName`).
    SectionName;
    /// A topology zone (`topology.kubernetes.io/zone`).
    Zone;
    /// The unique id of a workload: `<cluster>/<group>/<kind>/<namespace>/<name>`; for a pod
    /// `Kubernetes//Pod/shop/cart-1`.
    WorkloadUid;
    /// The uid the API server (or the runtime) gave to one incarnation of a pod.
    PodUid;
    /// The runtime's id of a pod's sandbox (`CNI_CONTAINERID`): one for each network namespace that a pod ever had.
    SandboxId;
}

impl WorkloadUid {
    /// The id of a pod's workload.
    pub fn of_pod(namespace: &Namespace, name: &Name) -> Self {
        Self::new(format!("Kubernetes//Pod/{namespace}/{name}"))
    }
}

/// A TCP or UDP port, never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port, or `None` for 0.
    pub const fn new(port: u16) -> Option<Self> {
        match NonZeroU16::new(port) {
            Some(p) => Some(Self(p)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

macro_rules! object_key {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name {
            /// The namespace of the object.
            pub namespace: Namespace,
            /// The name of the object.
            pub name: Name,
        }

        impl $name {
            /// The key of `namespace/name`.
            pub fn new(namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
                Self { namespace: namespace.into(), name: name.into() }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }
    )+};
}

object_key! {
    /// A Service.
    ServiceKey;
    /// A Gateway.
    GatewayKey;
    /// An `AuthorizationPolicy`.
    PolicyKey;
    /// A ListenerSet.
    ListenerSetKey;
    /// A Secret.
    SecretKey;
}

/// A Secret of type `kubernetes.io/tls` as one Gateway presents it: who may have its private key follows from this key alone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CertificateKey {
    /// The Gateway.
    pub gateway: GatewayKey,
    /// The Secret.
    pub secret: SecretKey,
}

impl CertificateKey {
    /// The key of a Secret at a Gateway.
    pub fn new(gateway: GatewayKey, secret: SecretKey) -> Self {
        Self { gateway, secret }
    }
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.secret)
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One listener of a Gateway, or of a ListenerSet that adds to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerKey {
    /// The Gateway that it belongs to.
    pub gateway: GatewayKey,
    /// The ListenerSet that holds it; `None`: the Gateway itself does.
    pub set: Option<ListenerSetKey>,
    /// `spec.listeners[].name`
    pub name: SectionName,
}

impl ListenerKey {
    /// The key of a listener that the Gateway itself holds.
    pub fn new(gateway: GatewayKey, name: impl Into<SectionName>) -> Self {
        Self { gateway, set: None, name: name.into() }
    }

    /// The key of a listener that a ListenerSet holds.
    pub fn of_set(gateway: GatewayKey, set: ListenerSetKey, name: impl Into<SectionName>) -> Self {
        Self { gateway, set: Some(set), name: name.into() }
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            None => write!(f, "{}/{}", self.gateway, self.name),
            Some(set) => write!(f, "{}/{set}/{}", self.gateway, self.name),
        }
    }
}

impl fmt::Debug for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of a route object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteKind {
    /// `GRPCRoute`; first, because it wins a Service port over the others (GEP-1426).
    Grpc,
    /// `HTTPRoute`
    Http,
    /// `TLSRoute`
    Tls,
    /// `TCPRoute`
    Tcp,
    /// `UDPRoute`
    Udp,
}

impl RouteKind {
    /// The Kubernetes kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }
}

/// A route object of any kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteKey {
    /// The kind of the object.
    pub kind: RouteKind,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One rule of a route: the unit that travels and is edited.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleKey {
    /// The route that holds the rule.
    pub route: RouteKey,
    /// Its place in `spec.rules`, from 0.
    pub index: u16,
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.route, self.index)
    }
}

impl fmt::Debug for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One rule of a route as one Gateway has it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GatewayRuleKey {
    /// The Gateway.
    pub gateway: GatewayKey,
    /// The rule.
    pub rule: RuleKey,
}

impl fmt::Display for GatewayRuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.rule, self.gateway)
    }
}

impl fmt::Debug for GatewayRuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One port of a Service, the frontend that routes attach to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePortKey {
    /// The Service.
    pub service: ServiceKey,
    /// The port in `spec.ports[].port`.
    pub port: Port,
}

impl fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl fmt::Debug for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
