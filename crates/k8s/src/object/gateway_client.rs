//! Parts of `GatewayParameters` that say who clients are: `spec.clientAddress` and `spec.requestId`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose word is taken for who clients are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClientAddress {
    /// Whether connections begin with a header of the PROXY protocol (version 1 or 2), which has to come before TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<GatewayProxyProtocol>,
    /// The header by which proxies in front tell of clients: XForwardedFor or Forwarded (RFC 7239); XForwardedFor if left
    /// out. The other one is believed of nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<GatewayForwardedHeader>,
    /// How many proxies in front are believed; none if left out, unless trustedCIDRs are given. With those, at most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub trusted_hops: Option<i32>,
    /// Addresses or CIDR ranges of proxies in front that are believed.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub trusted_cidrs: Option<Vec<String>>,
}

/// Who sends headers of the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.mode == 'Disabled' || has(self.trustedCIDRs)", "trustedCIDRs is required with mode Optional or Required: whoever may send such a header says who clients are"))]
pub struct GatewayProxyProtocol {
    /// Disabled, Optional (a header may come from trustedCIDRs) or Required (every connection comes from trustedCIDRs and
    /// begins with one).
    pub mode: GatewayProxyProtocolMode,
    /// Addresses or CIDR ranges of the load balancers.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub trusted_cidrs: Option<Vec<String>>,
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayProxyProtocolMode {
    /// They don't.
    #[default]
    Disabled,
    /// Some do.
    Optional,
    /// All do.
    Required,
}

/// A header by which proxies tell of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// Ids of requests (`X-Request-Id`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRequestId {
    /// Whether answers carry it, too; false if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_responses: Option<bool>,
}

impl GatewayClientAddress {
    /// What holds if `self` is of a Gateway and `class` of its class. What is said of the PROXY protocol goes together.
    #[must_use]
    pub(super) fn over(self, class: Self) -> Self {
        Self {
            proxy_protocol: self.proxy_protocol.or(class.proxy_protocol),
            header: self.header.or(class.header),
            trusted_hops: self.trusted_hops.or(class.trusted_hops),
            trusted_cidrs: self.trusted_cidrs.or(class.trusted_cidrs),
        }
    }
}
