//! One request and its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::super::body::ResponseBody;
use super::super::client::ClientBody;
use super::super::given_up::Unanswered;
use super::super::serve::answer;
use super::body::{Broken, Heard, Http3Body, Receiver, Talk};
use super::code::Code;
use super::connection::Shared;
use super::frames::{self, DATA, HEADERS, Piece};
use super::head;
use super::qpack::{Most, decode};

/// How long the end of a request without a body may be behind its head. It comes with it, or in the next packet; without a look
/// at it, endpoints would be told of a body whose length nobody knows.
const END: Duration = Duration::from_millis(50);
/// How long a client may take to say that it has an answer. Before that the connection must not be closed, or the rest of it is
/// lost. Long, because that may be much for a slow client; one that is silent is let go by QUIC before.
const ACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Why a request isn't answered as others are.
enum Refused {
    /// With this status.
    Status(StatusCode),
    /// Its stream ends.
    Stream(Code),
    /// Its connection ends.
    Connection(Code),
    /// Nobody is there any more.
    Gone,
}

impl From<Broken> for Refused {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Connection(code) => Self::Connection(code),
            Broken::Stream(code) => Self::Stream(code),
            Broken::TooLarge => Self::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Broken::Gone => Self::Gone,
        }
    }
}

impl Broken {
    /// The same where it is too late for a status.
    fn in_an_answer(self) -> Refused {
        match self {
            Self::TooLarge => Refused::Stream(Code::ExcessiveLoad),
            other => other.into(),
        }
    }
}

/// Serves a request to its end.
pub(super) async fn serve(shared: Rc<Shared>, send: SendStream, receive: RecvStream) {
    let settings = &shared.conn.engine.settings;
    let most = Most { bytes: settings.max_header_bytes, fields: settings.max_headers };
    let talk = Rc::new(Talk::default());
    let stopped = send.stopped().boxed();
    let mut client = Client { send, stopped, stall: settings.http3_stall_timeout, begun: false };
    let mut receiver = Receiver::new(receive, most);
    let begun = timeout(settings.header_timeout, begin(&shared, &mut receiver, most)).await;
    let (request, body) = match begun.unwrap_or(Err(Refused::Stream(Code::RequestIncomplete))) {
        Ok(begun) => begun,
        Err(refused) => {
            let code = if let Refused::Stream(code) = refused { code } else { Code::NoError };
            receiver.stop(code);
            return refuse(&shared, client, refused).await;
        }
    };
    let is_head = *request.method() == Method::HEAD;
    let expects =
        request.headers().get(header::EXPECT).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body = Http3Body::new(receiver, &talk, most, body);
    let body = if body.is_end_stream() { ClientBody::None } else { ClientBody::Http3(Box::new(body)) };
    // Boxed, because it is most of what this task is.
    let answering = Box::pin(answer(Rc::clone(&shared.conn), request.map(|()| body), Unanswered::new(None)));
    let answered = client.wait(answering, &talk, expects).await;
    let result = match answered {
        Ok(response) => client.write(response, &talk, is_head).await,
        Err(refused) => Err(refused),
    };
    match result {
        Ok(()) => {
            shared.taken();
            client.finish().await;
        }
        Err(refused) => {
            if is_given_up(&refused, client.begun) {
                shared.given_up();
            }
            refuse(&shared, client, refused).await;
        }
    }
}

/// Whether a client had a request worked on for nothing. An answer that has begun may be given up as often as one likes, as whoever
/// looks for a place in a film does: what its endpoint does ends with it, and its client waited for it.
const fn is_given_up(refused: &Refused, begun: bool) -> bool {
    match refused {
        Refused::Gone => !begun,
        Refused::Stream(code) => matches!(code, Code::MessageError | Code::ExcessiveLoad),
        Refused::Status(_) | Refused::Connection(_) => false,
    }
}

/// What there is of a body: what came of it already, and how long it is by its own word.
type Beginning = (Option<Piece>, Option<u64>);

/// Reads the head of a request, and whether it has a body.
async fn begin(shared: &Shared, receiver: &mut Receiver, most: Most) -> Result<(Request<()>, Beginning), Refused> {
    let section = {
        // Never closed.
        let _turn = shared.heads.acquire().await;
        match poll_fn(|cx| receiver.poll_next(cx)).await? {
            Some(Piece::Frame(HEADERS, section)) => section,
            Some(_) => return Err(Refused::Connection(Code::FrameUnexpected)),
            None => return Err(Refused::Stream(Code::RequestIncomplete)),
        }
    };
    let fields = decode(&section, most).map_err(Broken::from)?;
    let (request, length) = head::request(fields).map_err(|why| {
        tracing::debug!("malformed request: {why}");
        Refused::Stream(Code::MessageError)
    })?;
    let seldom_has_one = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    let patience = if length == Some(0) || (length.is_none() && seldom_has_one) { END } else { Duration::ZERO };
    let next = timeout(patience, poll_fn(|cx| receiver.poll_next(cx))).await;
    let first = match next {
        Ok(Ok(None)) if length.is_some_and(|length| length > 0) => return Err(Refused::Stream(Code::MessageError)),
        Ok(Ok(first)) => first,
        Ok(Err(broken)) => return Err(broken.into()),
        Err(_) => None,
    };
    Ok((request, (first, length)))
}

