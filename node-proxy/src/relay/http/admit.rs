//! What comes between the decision where a request goes and its going there, for the few that need it: authorizers are asked,
//! and gRPC-Web becomes gRPC.

use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use weft_core::filter::ForwardPlan;
use weft_core::ids::RouteKind;
use weft_core::reason::Reason;
use weft_core::service::AppProtocol;
use weft_core::snapshot::Frontend;

use super::auth::Asking;
use super::body::ResponseBody;
use super::client::ClientBody;
use super::finish::Asked;
use super::outbound::Exchange;
use super::reply;
use super::waiting::Waiting;

/// Whether a request may not go straight to its backend.
pub(super) fn is_held(asked: &Asked, plan: Option<&ForwardPlan<'_>>) -> bool {
    asked.web.is_some() || plan.is_some_and(|plan| plan.next_authorizer().is_some())
}

impl Exchange<'_> {
    /// Sends a request on, if it may and when it can.
    pub(super) async fn admit(
        mut self,
        mut asked: Box<Asked>,
        (mut parts, mut body): (Parts, ClientBody),
        backend: &Arc<Frontend>,
        mut plan: Option<ForwardPlan<'_>>,
    ) -> Response<ResponseBody> {
        if let Some(plan) = &mut plan {
            let rule = plan.rule;
            let waiting = Waiting::new(&mut asked, (Some(&rule.key), Some(&backend.key)), self.protocol);
            let asking = Asking { conn: self.conn, caller: self.caller, view: self.view, asked: &waiting };
            let permitted = Box::pin(asking.permit(&parts, body, plan)).await;
            waiting.over();
            body = match permitted {
                Ok(body) => body,
                Err(refusal) => {
                    let labelled = self.conn.labelled(Some(&plan.rule.key), None, self.protocol);
                    let mut response = refusal.respond(asked, labelled, &plan.cors);
                    if self.extended.is_some() && response.status().is_success() {
                        // To this client any success would mean that it may speak WebSocket.
                        *response.status_mut() = StatusCode::FORBIDDEN;
                    }
                    return response;
                }
            };
            if matches!(body, ClientBody::Whole(_)) {
                // It is here: nobody has to be asked for it.
                parts.headers.remove(header::EXPECT);
            }
        }
        if let Some(web) = asked.web.as_ref().filter(|_| self.is_to_grpc(plan.as_ref(), backend)) {
            body = match web.translate(&mut parts, body) {
                Ok(body) => body,
                Err(_) => {
                    let failed = reply::failure(Reason::BadRequest, "the target cannot be written");
                    let rule = plan.as_ref().map(|plan| &plan.rule.key);
                    let labelled = self.conn.labelled(rule, None, self.protocol);
                    return reply::respond(failed, asked, labelled, 0);
                }
            };
            debug_assert_eq!(parts.version, Version::HTTP_2);
            self.web = Some(web.clone());
        }
        self.forward(asked, (parts, body), backend, plan).await
    }

    /// Whether what answers speaks gRPC: the backends of a GRPCRoute do, whatever their Services say. At a Gateway one that
    /// says so is enough; in the mesh a pod that calls it without such a route means what it says.
    fn is_to_grpc(&self, plan: Option<&ForwardPlan<'_>>, backend: &Frontend) -> bool {
        let of_grpc = plan.is_some_and(|plan| plan.rule.key.route.kind == RouteKind::Grpc);
        of_grpc || (self.conn.side.is_gateway() && backend.protocol == AppProtocol::Grpc)
    }
}
