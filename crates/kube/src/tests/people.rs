//! Whose token, and who may: against an API server in memory.

use super::*;
use crate::memory::MAX_TOKEN;
use serde_json::{Value, json};
use weft_kube_fake::{FakeApi, Reply, Request};

/// Knows `ours`, which is for us alone, and `jane`, which is for the API server. Jane may tap namespace shop; to list is allowed
/// and denied at once.
fn answer(request: &Request) -> Option<Reply> {
    let status = match request.path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => token(&request.body["spec"])?,
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let of = &request.body["spec"]["resourceAttributes"];
            let allowed = request.body["spec"]["user"] == "jane"
                && (&of["group"], &of["resource"], &of["verb"])
                    == (&json!("weftmesh.io"), &json!("taps"), &json!("get"))
                && of["namespace"] == "shop";
            let denied = of["verb"] == "list";
            json!({ "allowed": allowed || denied, "denied": denied, "reason": if allowed { "" } else { "no RBAC policy matched" } })
        }
        _ => return None,
    };
    Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
}

fn token(spec: &Value) -> Option<Value> {
    let for_us = spec["audiences"] == json!(["weftmesh.io"]);
    let user = |name: &str| json!({ "username": name, "uid": "u", "groups": ["dev"], "extra": { "a": ["b"] } });
    Some(match (spec["token"].as_str()?, for_us) {
        ("ours", true) => {
            json!({ "authenticated": true, "audiences": ["weftmesh.io"], "user": user("system:serviceaccount:shop:tap") })
        }
        ("theirs", true) => json!({ "authenticated": true, "audiences": ["other.example"], "user": user("jane") }),
        // A server that knows no audiences says nothing of them.
        ("jane", _) => json!({ "authenticated": true, "user": user("jane") }),
        ("nobody", _) => json!({ "authenticated": true, "user": { "username": "" } }),
        ("expired", _) => json!({ "authenticated": false, "error": "token has expired" }),
        _ => json!({ "authenticated": false }),
    })
}

fn people() -> (FakeApi, People) {
    let api = FakeApi::new();
    api.answer(answer);
    let people = People::new(api.client(), "weftmesh.io");
    (api, people)
}

fn tap(namespace: &str) -> Right<'_> {
    Right { verb: "get", group: "weftmesh.io", resource: "taps", namespace }
}

#[tokio::test(start_paused = true)]
async fn tokens_for_us_and_for_the_api_server_are_taken_and_no_others() {
    let (_api, people) = people();
    assert_eq!(people.user("ours").await.unwrap().name(), "system:serviceaccount:shop:tap");
    let jane = people.user("jane").await.unwrap();
    assert_eq!((jane.name(), jane.groups()), ("jane", &["dev".to_owned()][..]));
    let long = "x".repeat(MAX_TOKEN + 1);
    for (token, why) in [
        ("expired", "token has expired"),
        ("theirs", "expired or revoked"),
        ("nobody", "not valid"),
        ("what", "expired or revoked"),
        ("", "0 bytes"),
        (&long, "16385 bytes"),
    ] {
        let refused = people.user(token).await;
        assert!(matches!(&refused, Err(ReviewError::Invalid(said)) if said.contains(why)), "{token}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rights_are_those_of_the_user_in_the_namespace_asked_for() {
    let (api, people) = people();
    let (jane, ours) = (people.user("jane").await.unwrap(), people.user("ours").await.unwrap());
    assert_eq!(people.may(&jane, tap("shop")).await, Ok(Ok(())));
    let denied = Ok(Err("no RBAC policy matched".to_owned()));
    assert_eq!(people.may(&jane, tap("bank")).await, denied);
    assert_eq!(people.may(&jane, Right { resource: "views", ..tap("shop") }).await, denied);
    assert_eq!(people.may(&jane, Right { verb: "list", ..tap("shop") }).await, denied, "a denial counts more");
    assert_eq!(people.may(&ours, tap("shop")).await, denied, "somebody else");
    assert_eq!(people.may(&jane, tap("")).await, denied, "all namespaces");
    let last = api.requests().pop().unwrap().body;
    assert!(last["spec"]["resourceAttributes"].get("namespace").is_none(), "{last}");
    assert_eq!((&last["spec"]["groups"], &last["spec"]["extra"]), (&json!(["dev"]), &json!({ "a": ["b"] })));
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_seconds_and_outages_are_not() {
    let (api, people) = people();
    let asked = |what: &str| api.requests().iter().filter(|r| r.path.ends_with(what)).count();
    for _ in 0..3 {
        let jane = people.user("jane").await.unwrap();
        assert!(people.may(&jane, tap("shop")).await.unwrap().is_ok());
        assert!(people.may(&jane, tap("bank")).await.unwrap().is_err());
    }
    assert_eq!((asked("/tokenreviews"), asked("/subjectaccessreviews")), (2, 2));
    tokio::time::advance(RIGHT_BELIEVED).await;
    let jane = people.user("jane").await.unwrap();
    assert!(people.may(&jane, tap("shop")).await.unwrap().is_ok());
    assert_eq!((asked("/tokenreviews"), asked("/subjectaccessreviews")), (2, 3));
    tokio::time::advance(TOKEN_BELIEVED).await;
    people.user("jane").await.unwrap();
    assert_eq!(asked("/tokenreviews"), 4);

    api.answer(|_| Some(Reply::error(500, "InternalError")));
    tokio::time::advance(TOKEN_BELIEVED).await;
    for _ in 0..2 {
        assert!(matches!(people.user("jane").await, Err(ReviewError::Unavailable(_))));
        assert!(matches!(people.may(&jane, tap("shop")).await, Err(ReviewError::Unavailable(_))));
    }
    assert_eq!((asked("/tokenreviews"), asked("/subjectaccessreviews")), (6, 5));
    api.answer(|_| Some(Reply::Hang));
    assert!(matches!(people.user("jane").await, Err(ReviewError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_costs_bounded_memory() {
    let (_api, people) = people();
    for n in 0..KEPT + 10 {
        assert!(people.user(&format!("guess {n}")).await.is_err());
    }
    assert_eq!(people.users.len(), KEPT);
    assert!(people.user("jane").await.is_ok(), "it is only not remembered");
    tokio::time::advance(TOKEN_BELIEVED).await;
    people.user("jane").await.unwrap();
    assert_eq!(people.users.len(), 1, "what is old makes room");
}
