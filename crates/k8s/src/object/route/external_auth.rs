//! `externalAuth` (GEP-1494).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackendReference;

/// `externalAuth`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalAuthFilter {
    /// `GRPC` or `HTTP`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendReference>,
    /// For `GRPC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcAuth>,
    /// For `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuth>,
    /// Whether the body is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBody>,
}

/// `grpc`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAuth {
    /// Headers that are sent; all, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_headers: Option<Vec<String>>,
}

/// `http`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuth {
    /// Put before the request's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Headers that are sent beside those that always are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_headers: Option<Vec<String>>,
    /// Headers of the answer that the backend gets; all, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_response_headers: Option<Vec<String>>,
}

/// `forwardBody`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardBody {
    /// Bytes; 0 shows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<i64>,
}
