use std::collections::{BTreeMap, HashSet};

use futures::StreamExt;

use super::*;
use crate::kubernetes::keeper::Keeper;
use crate::kubernetes::secret::SecretFiles;
use crate::state::State;

#[tokio::test(start_paused = true)]
async fn replicas_that_start_on_an_empty_cluster_issue_under_one_root() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.replica("a"), cluster.replica("b"));
    let (one, two) = tokio::join!(a.authority(), b.authority());
    assert_eq!(one.bundle(), two.bundle());
    assert_eq!(issuer(&one), issuer(&two));
    assert_eq!(cluster.api.list(SECRETS).len(), 1);
    until("the roots are published", || cluster.published().is_some()).await;
    assert_eq!(cluster.published().unwrap(), one.bundle().to_pem());
    let request = KeyRequest::generate(&cart()).unwrap();
    let issued = one.issue(request.csr(), &cart(), None).unwrap();
    let svid = request.complete(issued.chain).unwrap();
    svid.verify(two.trust(), weft_tls::PeerRole::Client, &cluster.clock).unwrap();
}

/// A replica that is sure that it leads, whatever the Lease says.
fn usurper(cluster: &Cluster, name: &str) -> watch::Receiver<Option<Arc<Authority>>> {
    let (leads, leader) = watch::channel(true);
    let (published, publication) = watch::channel(None);
    let settings = cluster.settings(name);
    let (keeper, authority, _) =
        Keeper::new(&cluster.api.client(), &settings, cluster.clock, leader.clone(), publication);
    let publisher = trust::Publisher::new(&cluster.api.client(), &settings, cluster.clock, leader, authority.clone());
    tokio::spawn(async move {
        let _leads = leads;
        tokio::join!(keeper.run(), publisher.run(published));
    });
    authority
}

#[tokio::test(start_paused = true)]
async fn of_two_that_both_think_they_lead_one_wins_each_write() {
    let cluster = Cluster::new();
    // Every content that the Secret ever had, by its generation.
    let (api, seen) = (secrets(&cluster.api.client(), &"weft-system".into()), Arc::new(parking_lot::Mutex::default()));
    let history: Arc<parking_lot::Mutex<BTreeMap<u64, HashSet<String>>>> = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut events = Box::pin(weft_kube::watch(api, only(NAME)));
        while let Some(event) = events.next().await {
            let weft_kube::Watched::Applied(secret) = event else { continue };
            let files = SecretFiles(&secret);
            let state = State::load(&files, &TrustDomain::default().into()).unwrap().unwrap();
            history.lock().entry(state.generation).or_default().insert(state.bundle().to_pem());
        }
    });
    let (a, b) = (usurper(&cluster, "a"), usurper(&cluster, "b"));
    until("both have a root", || a.borrow().is_some() && b.borrow().is_some()).await;
    let (a, b) = (a.borrow().clone().unwrap(), b.borrow().clone().unwrap());
    for (step, generation) in [(Step::Start, 2), (Step::Advance, 3), (Step::Advance, 4)] {
        cluster.order(step).await.unwrap();
        until("both know", || [&a, &b].iter().all(|x| x.bundle().generation == generation)).await;
        assert_eq!(a.bundle(), b.bundle());
        assert_eq!(issuer(&a), issuer(&b));
        let published = || cluster.published() == Some(a.bundle().to_pem());
        until("the roots are published", published).await;
    }
    let history = seen.lock();
    assert_eq!(history.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(history.values().all(|contents| contents.len() == 1), "a write was lost: {history:#?}");
}

