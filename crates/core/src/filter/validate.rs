//! What a rule may not say, although its types could: asked by the controller for the status and by the decoder.

use http::{HeaderName, header};

use crate::filter::headers::is_protected;
use crate::route::{
    AuthProtocol, ExternalAuth, HeaderModifier, HttpAction, HttpFilter, HttpRule, MAX_SHOWN_BODY, PathMatch,
    PathModifier,
};

/// Which field of a rule is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidRule {
    field: String,
    problem: &'static str,
}

impl InvalidRule {
    fn new(field: impl Into<String>, problem: &'static str) -> Self {
        Self { field: field.into(), problem }
    }

    /// The field, as the Gateway API names it, from the rule on: `filters[1].urlRewrite.path`.
    pub fn field(&self) -> &str {
        &self.field
    }

    fn within(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), ..self }
    }
}

/// Checks a rule.
///
/// # Errors
/// The first field that is wrong.
pub fn validate_rule(rule: &HttpRule) -> Result<(), InvalidRule> {
    if rule.matches.is_empty() {
        return Err(InvalidRule::new("matches", "a rule needs a match"));
    }
    validate_filters(rule, &rule.filters)?;
    match &rule.action {
        HttpAction::Forward(backends) => {
            for (index, backend) in backends.iter().enumerate() {
                validate_filters(rule, &backend.filters).map_err(|it| it.within(&format!("backendRefs[{index}]")))?;
            }
        }
        HttpAction::Redirect(redirect) => {
            validate_path(rule, redirect.path.as_ref(), "filters.requestRedirect.path")?;
            if !matches!(redirect.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(InvalidRule::new("filters.requestRedirect.statusCode", "not the status of a redirect"));
            }
            if rule.filters.iter().any(|filter| matches!(filter, HttpFilter::ExternalAuth(_))) {
                return Err(InvalidRule::new("filters", "nobody is asked about a redirect"));
            }
            if rule.filters.iter().any(|filter| matches!(filter, HttpFilter::Rewrite(_))) {
                return Err(InvalidRule::new("filters", "a redirect and a rewrite exclude each other"));
            }
        }
        HttpAction::Invalid(_) => {}
    }
    Ok(())
}

fn validate_filters(rule: &HttpRule, filters: &[HttpFilter]) -> Result<(), InvalidRule> {
    let mut host_is_set = false;
    let mut host_is_rewritten = false;
    let mut asks = false;
    for (index, filter) in filters.iter().enumerate() {
        let at = |kind: &str| format!("filters[{index}].{kind}");
        match filter {
            HttpFilter::RequestHeaders(modifier) => {
                validate_modifier(modifier, true).map_err(|it| it.within(&at("requestHeaderModifier")))?;
                host_is_set |= modifier.host().is_some();
            }
            HttpFilter::ResponseHeaders(modifier) => {
                validate_modifier(modifier, false).map_err(|it| it.within(&at("responseHeaderModifier")))?;
            }
            HttpFilter::Rewrite(rewrite) => {
                validate_path(rule, rewrite.path.as_ref(), &at("urlRewrite.path"))?;
                host_is_rewritten |= rewrite.hostname.is_some();
            }
            HttpFilter::Mirror(mirror) => {
                if mirror.fraction.numerator > mirror.fraction.denominator.get() {
                    return Err(InvalidRule::new(at("requestMirror.fraction"), "more than all requests"));
                }
            }
            HttpFilter::Cors(_) => {}
            HttpFilter::ExternalAuth(auth) => {
                validate_auth(auth).map_err(|it| it.within(&at("externalAuth")))?;
                if std::mem::replace(&mut asks, true) {
                    return Err(InvalidRule::new(at("externalAuth"), "another authorizer is asked already"));
                }
            }
        }
    }
    if host_is_set && host_is_rewritten {
        return Err(InvalidRule::new("filters", "the host is set by a header modifier and by a rewrite"));
    }
    Ok(())
}

fn validate_auth(auth: &ExternalAuth) -> Result<(), InvalidRule> {
    if auth.max_body.is_some_and(|max| max.get() > MAX_SHOWN_BODY) {
        return Err(InvalidRule::new("forwardBody.maxSize", "more than a proxy holds"));
    }
    let AuthProtocol::Http { path, response_headers, .. } = &auth.protocol else { return Ok(()) };
    let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !path.is_empty() && (!path.starts_with('/') || path.ends_with('/') || !path.bytes().all(legal)) {
        return Err(InvalidRule::new("http.path", "not an absolute path without a slash at its end"));
    }
    if response_headers.iter().any(|name| is_protected(name) || *name == header::HOST) {
        return Err(InvalidRule::new("http.allowedResponseHeaders", "a header that no authorizer may set"));
    }
    Ok(())
}

fn validate_modifier(modifier: &HeaderModifier, request: bool) -> Result<(), InvalidRule> {
    let set = modifier.set.iter().map(|(name, _)| ("set", name));
    let add = modifier.add.iter().map(|(name, _)| ("add", name));
    let remove = modifier.remove.iter().map(|name| ("remove", name));
    let mut seen: Vec<&HeaderName> = Vec::new();
    for (list, name) in set.chain(add).chain(remove) {
        let at = || format!("{list}[{name}]");
        if is_protected(name) {
            return Err(InvalidRule::new(at(), "belongs to the connection or frames the message"));
        }
        if *name == header::HOST && !(request && list == "set") {
            return Err(InvalidRule::new(at(), "the host can only be set, and only of a request"));
        }
        if seen.contains(&name) {
            return Err(InvalidRule::new(at(), "only one action for a header is permitted"));
        }
        seen.push(name);
    }
    Ok(())
}

fn validate_path(rule: &HttpRule, modifier: Option<&PathModifier>, field: &str) -> Result<(), InvalidRule> {
    let Some(PathModifier::Full(text) | PathModifier::Prefix(text)) = modifier else { return Ok(()) };
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
        return Err(InvalidRule::new(field, "has a character that no path has"));
    }
    let prefixes_only = rule.matches.iter().all(|it| matches!(it.path, PathMatch::Prefix(_)));
    if matches!(modifier, Some(PathModifier::Prefix(_))) && !prefixes_only {
        return Err(InvalidRule::new(field, "replaces a prefix, but not all matches are of a prefix"));
    }
    Ok(())
}
