//! What a client hears whose request doesn't pass.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use weft_core::filter::{CorsResponse, LocalReply, describes_message};
use weft_core::reason::Reason;

use super::{Denial, Refusal};
use crate::relay::http::body::ResponseBody;
use crate::relay::http::downstream::Labelled;
use crate::relay::http::finish::{Answered, Asked, Finish};
use crate::relay::http::forward::Answer;
use crate::relay::http::outbound::close;
use crate::relay::http::{hop, mark, reply};

impl Refusal {
    /// The answer, with what CORS adds, so that a page can read it.
    pub(in crate::relay::http) fn respond(
        self,
        asked: Box<Asked>,
        labelled: std::rc::Rc<Labelled>,
        cors: &CorsResponse<'_>,
    ) -> Response<ResponseBody> {
        let mut response = match self {
            Self::Failed(reason, detail) => {
                let response = reply::respond(reply::failure(reason, detail), asked, labelled, 0);
                // The rest of a body that nobody reads must not be taken for the next request.
                let unread = matches!(reason, Reason::BodyTimeout | Reason::BodyTooLarge);
                if unread { close(response) } else { response }
            }
            Self::Denied(who, denial) => denial.respond(asked, labelled, format!("authorizer {who}")),
        };
        cors.apply(response.headers_mut());
        response
    }
}

impl Denial {
    fn respond(self, mut asked: Box<Asked>, labelled: std::rc::Rc<Labelled>, detail: String) -> Response<ResponseBody> {
        if asked.grpc {
            return self.respond_grpc(asked, labelled, detail);
        }
        asked.conn.last.set(Reason::AuthDenied);
        let answered = |status: StatusCode| Answered {
            labelled,
            status: status.as_u16(),
            reason: Reason::AuthDenied,
            detail,
            grpc_status: None,
            tries: 0,
            upstream: asked.started.elapsed(),
            trail: None,
        };
        match self {
            Self::Http(answer) => {
                let Answer { response, lease, flight, limit, .. } = *answer;
                let (mut head, body) = response.into_parts();
                hop::strip(&mut head.headers);
                let answered = answered(head.status);
                mark::own(&mut head.headers, &mut asked, Reason::AuthDenied);
                let finish = Finish::new(asked, answered).holding(flight, Some(lease), limit);
                Response::from_parts(head, ResponseBody::upstream(body, finish))
            }
            Self::Told { status, mut headers, body } => {
                let answered = answered(status);
                mark::own(&mut headers, &mut asked, Reason::AuthDenied);
                let bodyless = asked.method == Method::HEAD || status == StatusCode::NO_CONTENT;
                let body = if bodyless || status == StatusCode::NOT_MODIFIED { Bytes::new() } else { body };
                let mut finish = Finish::new(asked, answered);
                finish.add_sent(body.len() as u64);
                let finish = if body.is_empty() {
                    finish.complete(true);
                    None
                } else {
                    Some(finish)
                };
                let mut response = Response::new(ResponseBody::local(body, finish));
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                response
            }
        }
    }

    /// A gRPC client gets the gRPC status that stands for the answer's, and the authorizer's headers, but not its page.
    fn respond_grpc(
        self,
        asked: Box<Asked>,
        labelled: std::rc::Rc<Labelled>,
        detail: String,
    ) -> Response<ResponseBody> {
        let (status, theirs) = match self {
            Self::Http(answer) => {
                let (head, _) = answer.response.into_parts();
                (head.status, head.headers)
            }
            Self::Told { status, headers, .. } => (status, headers),
        };
        let local = LocalReply::new(status, Reason::AuthDenied).with_detail(detail);
        let mut response = reply::respond(local, asked, labelled, 0);
        add(response.headers_mut(), theirs);
        response
    }
}

/// Adds an authorizer's headers to an answer of ours. What it came to and whose it is only we say, also where that isn't among
/// our headers: in gRPC-Web the status is in the body, and a browser would believe one in the head first.
pub(super) fn add(ours: &mut HeaderMap, mut theirs: HeaderMap) {
    const OURS: [HeaderName; 4] = [reply::GRPC_STATUS, reply::GRPC_MESSAGE, mark::REASON, mark::BY];
    hop::strip(&mut theirs);
    let mut added = HeaderMap::new();
    for (name, value) in &theirs {
        if !describes_message(name) && !OURS.contains(name) && !ours.contains_key(name) {
            added.append(name, value.clone());
        }
    }
    ours.extend(added);
}
