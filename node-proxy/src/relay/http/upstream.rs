//! How a backend is spoken to: the version of HTTP, TLS, what it is told of a client, and the form of a request's head.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Version;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use weft_core::filter::ForwardPlan;
use weft_core::ids::ServicePortKey;
use weft_core::matching::is_grpc;
use weft_core::service::AppProtocol;
use weft_core::snapshot::{Frontend, Snapshot};
use weft_tls::BackendClient;

use super::downstream::{Caller, Downstream, Front};
use super::gateway;
use crate::connect::http_pool::{OwnPool, Pool, Protocol};
use crate::connect::{BackendClients, ProxyHeader, Target};

/// What endpoints are told of a client before everything else on a connection, and the connections for it.
#[derive(Clone)]
pub(super) struct Told {
    header: ProxyHeader,
    own: Rc<OwnPool>,
}

impl Told {
    /// An endpoint that is told.
    pub(super) fn target(&self, endpoint: &Rc<Target>) -> Rc<Target> {
        self.own.target(endpoint, self.header)
    }

    /// Where connections to it are kept.
    pub(super) fn pool(&self) -> &Rc<Pool> {
        self.own.pool()
    }
}

impl Downstream {
    /// What endpoints of a backend are told of a client from outside, if they want to be. A pod's own address is what its
    /// endpoints see anyway.
    pub(super) fn tells(&self, caller: &Caller, client: SocketAddr, backend: &Frontend) -> Option<Told> {
        let version = backend.service.proxy_protocol.filter(|_| matches!(caller.front, Front::Gateway { .. }))?;
        let own = self.own.get_or_init(|| Rc::new(OwnPool::new(&self.engine.pool)));
        Some(Told { header: ProxyHeader::new(version, client, caller.dialled), own: Rc::clone(own) })
    }
}

impl Front {
    /// A pod's version is kept, because without a mesh it would reach its endpoint as well, unless the backend speaks only
    /// HTTP/2. A client from outside knows nothing of the backend, which says by itself what it speaks; gRPC is HTTP/2
    /// always.
    pub(super) fn upstream_protocol(&self, declared: AppProtocol, parts: &Parts) -> Protocol {
        let is_h2 = parts.version == Version::HTTP_2;
        match (declared, self) {
            (AppProtocol::H2c | AppProtocol::Grpc, _) => Protocol::H2,
            (_, Self::Service(_)) if is_h2 => Protocol::H2,
            (_, Self::Gateway { .. }) if is_h2 && is_grpc(&parts.headers) => Protocol::H2,
            _ => Protocol::H1,
        }
    }

    /// TLS that a backend speaks itself: a Gateway follows its policy. What pods send is the application's own business.
    pub(super) fn upstream_tls(
        &self,
        clients: &BackendClients,
        snapshot: &Snapshot,
        backend: &ServicePortKey,
        protocol: Protocol,
    ) -> Result<Option<BackendClient>, String> {
        match self {
            Self::Service(_) => Ok(None),
            Self::Gateway { bind, .. } => clients.of(snapshot, bind, backend, Some(protocol)),
        }
    }
}

/// The target of the request cannot be written in the form of the upstream protocol.
pub(super) struct Unwritable;

/// Applies the filters and brings the head into the form of the upstream protocol.
pub(super) fn prepare(
    parts: &mut Parts,
    plan: Option<&ForwardPlan<'_>>,
    protocol: Protocol,
    upgrade: Option<&HeaderValue>,
) -> Result<(), Unwritable> {
    if let Some(plan) = plan {
        plan.apply_request(&mut parts.headers);
    }
    let authority = plan.and_then(|plan| plan.authority);
    let path = plan.and_then(|plan| plan.path_and_query.clone());
    let form = match protocol {
        Protocol::H1 => h1_form(parts, authority, path),
        Protocol::H2 => h2_form(parts, authority, path),
    };
    form.map_err(|_| Unwritable)?;
    match (protocol, upgrade) {
        (_, None) => Ok(()),
        (Protocol::H1, Some(upgrade)) => {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, upgrade.clone());
            Ok(())
        }
        // An HTTP/2 endpoint has no such switch: the request goes on without it, as RFC 9110, section 7.8, allows.
        (Protocol::H2, Some(_)) => Ok(()),
    }
}

pub(super) fn h1_form(
    parts: &mut Parts,
    authority: Option<&HeaderValue>,
    path: Option<PathAndQuery>,
) -> Result<(), http::Error> {
    gateway::downgrade(parts)?;
    if let Some(authority) = authority {
        parts.headers.insert(header::HOST, authority.clone());
    } else if parts.version == Version::HTTP_10 && !parts.headers.contains_key(header::HOST) {
        parts.headers.insert(header::HOST, HeaderValue::from_static(""));
    }
    if let Some(path) = path {
        parts.uri = Uri::from(path);
    }
    parts.version = Version::HTTP_11;
    Ok(())
}

pub(super) fn h2_form(
    parts: &mut Parts,
    authority: Option<&HeaderValue>,
    path: Option<PathAndQuery>,
) -> Result<(), http::Error> {
    let host = parts.headers.remove(header::HOST);
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(authority) = authority.or(host.as_ref().filter(|_| uri.authority.is_none())) {
        uri.authority = Some(Authority::try_from(authority.as_bytes())?);
    }
    uri.scheme = uri.scheme.or(Some(Scheme::HTTP));
    uri.path_and_query = path.or(uri.path_and_query).or(Some(PathAndQuery::from_static("/")));
    parts.uri = Uri::from_parts(uri)?;
    parts.version = Version::HTTP_2;
    Ok(())
}
