//! gRPC-Web, which browsers speak, into gRPC and back.
//!
//! A call is `POST` with `application/grpc-web`, or `application/grpc-web-text` in base64; its messages are framed as gRPC
//! frames them. The answer's trailers, which a browser's code can't see, come as one more frame of the body. Where the
//! backend speaks gRPC the proxy translates, frame by frame: nothing is collected. Elsewhere the call passes as it is.

mod body;
mod frame;
pub mod fuzzing;
#[cfg(test)]
mod tests;
mod text;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, response};
use weft_core::matching::is_grpc;

pub(crate) use body::{WebRequest, WebResponse};
pub(super) use text::TextDecoder;

use super::client::ClientBody;
use super::finish::grpc_status;
use super::upstream::h2_form;
use crate::connect::http_pool::UpstreamBody;

const GRPC: &str = "application/grpc";
const GRPC_WEB: &str = "application/grpc-web";
const TEXT: &str = "-text";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// How the bytes of a body are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Binary,
    /// In base64.
    Text,
}

/// A call of gRPC-Web: what it came in, and what its answer is to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrpcWeb {
    request: Form,
    answer: Form,
    /// The encoding of messages with its sign, `+proto` say, or nothing.
    encoding: Box<str>,
}

impl GrpcWeb {
    /// The call that a request is, if it is one.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if *method != Method::POST {
            return None;
        }
        let (request, encoding) = form(headers.get(header::CONTENT_TYPE)?.to_str().ok()?)?;
        // A client that takes both gets what it sent.
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let accepted = accepted.flat_map(|value| value.split(',')).filter_map(form);
        let mut forms = accepted.map(|(form, _)| form);
        let answer = match forms.next() {
            Some(first) if forms.all(|form| form == first) => first,
            _ => request,
        };
        Some(Self { request, answer, encoding })
    }

    /// Makes a gRPC request of it (gRPC over HTTP/2), in the form of HTTP/2.
    ///
    /// # Errors
    /// Its target can't be written there.
    pub(super) fn translate(&self, parts: &mut Parts, body: ClientBody) -> Result<ClientBody, http::Error> {
        h2_form(parts, None, None)?;
        let kind = HeaderValue::try_from(format!("{GRPC}{}", self.encoding))?;
        parts.headers.insert(header::CONTENT_TYPE, kind);
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // The length is that of the text, and the body is on its way: nobody waits to be told to send it.
        for name in [header::CONTENT_LENGTH, header::ACCEPT, header::EXPECT] {
            parts.headers.remove(name);
        }
        Ok(ClientBody::GrpcWeb(Box::new(WebRequest::new(body, self.request))))
    }

    /// Makes an answer of gRPC-Web of one of gRPC. `None`: the backend answered with something else, which passes as it is.
    pub(super) fn answer(&self, head: &mut response::Parts) -> Option<WebAnswer> {
        if !is_grpc(&head.headers) {
            return None;
        }
        let encoding = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.get(GRPC.len()..));
        let kind = self.content_type(encoding.unwrap_or_default());
        head.headers.insert(header::CONTENT_TYPE, kind);
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::TRAILER);
        Some(WebAnswer { form: self.answer, trailers: take_trailers(&mut head.headers) })
    }

    /// The body of an answer that the proxy gives itself; its head is changed with it.
    pub(super) fn local(&self, headers: &mut HeaderMap) -> Bytes {
        headers.insert(header::CONTENT_TYPE, self.content_type(&self.encoding));
        let trailers = take_trailers(headers).unwrap_or_default();
        self.answer.write(frame::of_trailers(&trailers))
    }

    fn content_type(&self, encoding: &str) -> HeaderValue {
        let text = if self.answer == Form::Text { TEXT } else { "" };
        HeaderValue::try_from(format!("{GRPC_WEB}{text}{encoding}"))
            .unwrap_or(HeaderValue::from_static("application/grpc-web+proto"))
    }
}

/// The head of an answer was translated: how its body is.
pub(super) struct WebAnswer {
    form: Form,
    /// Those of an answer without messages, which gRPC puts in its head.
    trailers: Option<HeaderMap>,
}

impl WebAnswer {
    pub(super) fn body(self, body: UpstreamBody) -> WebResponse {
        WebResponse::new(body, self)
    }

    /// A piece of the body.
    fn piece(&self, data: Bytes) -> Bytes {
        self.form.write(data)
    }

    /// What ends the body, and the gRPC status that it says.
    fn end(&mut self, trailers: Option<HeaderMap>) -> (Bytes, Option<u8>) {
        let trailers = trailers.or_else(|| self.trailers.take()).unwrap_or_else(frame::missing);
        (self.form.write(frame::of_trailers(&trailers)), grpc_status(&trailers))
    }
}

impl Form {
    fn write(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Binary => bytes,
            Self::Text => text::encode(&bytes),
        }
    }
}

/// The form and the encoding that a media type of gRPC-Web names.
fn form(kind: &str) -> Option<(Form, Box<str>)> {
    // Nearly every request that has a media type has another one.
    let begins = kind.trim_start().as_bytes().get(..GRPC_WEB.len())?;
    if !begins.eq_ignore_ascii_case(GRPC_WEB.as_bytes()) {
        return None;
    }
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let rest = essence.strip_prefix(GRPC_WEB)?;
    let (form, encoding) = match rest.strip_prefix(TEXT) {
        Some(encoding) => (Form::Text, encoding),
        None => (Form::Binary, rest),
    };
    (encoding.is_empty() || encoding.starts_with('+')).then(|| (form, encoding.into()))
}

/// What gRPC says at the end of an answer, if the head has it.
fn take_trailers(headers: &mut HeaderMap) -> Option<HeaderMap> {
    let status = headers.remove(STATUS)?;
    let mut trailers = HeaderMap::from_iter([(STATUS, status)]);
    for name in [MESSAGE, DETAILS] {
        if let Some(value) = headers.remove(&name) {
            trailers.insert(name, value);
        }
    }
    Some(trailers)
}
