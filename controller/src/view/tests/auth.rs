//! Who gets in, and what is said to who doesn't.

use serde_json::json;
use weft_kube_fake::{FakeApi, Reply, Request};

use super::*;

/// Knows Jane, who may tap namespace shop and view everything, a ServiceAccount that may nothing, and a token that has expired.
pub(in crate::view) fn people(request: &Request) -> Option<Reply> {
    let spec = &request.body["spec"];
    let status = match request.path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => match (spec["token"].as_str()?, spec["audiences"].is_null()) {
            ("jane", true) => json!({ "authenticated": true, "user": { "username": "jane" } }),
            ("account", false) => {
                json!({ "authenticated": true, "audiences": [AUDIENCE], "user": { "username": "system:serviceaccount:ci:probe" } })
            }
            ("expired", _) => json!({ "authenticated": false, "error": "token has expired" }),
            ("down", _) => return Some(Reply::error(500, "InternalError")),
            _ => json!({ "authenticated": false }),
        },
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let asked = &spec["resourceAttributes"];
            let taps = asked["resource"] == "taps" && asked["namespace"] == "shop";
            let may = spec["user"] == "jane" && asked["group"] == "weftmesh.io" && asked["verb"] == "get";
            json!({ "allowed": may && (taps || asked["resource"] == "views") })
        }
        _ => return None,
    };
    Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
}

fn guard() -> (FakeApi, Guard) {
    let api = FakeApi::new();
    api.answer(people);
    let guard = Guard::new(api.client());
    (api, guard)
}

#[tokio::test]
async fn who_has_the_right_in_the_namespace_gets_in() {
    let (_api, guard) = guard();
    assert_eq!(guard.authorize(Some("jane"), "shop", Resource::Taps).await.unwrap().name(), "jane");
    assert!(guard.authorize(Some("jane"), "", Resource::Views).await.is_ok());
}

#[tokio::test]
async fn who_has_not_hears_which_right_that_is_and_how_it_is_given() {
    let (_api, guard) = guard();
    let refused = async |token: Option<&str>, namespace: &str| {
        let refused = guard.authorize(token, namespace, Resource::Taps).await.unwrap_err();
        (refused.status.as_u16(), refused.why)
    };
    assert_eq!(
        refused(Some("jane"), "bank").await,
        (
            403,
            "jane may not get taps.weftmesh.io in namespace bank; whoever may give rights there can: kubectl -n bank create \
             rolebinding NAME --clusterrole=weft-tap --user=jane"
                .to_owned()
        )
    );
    assert_eq!(
        refused(Some("account"), "").await,
        (
            403,
            "system:serviceaccount:ci:probe may not get taps.weftmesh.io in all namespaces; whoever may give rights there \
             can: kubectl create clusterrolebinding NAME --clusterrole=weft-tap --serviceaccount=ci:probe"
                .to_owned()
        )
    );
    let (status, why) = refused(None, "shop").await;
    assert!(status == 401 && why.contains("kubectl create token"), "{why}");
    let (status, why) = refused(Some("expired"), "shop").await;
    assert!(status == 401 && why.contains("token has expired") && why.contains("weftmesh.io"), "{why}");
    assert_eq!(refused(Some("nobody"), "shop").await.0, 401);
    assert_eq!(refused(Some("down"), "shop").await.0, 503);
}
