//! Which node a token's pod is on, asked of a real API server with the rights that the chart gives.
//! `make cluster-build` makes what it needs: `cargo test -p weft-tests --test tokens -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use weft_kube::{KnownPods, OfflineReview, ReviewError, Reviewed, Reviewer, Seat};
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
    Reviewer::new(client(server, user).await, "weft")
}

async fn client(server: &ApiServer, user: &str) -> weft_kube::kube::Client {
    let choice = weft_kube::Choice { kubeconfig: Some(server.kubeconfig(user)), context: None };
    weft_kube::client_of(&choice).await.unwrap()
}

fn server() -> ApiServer {
    let server = ApiServer::start(&REVIEWERS.map(|(user, _)| user)).unwrap();
    REVIEWERS.iter().for_each(|(_, template)| server.apply_template(template).unwrap());
    server
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: weft-node-proxy, namespace: weft-system}}")
        .unwrap();
    server.apply(&PROXY.replace("@NODE@", "node-a")).unwrap();
    server
}

#[test]
#[ignore = "needs make cluster-build"]
fn while_the_api_server_is_away_a_proxy_is_known_by_its_keys() {
    let mut server = server();
    let token = token(&server);
    let uid =
        server.json(&["-n", "weft-system", "pod", "proxy"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let seat = Seat {
        namespace: "weft-system",
        pod: "proxy",
        uid: &uid,
        service_account: "weft-node-proxy",
        node: "node-a",
        ends: None,
    };
    // Of each component with its own rights: whether its pod is known, or not yet.
    let made = server.block_on(async {
        let mut all = Vec::new();
        for (user, _) in REVIEWERS {
            let (client, known) = (client(&server, user).await, Arc::new(KnownPods::default()));
            let offline = Arc::new(OfflineReview::new(client.clone(), Arc::clone(&known)));
            let read = async {
                while !offline.has_keys() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                () = Arc::clone(&offline).follow() => {}
                read = tokio::time::timeout(Duration::from_secs(20), read) => read.expect("the keys"),
            }
            all.push((user, known, offline));
        }
        all
    });
    server.end().unwrap();
    server.block_on(async {
        for (user, known, offline) in made {
            let reviewer = Reviewer::new(client(&server, user).await, "weft").or(offline);
            let refused = reviewer.review(&token).await;
            assert!(matches!(&refused, Err(ReviewError::Unavailable(_))), "{user}: {refused:?}");
            known.see(&seat);
            let reviewed = reviewer.review(&token).await.unwrap();
            assert_eq!(reviewer.node(&token, &reviewed).await, Ok("node-a".into()), "{user}");
        }
    });
}

#[test]
#[ignore = "needs make cluster-build"]
fn the_node_of_a_proxy_is_known_with_and_without_its_name_in_the_token() {
    let users = REVIEWERS.map(|(user, _)| user);
    let server = server();
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
