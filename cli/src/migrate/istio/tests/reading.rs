//! Reading from an API server in memory.

use serde_json::json;
use weft_kube_fake::{FakeApi, Reply};

use super::options;
use crate::cluster::Session;
use crate::migrate::istio::cluster::from;
use crate::migrate::istio::input::Inputs;
use crate::migrate::istio::translate::translate;
use crate::migrate::report::{Level, Report};

const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies";

fn cluster() -> (FakeApi, Session) {
    let api = FakeApi::new();
    let crd = json!({ "metadata": { "name": "authorizationpolicies.security.istio.io" },
        "spec": { "group": "security.istio.io", "scope": "Namespaced",
            "names": { "kind": "AuthorizationPolicy", "plural": "authorizationpolicies" },
            "versions": [{ "name": "v1", "served": true, "storage": true }] } });
    api.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd);
    api.put(POLICIES, json!({ "metadata": { "name": "closed" }, "spec": {} }));
    let labels = json!({ "istio-injection": "enabled" });
    api.put("/api/v1/namespaces", json!({ "metadata": { "name": "shop", "labels": labels } }));
    let template = json!({ "metadata": { "labels": { "sidecar.istio.io/inject": "false" } } });
    api.put(
        "/apis/apps/v1/namespaces/shop/deployments",
        json!({ "metadata": { "name": "legacy" }, "spec": { "selector": {}, "template": template } }),
    );
    let session = Session { client: api.client(), mesh: "weft-system".into() };
    (api, session)
}

async fn read(session: &Session) -> (Inputs, Report) {
    let (mut inputs, mut report) = (Inputs::default(), Report::default());
    from(session, &mut inputs, &mut report).await.unwrap();
    inputs.sort();
    (inputs, report)
}

#[tokio::test]
async fn a_cluster_is_read_with_what_is_defined_there() {
    let (_api, session) = cluster();
    let (inputs, mut report) = read(&session).await;
    let documents = translate(&inputs, &options(), &mut report);
    let made: Vec<_> = documents.iter().map(super::Document::label).collect();
    assert_eq!(made, ["AuthorizationPolicy shop/closed", "Namespace shop"]);
    let left: Vec<_> = report.of(Level::LeftOut).map(|it| it.object.as_str()).collect();
    assert_eq!(left, ["Deployment shop/legacy"], "{report}");
}

#[tokio::test]
async fn what_may_not_be_read_is_said_to_be_left_out() {
    let (api, session) = cluster();
    api.answer(|request| request.path.ends_with("/authorizationpolicies").then(|| Reply::error(403, "not for you")));
    let (inputs, report) = read(&session).await;
    assert!(inputs.objects.is_empty());
    assert_eq!(report.of(Level::LeftOut).next().unwrap().setting, "authorizationpolicies");
    assert!(report.is_incomplete());
}