#[tokio::test(start_paused = true)]
async fn another_replica_takes_over_where_the_rotation_stands() {
    let cluster = Cluster::new();
    let a = cluster.replica("a");
    let root = a.authority().await.bundle();
    until("published", || cluster.published().is_some()).await;
    let b = cluster.replica("b");
    assert_eq!(b.authority().await.bundle(), root);
    cluster.order(Step::Start).await.unwrap();
    a.leave().await;
    let authority = b.authority().await;
    until("it knows", || stage(&authority) == "publishing").await;
    let issued_before = issuer(&authority);
    let asked = cluster.clock.now();
    until("it leads and takes the order", || {
        let annotations = &cluster.api.get(SECRET).unwrap()["metadata"]["annotations"];
        annotations["weftmesh.io/rotate"].is_null()
    })
    .await;
    cluster.order(Step::Advance).await.unwrap();
    assert!(cluster.clock.now().duration_since(asked).unwrap() < MINUTE);
    until("it issues under the new root", || issuer(&authority) != issued_before).await;
    assert_eq!(authority.bundle().roots.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_goes_through_by_time_and_a_follower_sees_each_step() {
    let cluster = Cluster::new();
    let a = cluster.replica("a");
    let one = a.authority().await;
    let b = cluster.replica("b");
    let two = b.authority().await;
    let (old, before) = (one.bundle().roots.clone(), issuer(&one));
    assert!(cluster.order(Step::Start).await.unwrap().contains("publishing"));
    until("the follower trusts the new root", || two.bundle().roots.len() == 2).await;
    assert_eq!(
        (issuer(&one), issuer(&two)),
        (before.clone(), before.clone()),
        "published, and nothing issued under it"
    );
    until("the roots are published", || cluster.published() == Some(one.bundle().to_pem())).await;

    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!((stage(&one), stage(&two)), ("publishing", "publishing"));
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!((stage(&one), stage(&two)), ("issuing", "issuing"));
    assert_ne!(issuer(&two), before);
    assert_eq!(issuer(&one), issuer(&two));
    assert!(two.bundle().roots.contains(&old[0]), "leaves of the old root are still about");

    tokio::time::sleep(MINUTE * 12).await;
    assert_eq!((stage(&one), stage(&two)), ("stable", "stable"));
    assert!(!two.bundle().roots.contains(&old[0]));
    until("the old root is gone", || cluster.published() == Some(two.bundle().to_pem())).await;
    let data = cluster.api.get(SECRET).unwrap()["data"].clone();
    assert!(data["root-1.pem"].is_null() && data["root-2.pem"].is_string(), "the old key is gone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_issued_under_a_root_that_the_config_map_has_not_shown_for_long_enough() {
    let cluster = Cluster::new();
    let a = cluster.replica("a");
    let authority = a.authority().await;
    until("published", || cluster.published().is_some()).await;
    forbid_writes(&cluster.api, MAPS);
    cluster.order(Step::Start).await.unwrap();
    tokio::time::sleep(MINUTE * 20).await;
    assert_eq!(stage(&authority), "publishing", "nobody could see the new root");
    let advance = cluster.order(Step::Advance).await;
    assert!(matches!(advance, Err(CommandError::Unanswered(_))), "{advance:?}");

    let mut secret = cluster.api.get(SECRET).unwrap();
    secret["metadata"]["annotations"].as_object_mut().unwrap().remove("weftmesh.io/rotate");
    cluster.api.put(SECRETS, secret);
    allow_all(&cluster.api);
    until("published", || cluster.published() == Some(authority.bundle().to_pem())).await;
    tokio::time::sleep(MINUTE * 8).await;
    assert_eq!(stage(&authority), "publishing", "the time is counted from when it could be seen");
    tokio::time::sleep(MINUTE * 3).await;
    assert_eq!(stage(&authority), "issuing");
}

#[tokio::test(start_paused = true)]
async fn what_others_take_away_is_put_back_and_what_they_break_is_left_to_them() {
    let cluster = Cluster::new();
    let a = cluster.replica("a");
    let authority = a.authority().await;
    until("published", || cluster.published().is_some()).await;
    let (data, pem) = (cluster.api.get(SECRET).unwrap()["data"].clone(), cluster.published());

    cluster.api.remove(MAP);
    until("published again", || cluster.published() == pem).await;
    let edited = json!({ "metadata": { "name": "weft-trust" }, "data": { "root.pem": "x", "other": "kept" } });
    cluster.api.put(MAPS, edited);
    until("mended", || cluster.published() == pem).await;
    assert_eq!(cluster.api.get(MAP).unwrap()["data"]["other"], "kept");

    cluster.api.remove(SECRET);
    until("saved again", || cluster.api.get(SECRET).is_some()).await;
    assert_eq!(cluster.api.get(SECRET).unwrap()["data"], data);

    let before = issuer(&authority);
    let mut broken = cluster.api.get(SECRET).unwrap();
    broken["data"]["intermediate-1.pem"] = json!(STANDARD.encode("nothing"));
    cluster.api.put(SECRETS, broken.clone());
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(issuer(&authority), before, "the old goes on");
    assert_eq!(cluster.api.get(SECRET).unwrap()["data"], broken["data"], "whoever broke it mends it");
    let late = cluster.replica("b");
    until("a new replica says why it cannot", || {
        let missing = (late.missing())().join("\n");
        missing.contains("Secret weft-system/weft-ca, key intermediate-1.pem: no certificate in it")
    })
    .await;
    broken["data"] = data;
    cluster.api.put(SECRETS, broken);
    assert_eq!(late.authority().await.bundle(), authority.bundle());
}

#[tokio::test(start_paused = true)]
async fn orders_are_answered() {
    let cluster = Cluster::new();
    let refused = cluster.order(Step::Start).await.unwrap_err().to_string();
    assert!(refused.contains("Secret weft-system/weft-ca holds no authority"), "{refused}");
    let a = cluster.replica("a");
    a.authority().await;
    until("published", || cluster.published().is_some()).await;
    let refused = cluster.order(Step::Advance).await.unwrap_err().to_string();
    assert!(refused.contains("no rotation is going on"), "{refused}");
    assert_eq!(cluster.order(Step::Start).await.unwrap(), "start: the rotation is now publishing, generation 2");
    let refused = cluster.order(Step::Start).await.unwrap_err().to_string();
    assert!(refused.contains("a rotation is going on"), "{refused}");
    let (domain, status) = show(&cluster.api.client(), &"weft-system".into()).await.unwrap();
    assert_eq!(domain, TrustDomain::default());
    assert!(matches!(status.stage, Stage::Publishing { .. }));
    assert_eq!((status.roots.len(), status.generation), (2, 2));

    let mut other = cluster.settings("b");
    other.authority.trust_domains = "elsewhere".parse::<TrustDomain>().unwrap().into();
    let other = cluster.start(other);
    let refusal = "Secret weft-system/weft-ca, key state.json belongs to trust domain cluster.local, not elsewhere";
    until("it says why", || (other.missing())().join("").contains(refusal)).await;
}

/// An upgrade replaces one replica after the other: the old ones have the old name, the new ones the new one.
#[tokio::test(start_paused = true)]
async fn the_trust_domain_changes_under_replicas_of_both_names() {
    let cluster = Cluster::new();
    let named = |replica: &str, own: &str, aliases: &[&str]| {
        let mut settings = cluster.settings(replica);
        let aliases = aliases.iter().map(|alias| alias.parse().unwrap());
        settings.authority.trust_domains = TrustDomains::new(own.parse().unwrap(), aliases);
        cluster.start(settings)
    };
    let saved = || async {
        let (domain, status) = show(&cluster.api.client(), &"weft-system".into()).await.unwrap();
        (domain.to_string(), status.roots, status.stage)
    };
    let (old, new) = ("cluster.local", "new.example");
    let before = named("a", old, &[new]);
    let one = before.authority().await;
    let (name, roots, _) = saved().await;
    assert_eq!(name, old);

    let after = named("b", new, &[old]);
    let two = after.authority().await;
    assert_eq!((&one.bundle().roots, issuer(&one)), (&two.bundle().roots, issuer(&two)));
    before.leave().await;
    until("the one that leads now names it", || cluster.state()["trust_domain"] == new).await;
    until("it is taken over", || two.bundle().trust_domain.as_str() == new).await;
    assert_eq!(saved().await, (new.to_owned(), roots.clone(), Stage::Stable));
    cluster.order(Step::Start).await.unwrap();
    after.leave().await;

    let last = named("c", new, &[]);
    let three = last.authority().await;
    assert_eq!((stage(&three), three.bundle().roots.len()), ("publishing", 2));
    let refused = KeyRequest::generate(&cart()).unwrap();
    assert!(three.issue(refused.csr(), &cart(), None).is_err(), "the old name is nobody's any more");
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_ready_when_it_can_issue_and_knows_the_pods() {
    let cluster = Cluster::new();
    cluster.api.answer(|request| {
        let hidden = request.path.ends_with("/secrets") || request.path.ends_with("/pods");
        hidden.then(|| weft_kube_fake::Reply::error(403, "Forbidden"))
    });
    let a = cluster.replica("a");
    let missing = a.missing();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(missing().len(), 2, "{:?}", missing());
    allow_all(&cluster.api);
    until("ready", || missing().is_empty()).await;
    tokio::time::sleep(MINUTE * 70).await;
    assert!(missing().is_empty(), "the intermediate was renewed: {:?}", missing());
    forbid_writes(&cluster.api, SECRETS);
    tokio::time::sleep(MINUTE * 70).await;
    assert!(missing()[0].contains("the certificate that issues expired"), "{:?}", missing());
}
