//! The hook, against an API server in memory. The agent's side with real pods: `tests/cluster.rs`.

use super::*;
use weft_core::ids::SandboxId;
use weft_kube_fake::FakeApi;

use crate::agent::{Outside, PodRef};

const MAPS: &str = "/api/v1/namespaces/weft-system/configmaps";
const PODS: &str = "/api/v1/namespaces/weft-system/pods";
const SETS: &str = "/apis/apps/v1/namespaces/weft-system/daemonsets";

fn cluster(nodes: &[&str]) -> FakeApi {
    let api = FakeApi::new();
    let selector = json!({ "matchLabels": { "app": "agent" } });
    api.put(SETS, json!({ "metadata": { "name": "weft-agent" }, "spec": { "selector": selector, "template": {} } }));
    for node in nodes {
        let labels = json!({ "app": "agent" });
        api.put(
            PODS,
            json!({ "metadata": { "name": node, "labels": labels }, "spec": { "nodeName": node, "containers": [] } }),
        );
    }
    let other = json!({ "metadata": { "name": "ca", "labels": { "app": "ca" } }, "spec": { "nodeName": "n9", "containers": [] } });
    api.put(PODS, other);
    api
}

fn answer(api: &FakeApi, node: &str, text: &str) {
    let mut map = api.get(&format!("{MAPS}/{ASKED}")).expect("the hook asked");
    map["data"][node] = json!(text);
    api.put(MAPS, map);
}

fn is_asked(api: &FakeApi) -> bool {
    api.get(&format!("{MAPS}/{ASKED}")).is_some()
}

async fn hook(api: &FakeApi, patience: Duration) -> anyhow::Result<()> {
    uninstall(api.client(), &"weft-system".into(), "weft-agent", patience).await
}

#[tokio::test(start_paused = true)]
async fn the_hook_waits_for_every_node_with_an_agent() {
    let api = cluster(&["n1", "n2"]);
    let (task, waited) = (api.clone(), Duration::from_secs(300));
    let hook = tokio::spawn(async move { hook(&task, waited).await });
    while !is_asked(&api) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    answer(&api, "n1", DONE);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!hook.is_finished(), "n2 hasn't answered");
    answer(&api, "n2", "2 pods are still in the mesh");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!hook.is_finished(), "n2 isn't done");
    answer(&api, "n2", DONE);
    hook.await.unwrap().unwrap();
    assert!(!is_asked(&api), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn the_hook_names_late_nodes_and_can_be_run_again() {
    let api = cluster(&["n1", "n2", "n3"]);
    api.put(MAPS, json!({ "metadata": { "name": ASKED }, "data": { "n1": "done", "n3": "shop/cart: nft: no" } }));
    let text = hook(&api, Duration::from_secs(20)).await.unwrap_err().to_string();
    assert!(text.contains("node n2: no answer") && text.contains("node n3: shop/cart: nft: no"), "{text}");
    assert!(!text.contains("n1:"), "{text}");
    assert!(is_asked(&api), "nodes go on leaving");
    answer(&api, "n2", DONE);
    // A node that is gone for good.
    api.remove(&format!("{PODS}/n3"));
    hook(&api, Duration::from_secs(20)).await.unwrap();
    assert!(!is_asked(&api));
}

#[tokio::test(start_paused = true)]
async fn without_agents_there_is_nothing_to_wait_for() {
    hook(&FakeApi::new(), Duration::from_secs(1)).await.unwrap();
    let api = cluster(&[]);
    hook(&api, Duration::from_secs(1)).await.unwrap();
    assert!(!is_asked(&api));
}

#[tokio::test(start_paused = true)]
async fn an_agent_hears_of_it_now_and_later() {
    let (api, namespace) = (FakeApi::new(), Namespace::new("weft-system"));
    let (looked, is_looked) = tokio::sync::watch::channel(false);
    let client = api.client();
    let waiting = tokio::spawn(async move { asked(client, &namespace, &looked).await });
    let mut first = is_looked.clone();
    first.wait_for(|looked| *looked).await.unwrap();
    api.put(MAPS, json!({ "metadata": { "name": "another" } }));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished(), "another ConfigMap is none of ours");
    api.put(MAPS, json!({ "metadata": { "name": ASKED } }));
    waiting.await.unwrap();

    let (looked, is_looked) = tokio::sync::watch::channel(false);
    asked(api.client(), &"weft-system".into(), &looked).await;
    assert!(!*is_looked.borrow(), "an agent that starts now leaves before it installs");
}

#[test]
fn what_is_left_is_said() {
    let pod = |protection| LocalPod {
        sandbox: SandboxId::new("s"),
        pod: PodRef { namespace: "shop".into(), name: "cart".into(), uid: None },
        ips: Vec::new(),
        node: "n1".into(),
        service_account: None,
        protection,
    };
    let out = || pod(Protection::Outside(Outside::Uninstalling));
    assert_eq!(still_in(&[out(), out()]), None);
    let text = still_in(&[out(), pod(Protection::Closed("nft: no".into()))]).unwrap();
    assert!(text.contains("1 pods") && text.contains("shop/cart: nft: no"), "{text}");
}
