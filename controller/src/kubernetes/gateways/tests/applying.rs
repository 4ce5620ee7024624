use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use weft_kube::Events;
use weft_kube_fake::{FakeApi, Reply};

use super::*;
use crate::kubernetes::intake::Fact;

const SERVICES: &str = "/api/v1/namespaces/edge/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/edge/deployments";
const SCALERS: &str = "/apis/autoscaling/v2/namespaces/edge/horizontalpodautoscalers";

struct World {
    api: FakeApi,
    leader: watch::Sender<bool>,
    plans: watch::Sender<Option<Arc<Plans>>>,
    facts: mpsc::Receiver<Fact>,
    roots: tempfile::NamedTempFile,
}

impl World {
    fn start() -> Self {
        let api = FakeApi::new();
        let (leader, leads) = watch::channel(true);
        let (plans, planned) = watch::channel(None);
        let (sender, facts) = mpsc::channel(64);
        let roots = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(roots.path(), "ROOTS").unwrap();
        let provisioner = Provisioner {
            client: api.client(),
            events: Events::new(api.client(), "weftmesh.io/controller", "test"),
            settings: settings(roots.path().to_owned()),
            leader: leads,
            plans: planned,
            facts: sender,
        };
        tokio::spawn(run(provisioner));
        Self { api, leader, plans, facts, roots }
    }

    async fn plan(&self, ours: Vec<GatewayPlan>) {
        self.plans.send_replace(Some(Arc::new(Plans { ours, ..Plans::default() })));
        self.settle().await;
    }

    /// Time stands still but for this: what is due in it happens. Files are read outside of it, so it takes some turns.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
    }

    fn get(&self, collection: &str, name: &str) -> Value {
        self.api.get(&format!("{collection}/{name}")).unwrap_or_default()
    }

    fn writes(&self) -> usize {
        let of_gateways = |path: &str| path.contains("/namespaces/edge/") && !path.contains("/events");
        self.api.requests().iter().filter(|it| it.method != "GET" && of_gateways(&it.path)).count()
    }

    fn unmade(&mut self) -> Option<BTreeMap<GatewayKey, Unmade>> {
        let mut last = None;
        while let Ok(Fact::Unprovisioned(unmade)) = self.facts.try_recv() {
            last = Some(unmade);
        }
        last
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_gets_its_objects_and_they_are_kept() {
    let mut world = World::start();
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.get(SERVICES, "web-weft")["spec"]["ports"][0]["name"], "udp-53");
    assert_eq!(world.get("/api/v1/namespaces/edge/configmaps", "web-weft-trust")["data"]["root.pem"], "ROOTS");
    assert!(world.get(DEPLOYMENTS, "web-weft").is_object());
    assert_eq!(world.writes(), 6);
    world.plan(vec![plan("web")]).await;
    assert_eq!((world.writes(), world.unmade()), (6, None), "nothing new, nothing to write");

    world.api.remove(&format!("{DEPLOYMENTS}/web-weft"));
    world.settle().await;
    assert!(world.get(DEPLOYMENTS, "web-weft").is_object());
    let mut changed = world.get(SERVICES, "web-weft");
    changed["spec"]["type"] = json!("NodePort");
    world.api.put(SERVICES, changed);
    world.settle().await;
    assert_eq!(world.get(SERVICES, "web-weft")["spec"]["type"], "LoadBalancer");

    std::fs::write(world.roots.path(), "NEW ROOTS").unwrap();
    world.settle().await;
    assert_eq!(world.get("/api/v1/namespaces/edge/configmaps", "web-weft-trust")["data"]["root.pem"], "NEW ROOTS");
}

