//! Which node a token's pod is on, asked of a real API server with the rights that the chart gives.
//! `make cluster-build` makes what it needs: `cargo test -p weft-tests --test tokens -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use weft_kube::{ReviewError, Reviewed, Reviewer};
use weft_tests::apiserver::ApiServer;

const PROXY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: weft-system}
spec: {nodeName: @NODE@, serviceAccountName: weft-node-proxy, containers: [{name: proxy, image: localhost/proxy:1}]}
";

/// Components that review tokens: their ServiceAccounts and the templates with their rights.
const REVIEWERS: [(&str, &str); 2] =
    [("weft-system:weft-ca", "templates/ca.yaml"), ("weft-system:weft-controller", "templates/controller.yaml")];

fn token(server: &ApiServer) -> String {
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=proxy", "--audience=weft"];
    let token = server.k(&[&["-n", "weft-system", "create", "token", "weft-node-proxy"][..], &bound].concat()).unwrap();
    token.trim().to_owned()
}

/// A client of the API server as one of the ServiceAccounts, and its reviewer. On the runtime that uses it.
async fn reviewer(server: &ApiServer, user: &str) -> Reviewer {
    let choice = weft_kube::Choice { kubeconfig: Some(server.kubeconfig(user)), context: None };
    Reviewer::new(weft_kube::client_of(&choice).await.unwrap(), "weft")
}

#[test]
#[ignore = "needs make cluster-build"]
fn the_node_of_a_proxy_is_known_with_and_without_its_name_in_the_token() {
    let users = REVIEWERS.map(|(user, _)| user);
    let server = ApiServer::start(&users).unwrap();
    REVIEWERS.iter().for_each(|(_, template)| server.apply_template(template).unwrap());
    server
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: weft-node-proxy, namespace: weft-system}}")
        .unwrap();
    server.apply(&PROXY.replace("@NODE@", "node-a")).unwrap();
    let first = token(&server);
    let old: Vec<Reviewed> = server.block_on(async {
        let mut all = Vec::new();
        for user in users {
            let reviewer = reviewer(&server, user).await;
            let reviewed = reviewer.review(&first).await.unwrap();
            assert_eq!(reviewer.node(&first, &reviewed).await, Ok("node-a".into()), "{user}");
            // As an API server from before 1.30 would have put it.
            let old = Reviewed { node: None, ..reviewed };
            assert_eq!(reviewer.node(&first, &old).await, Ok("node-a".into()), "{user}");
            all.push(old);
        }
        all
    });
    // Made anew under its name, on another node. The API server itself goes on to know the old token for some seconds.
    server.k(&["-n", "weft-system", "delete", "pod", "proxy", "--force", "--grace-period=0"]).unwrap();
    server.apply(&PROXY.replace("@NODE@", "node-b")).unwrap();
    let second = token(&server);
    server.block_on(async {
        for (user, old) in users.into_iter().zip(&old) {
            let reviewer = reviewer(&server, user).await;
            let refused = reviewer.node(&first, old).await;
            assert!(
                matches!(&refused, Err(ReviewError::Invalid(why)) if why.contains("made anew")),
                "{user}: {refused:?}"
            );
            let reviewed = reviewer.review(&second).await.unwrap();
            assert_eq!(reviewer.node(&second, &reviewed).await, Ok("node-b".into()), "{user}");
        }
    });
}
