//! `ExternalAuth`.

use std::num::NonZeroU32;

use http::{HeaderName, header};
use weft_core::route::{AuthProtocol, ExternalAuth, MAX_SHOWN_BODY};

use super::text::{header_name, mutable_header};
use super::{RuleContext, backend, matches};
use crate::object::route::{ExternalAuthFilter, HttpAuth};
use crate::translate::{Problem, suggestion};

const PROTOCOLS: [&str; 2] = ["GRPC", "HTTP"];

/// Translates the filter. A reference that leads nowhere is a problem but keeps the filter, which then refuses everything.
pub(super) fn external_auth(
    ctx: &RuleContext<'_>,
    field: &str,
    spec: &ExternalAuthFilter,
    problems: &mut Vec<Problem>,
) -> Result<ExternalAuth, Problem> {
    let missing = |name: &str| Problem::value(format!("{field}.{name}"), "is missing", "add it");
    let protocol = protocol(field, spec)?;
    let max_body = max_body(field, spec)?;
    let reference = spec.backend_ref.as_ref().ok_or_else(|| missing("backendRef"))?;
    let authorizer = backend::target(ctx, &format!("{field}.backendRef"), reference, problems);
    Ok(ExternalAuth { authorizer, protocol, max_body })
}

fn protocol(field: &str, spec: &ExternalAuthFilter) -> Result<AuthProtocol, Problem> {
    let alone = |name: &str, is_set: bool, of: &str| match is_set {
        false => Ok(()),
        true => {
            let message = format!("is set for protocol {}", spec.protocol.as_deref().unwrap_or_default());
            Err(Problem::value(format!("{field}.{name}"), message, format!("remove it, or set protocol to {of}")))
        }
    };
    match spec.protocol.as_deref() {
        Some("GRPC") => {
            alone("http", spec.http.is_some(), "HTTP")?;
            let listed = spec.grpc.as_ref().and_then(|grpc| grpc.allowed_headers.as_ref());
            Ok(AuthProtocol::Grpc { headers: names(&format!("{field}.grpc.allowedHeaders"), listed, header_name)? })
        }
        Some("HTTP") => {
            alone("grpc", spec.grpc.is_some(), "GRPC")?;
            http(&format!("{field}.http"), spec.http.as_ref().unwrap_or(&HttpAuth::default()))
        }
        None => Err(Problem::value(format!("{field}.protocol"), "is missing", "set it to GRPC or HTTP")),
        Some(other) => {
            let message = format!("{other:?} is not a protocol of an authorizer");
            Err(Problem::value(format!("{field}.protocol"), message, suggestion(other, &PROTOCOLS)))
        }
    }
}

fn http(field: &str, spec: &HttpAuth) -> Result<AuthProtocol, Problem> {
    let path = spec.path.as_deref().unwrap_or_default();
    if !path.is_empty() {
        matches::check_path(path, &format!("{field}.path"))?;
    }
    let settable = |field: &str, text: &str| {
        let name = mutable_header(field, text)?;
        if name == header::HOST {
            return Err(Problem::value(field, "no authorizer may set the host", "remove it from the list"));
        }
        Ok(name)
    };
    let listed = (spec.allowed_headers.as_ref(), spec.allowed_response_headers.as_ref());
    Ok(AuthProtocol::Http {
        // What is put behind it has a slash at its start.
        path: path.trim_end_matches('/').to_owned(),
        request_headers: names(&format!("{field}.allowedHeaders"), listed.0, header_name)?,
        response_headers: names(&format!("{field}.allowedResponseHeaders"), listed.1, settable)?,
    })
}

fn names(
    field: &str,
    listed: Option<&Vec<String>>,
    read: impl Fn(&str, &str) -> Result<HeaderName, Problem>,
) -> Result<Vec<HeaderName>, Problem> {
    let each = listed.into_iter().flatten().enumerate();
    each.map(|(i, text)| read(&format!("{field}[{i}]"), text)).collect()
}

fn max_body(field: &str, spec: &ExternalAuthFilter) -> Result<Option<NonZeroU32>, Problem> {
    let bytes = spec.forward_body.as_ref().and_then(|body| body.max_size).unwrap_or_default();
    let bounded = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_SHOWN_BODY);
    bounded.map(NonZeroU32::new).ok_or_else(|| {
        let message = format!("{bytes} bytes are more than a proxy holds of a request, or less than none");
        let remedy = format!("use 0, which shows nothing, to {MAX_SHOWN_BODY}");
        Problem::value(format!("{field}.forwardBody.maxSize"), message, remedy)
    })
}