#[tokio::test(start_paused = true)]
async fn what_isnt_the_gateways_is_not_touched_and_the_gateway_says_so() {
    let mut world = World::start();
    world.api.put(SERVICES, json!({ "metadata": { "name": "web-weft" }, "spec": { "type": "ClusterIP" } }));
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.get(SERVICES, "web-weft")["spec"], json!({ "type": "ClusterIP" }));
    let unmade = world.unmade().unwrap();
    let found = &unmade[&plan("web").key];
    assert!(found.why.contains("Service web-weft exists") && !found.serves, "{unmade:?}");
    let events = world.api.list("/apis/events.k8s.io/v1/namespaces/edge/events");
    assert_eq!((&events[0]["reason"], &events[0]["regarding"]["name"]), (&json!("ProvisioningRefused"), &json!("web")));

    world.api.remove(&format!("{SERVICES}/web-weft"));
    for _ in 0..20 {
        world.settle().await;
    }
    assert_eq!(world.get(SERVICES, "web-weft")["spec"]["type"], "LoadBalancer");
    assert_eq!(world.unmade(), Some(BTreeMap::new()));
}

/// What people say of their pods is theirs, whatever it is called: a Gateway whose NetworkPolicy or PodDisruptionBudget can't be made
/// for it says so and serves.
#[tokio::test(start_paused = true)]
async fn a_gateway_is_served_without_what_only_guards_it() {
    let policies = "/apis/networking.k8s.io/v1/namespaces/edge/networkpolicies";
    let budgets = "/apis/policy/v1/namespaces/edge/poddisruptionbudgets";
    for (collection, kind) in [(policies, "NetworkPolicy"), (budgets, "PodDisruptionBudget")] {
        let mut world = World::start();
        let spec = json!({ "podSelector": { "matchLabels": { "app": "web" } } });
        world.api.put(collection, json!({ "metadata": { "name": "web-weft" }, "spec": spec }));
        let theirs = world.get(collection, "web-weft");
        world.plan(vec![plan("web")]).await;
        assert_eq!(world.get(collection, "web-weft"), theirs, "not touched");
        let found = world.unmade().unwrap().remove(&plan("web").key).unwrap();
        assert!(found.serves && found.why.contains(&format!("{kind} web-weft exists")), "{found:?}");
        let events = world.api.list("/apis/events.k8s.io/v1/namespaces/edge/events");
        assert!(events[0]["note"].as_str().unwrap().contains(kind), "{events:?}");
        assert!(world.get(DEPLOYMENTS, "web-weft").is_object() && world.get(SERVICES, "web-weft").is_object());

        // What it can't do without is told first.
        world.api.remove(&format!("{SERVICES}/web-weft"));
        world.api.put(SERVICES, json!({ "metadata": { "name": "web-weft" } }));
        world.settle().await;
        let found = world.unmade().unwrap().remove(&plan("web").key).unwrap();
        assert!(!found.serves && found.why.contains("Service web-weft exists"), "{found:?}");
        world.api.remove(&format!("{SERVICES}/web-weft"));

        world.api.remove(&format!("{collection}/web-weft"));
        for _ in 0..20 {
            world.settle().await;
        }
        assert_eq!(
            (world.get(collection, "web-weft")["kind"].as_str(), world.unmade()),
            (Some(kind), Some(BTreeMap::new()))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_run_as_somebody_elses_account() {
    let mut world = World::start();
    let accounts = "/api/v1/namespaces/edge/serviceaccounts";
    world.api.put(accounts, json!({ "metadata": { "name": "web-weft" } }));
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.get(DEPLOYMENTS, "web-weft"), Value::Null);
    assert!(world.unmade().unwrap()[&plan("web").key].why.contains("ServiceAccount web-weft exists"));
    world.api.remove(&format!("{accounts}/web-weft"));
    for _ in 0..20 {
        world.settle().await;
    }
    assert!(world.get(DEPLOYMENTS, "web-weft").is_object());

    world.api.remove(&format!("{accounts}/web-weft"));
    world.api.put(accounts, json!({ "metadata": { "name": "web-weft" } }));
    world.settle().await;
    assert_eq!(world.get(DEPLOYMENTS, "web-weft"), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_a_new_one_finds_what_is_to_go() {
    let world = World::start();
    world.leader.send(false).unwrap();
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.writes(), 0);
    let scaled = with(plan("web"), json!({ "autoscaling": { "maxReplicas": 3 } }));
    for object in made(&scaled).into_iter().filter(|object| object["kind"] == "HorizontalPodAutoscaler") {
        world.api.put(SCALERS, object);
    }
    world.settle().await;
    world.leader.send(true).unwrap();
    world.settle().await;
    assert_eq!(world.get(SCALERS, "web-weft"), Value::Null);
    assert!(world.get(DEPLOYMENTS, "web-weft").is_object());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_api_server_is_told_and_tried_again() {
    let mut world = World::start();
    world.api.answer(|request| {
        (request.method == "PATCH" && request.path.contains("/deployments/"))
            .then(|| Reply::error(403, "exceeded quota"))
    });
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.unmade().unwrap()[&plan("web").key].why, "Deployment web-weft: exceeded quota");
    assert!(world.get(SERVICES, "web-weft").is_object(), "one object that is refused keeps no other away");
    world.api.answer(|_| None);
    for _ in 0..20 {
        world.settle().await;
    }
    assert!(world.get(DEPLOYMENTS, "web-weft").is_object());
    assert_eq!(world.unmade(), Some(BTreeMap::new()));
}

/// A mistake in `podTemplate`, which the API server tells as a fault of its own.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_valid_is_told_though_the_answer_is_500() {
    let mut world = World::start();
    let why = ".spec.template.spec.topologySpreadConstraints: duplicate entries for key [topologyKey=\"zone\"]";
    let answer = format!("failed to create typed patch object (edge/web-weft; apps/v1, Kind=Deployment): {why}");
    world.api.answer(move |request| {
        (request.method == "PATCH" && request.path.contains("/deployments/")).then(|| Reply::error(500, &answer))
    });
    world.plan(vec![plan("web")]).await;
    let told = format!("Deployment web-weft: {why}");
    assert_eq!(world.unmade().unwrap()[&plan("web").key].why, told);
    let events = world.api.list("/apis/events.k8s.io/v1/namespaces/edge/events");
    assert_eq!((&events[0]["reason"], &events[0]["note"]), (&json!("ProvisioningRefused"), &json!(told)));
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_long_is_told_by_the_gateway() {
    let mut world = World::start();
    world.api.answer(|request| {
        (request.method == "PATCH" && request.path.contains("/services/")).then(|| Reply::error(503, "overloaded"))
    });
    world.plan(vec![plan("web")]).await;
    assert_eq!(world.unmade(), None, "it may be over soon");
    world.settle().await;
    let found = world.unmade().unwrap().remove(&plan("web").key).unwrap();
    assert_eq!(found.why, "Service web-weft: the API server answers 503: overloaded; it is tried again");
    world.api.answer(|_| None);
    for _ in 0..5 {
        world.settle().await;
    }
    assert_eq!(world.unmade(), Some(BTreeMap::new()));
    assert!(world.get(SERVICES, "web-weft").is_object());
}

/// Without it a Gateway of ten pods would have one until its autoscaler has looked at it.
#[tokio::test(start_paused = true)]
async fn the_number_of_pods_stays_when_it_becomes_an_autoscalers_business() {
    let world = World::start();
    let scale = |world: &World| {
        let requests = world.api.requests();
        let scale = requests.iter().filter(|it| it.query.contains("fieldManager=weft-gateways-scale")).cloned();
        scale.map(|it| it.body["spec"].clone()).collect::<Vec<_>>()
    };
    world.plan(vec![with(plan("web"), json!({ "replicas": 10 }))]).await;
    assert!(scale(&world).is_empty());
    let mut deployment = world.get(DEPLOYMENTS, "web-weft");
    deployment["metadata"]["managedFields"] = json!([{ "manager": "weft-gateways", "operation": "Apply",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } }]);
    world.api.put(DEPLOYMENTS, deployment);
    world.plan(vec![with(plan("web"), json!({ "autoscaling": { "maxReplicas": 20 } }))]).await;
    assert_eq!(scale(&world), [json!({ "replicas": 10 })]);
    assert!(world.get(SCALERS, "web-weft").is_object());
}

/// Its autoscaler looks at it some seconds later, and a node that is lost until then would be the Gateway's end.
#[tokio::test(start_paused = true)]
async fn a_new_gateway_begins_with_the_least_number_of_pods_of_its_autoscaler() {
    let world = World::start();
    world.plan(vec![with(plan("web"), json!({ "autoscaling": { "minReplicas": 3, "maxReplicas": 5 } }))]).await;
    let requests = world.api.requests();
    let applied = requests.iter().filter(|it| it.method == "PATCH" && it.path.ends_with("/deployments/web-weft"));
    let manager = |query: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=").map(str::to_owned)).unwrap_or_default()
    };
    let applied: Vec<_> = applied.map(|it| (manager(&it.query), it.body["spec"]["replicas"].clone())).collect();
    let of = |manager: &str, replicas: Value| (manager.to_owned(), replicas);
    assert_eq!(
        applied,
        [of("weft-gateways", json!(3)), of("weft-gateways-scale", json!(3)), of("weft-gateways", Value::Null)]
    );
    assert_eq!(world.get(DEPLOYMENTS, "web-weft")["spec"]["replicas"], 3);
}

/// An apply with another class is refused whole and for ever, so that no listener would get its port any more.
#[tokio::test(start_paused = true)]
async fn what_nobody_can_change_is_told_and_keeps_nothing_else_away() {
    let mut world = World::start();
    let of_class = |class: &str| with(plan("web"), json!({ "service": { "loadBalancerClass": class } }));
    world.plan(vec![of_class("example.com/a")]).await;
    let mut moved = of_class("example.com/b");
    moved.ports = [(Port::new(8443).unwrap(), Transport::Tcp)].into();
    world.plan(vec![moved.clone()]).await;
    let spec = world.get(SERVICES, "web-weft")["spec"].clone();
    assert_eq!((&spec["loadBalancerClass"], &spec["ports"][0]["port"]), (&json!("example.com/a"), &json!(8443)));
    let told = "Service web-weft: spec.loadBalancerClass is \"example.com/a\" and should be \"example.com/b\"";
    let found = world.unmade().unwrap().remove(&moved.key).unwrap();
    assert!(found.why.starts_with(told) && !found.serves, "{found:?}");
    let events = world.api.list("/apis/events.k8s.io/v1/namespaces/edge/events");
    let notes: Vec<_> = events.iter().filter(|it| it["note"].as_str().unwrap().starts_with(told)).collect();
    assert_eq!((notes.len(), &notes[0]["type"]), (1, &json!("Warning")), "{events:?}");
    let writes = world.writes();
    world.settle().await;
    assert_eq!(world.writes(), writes, "nothing is tried again and again that can't be");

    world.api.remove(&format!("{SERVICES}/web-weft"));
    world.settle().await;
    assert_eq!(world.get(SERVICES, "web-weft")["spec"]["loadBalancerClass"], "example.com/b");
    assert_eq!(world.unmade(), Some(BTreeMap::new()));
}

/// A selector can't be kept, so that the Deployment is refused, and what the API server says has no remedy.
#[tokio::test(start_paused = true)]
async fn a_deployment_that_can_only_be_made_anew_says_so() {
    let mut world = World::start();
    let mut deployment = made(&plan("web")).into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    deployment["spec"]["selector"]["matchLabels"] = json!({ "app": "web" });
    world.api.put(DEPLOYMENTS, deployment);
    world.api.answer(|request| {
        (request.method == "PATCH" && request.path.contains("/deployments/"))
            .then(|| Reply::error(422, "field is immutable"))
    });
    world.plan(vec![plan("web")]).await;
    let why = world.unmade().unwrap().remove(&plan("web").key).unwrap().why;
    assert!(why.contains("delete the Deployment web-weft and it is made anew, with new pods"), "{why}");
    assert!(why.ends_with("Deployment web-weft: field is immutable"), "{why}");
}
