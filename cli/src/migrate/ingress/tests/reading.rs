//! Reading from an API server in memory.

use serde_json::json;
use weft_kube_fake::{FakeApi, Reply};

use super::options;
use crate::cluster::Session;
use crate::migrate::ingress::cluster::from;
use crate::migrate::ingress::input::Inputs;
use crate::migrate::ingress::report::{Level, Report};
use crate::migrate::ingress::translate::translate;

fn cluster() -> (FakeApi, Session) {
    let api = FakeApi::new();
    let annotations = json!({ "nginx.ingress.kubernetes.io/custom-headers": "shop/headers" });
    let ingress = serde_json::from_str(&super::ingress("nginx", &annotations)).unwrap();
    api.put("/apis/networking.k8s.io/v1/namespaces/shop/ingresses", ingress);
    let class = json!({ "metadata": { "name": "nginx" }, "spec": { "controller": "k8s.io/ingress-nginx" } });
    api.put("/apis/networking.k8s.io/v1/ingressclasses", class);
    let service = json!({ "metadata": { "name": "web" }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    api.put("/api/v1/namespaces/shop/services", service);
    api.put(
        "/api/v1/namespaces/shop/secrets",
        json!({ "metadata": { "name": "tls" }, "data": { "tls.key": "c2VjcmV0" } }),
    );
    api.put("/api/v1/namespaces/shop/configmaps", json!({ "metadata": { "name": "headers" }, "data": { "X-A": "b" } }));
    let session = Session { client: api.client(), mesh: "weft-system".into() };
    (api, session)
}

#[tokio::test]
async fn a_cluster_is_read_with_what_its_ingresses_refer_to() {
    let (_api, session) = cluster();
    let (mut inputs, mut report) = (Inputs::default(), Report::default());
    from(&session, &mut inputs, &mut report).await.unwrap();
    assert_eq!((inputs.ingresses.len(), inputs.classes.len(), inputs.services.len()), (1, 1, 1));
    assert_eq!(
        inputs.secrets.clone().unwrap().into_iter().collect::<Vec<_>>(),
        [("shop".to_owned(), "tls".to_owned())]
    );
    let documents = translate(&inputs, &options(), &mut report);
    let route = documents.iter().find(|it| it.object["kind"] == "HTTPRoute").unwrap();
    let filter = &route.object["spec"]["rules"][0]["filters"][0];
    assert_eq!(filter["responseHeaderModifier"]["set"][0], json!({ "name": "X-A", "value": "b" }));
}

#[tokio::test]
async fn what_may_not_be_read_is_said_and_costs_nothing_else() {
    let (api, session) = cluster();
    api.answer(|request| request.path.ends_with("/secrets").then(|| Reply::error(403, "secrets is forbidden")));
    let (mut inputs, mut report) = (Inputs::default(), Report::default());
    from(&session, &mut inputs, &mut report).await.unwrap();
    assert_eq!((inputs.ingresses.len(), inputs.secrets), (1, None));
    assert_eq!(report.of(Level::Differs).next().unwrap().setting, "secrets");
}