/// The client's side of one request.
struct Client {
    send: SendStream,
    /// The client takes no more of the answer, or has all of it.
    stopped: BoxFuture<'static, Result<Option<quinn::VarInt>, quinn::StoppedError>>,
    /// How long it may take nothing of its answer. Only that answer ends then: it may pause one and take others.
    stall: Duration,
    /// The head of its answer was written.
    begun: bool,
}

impl Client {
    /// Waits for an answer as long as the client does.
    async fn wait<E>(
        &mut self,
        answer: impl Future<Output = Result<Response<ResponseBody>, E>>,
        talk: &Talk,
        expects: bool,
    ) -> Result<Response<ResponseBody>, Refused> {
        let mut answer = pin!(answer);
        loop {
            let heard = poll_fn(|cx| {
                if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                if let Poll::Ready(heard) = talk.poll(cx) {
                    return Poll::Ready(Err(Some(heard)));
                }
                self.stopped.as_mut().poll(cx).map(|_| Err(None))
            })
            .await;
            match heard {
                // Without one it is a refusal of ours that can't fail.
                Ok(response) => match (response, talk.broken()) {
                    // Whoever read the body has made an answer of that, too, which isn't the endpoint's.
                    (_, Some(broken)) => return Err(broken.in_an_answer()),
                    (Ok(response), _) => return Ok(response),
                    (Err(_), _) => return Err(Refused::Stream(Code::InternalError)),
                },
                Err(None) => return Err(Refused::Gone),
                Err(Some(Heard::Wanted)) if expects => {
                    // RFC 9110, section 10.1.1: somebody reads the body, so it is wanted.
                    self.frame(HEADERS, head::response(StatusCode::CONTINUE, &HeaderMap::new())).await?;
                }
                Err(Some(Heard::Wanted)) => {}
                // What is too slow or gone is answered by whoever reads the body.
                Err(Some(Heard::Broken(broken @ (Broken::Stream(_) | Broken::Connection(_))))) => {
                    return Err(broken.into());
                }
                Err(Some(Heard::Broken(_))) => {}
            }
        }
    }

    /// Writes a response to its end.
    async fn write(&mut self, response: Response<ResponseBody>, talk: &Talk, is_head: bool) -> Result<(), Refused> {
        let (mut parts, body) = response.into_parts();
        let mut body = pin!(body);
        add_length(&mut parts, &body, is_head);
        self.frame(HEADERS, head::response(parts.status, &parts.headers)).await?;
        self.begun = true;
        while !body.is_end_stream() {
            let next = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => {
                    while let Poll::Ready(heard) = talk.poll(cx) {
                        if let Heard::Broken(broken) = heard {
                            return Poll::Ready(Err(broken.in_an_answer()));
                        }
                    }
                    self.stopped.as_mut().poll(cx).map(|_| Err(Refused::Gone))
                }
            });
            match next.await? {
                None => break,
                Some(Err(_)) => return Err(Refused::Stream(Code::InternalError)),
                Some(Ok(frame)) => match frame.into_data() {
                    // Whatever was made of it: an answer to HEAD has none.
                    Ok(data) if is_head || data.is_empty() => {}
                    Ok(data) => self.frame(DATA, data).await?,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.frame(HEADERS, head::section(&trailers)).await?;
                        }
                    }
                },
            }
        }
        Ok(())
    }

    /// Writes a frame.
    async fn frame(&mut self, kind: u64, payload: Bytes) -> Result<(), Refused> {
        let mut both = [frames::head(kind, payload.len()), payload];
        let mut chunks: &mut [Bytes] = &mut both;
        while !chunks.is_empty() {
            let written = timeout(self.stall, self.send.write_chunks(chunks)).await;
            let written = written.map_err(|_| Refused::Stream(Code::RequestCancelled))?.map_err(|_| Refused::Gone)?;
            chunks = chunks.get_mut(written.chunks..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says that this is all, and waits until the client has it.
    async fn finish(mut self) {
        if self.send.finish().is_ok() {
            drop(timeout(ACKNOWLEDGED, self.stopped).await);
        }
    }
}

/// Says how long the body is where that is known and nobody has said so.
fn add_length(parts: &mut http::response::Parts, body: &ResponseBody, is_head: bool) {
    let without = parts.status.is_informational()
        || parts.status == StatusCode::NO_CONTENT
        || parts.status == StatusCode::NOT_MODIFIED;
    if is_head || without || parts.headers.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Ends a stream that isn't answered as others are.
async fn refuse(shared: &Shared, mut client: Client, refused: Refused) {
    let code = match refused {
        Refused::Status(status) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            match client.frame(HEADERS, head::response(status, &headers)).await {
                Ok(()) => return client.finish().await,
                Err(_) => Code::RequestCancelled,
            }
        }
        Refused::Stream(code) => code,
        Refused::Connection(code) => return shared.close(code),
        Refused::Gone => Code::RequestCancelled,
    };
    // Fails only for a stream that is over.
    let _ = client.send.reset(code.into());
}
