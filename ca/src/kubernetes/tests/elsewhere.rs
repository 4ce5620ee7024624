use super::*;
use crate::material::Signer;
use crate::state::{Branch, new_intermediate};

/// A CA of somebody else, whose intermediates this cluster is given.
struct Theirs {
    settings: AuthoritySettings,
    root: Arc<Signer>,
    clock: Clock,
}

impl Theirs {
    fn new(cluster: &Cluster) -> Self {
        let settings = AuthoritySettings::new(TrustDomain::default());
        let branch = Branch::own(&settings, 1, cluster.clock.now()).unwrap();
        Self { settings, root: branch.root.unwrap(), clock: cluster.clock }
    }

    fn root(&self) -> String {
        weft_tls::pem::certificate(&self.root.cert)
    }

    /// Certificate and key.
    fn intermediate(&self) -> (String, String) {
        let signer = new_intermediate(&self.root, &self.settings, self.clock.now()).unwrap();
        (weft_tls::pem::certificate(&signer.cert), signer.issuer.key().serialize_pem())
    }

    /// As cert-manager puts it into a Secret.
    fn renew(&self, cluster: &Cluster) {
        let (cert, key) = self.intermediate();
        cluster.put_secret("issuer", &[("tls.crt", cert), ("tls.key", key), ("ca.crt", self.root())]);
    }
}

fn with_issuer(cluster: &Cluster, replica: &str) -> Replica {
    cluster.start(ClusterSettings { source: RootSource::Issuer("issuer".into()), ..cluster.settings(replica) })
}

fn roots(authority: &Authority) -> Vec<String> {
    authority.bundle().roots.iter().map(weft_tls::pem::certificate).collect()
}

#[tokio::test(start_paused = true)]
async fn an_intermediate_that_is_renewed_elsewhere_issues_at_once_on_every_replica() {
    let cluster = Cluster::new();
    let (a, b) = (with_issuer(&cluster, "a"), with_issuer(&cluster, "b"));
    let missing = a.missing();
    until("it says what it waits for", || missing().join("").contains("Secret weft-system/issuer does not exist"))
        .await;
    let theirs = Theirs::new(&cluster);
    theirs.renew(&cluster);
    let (one, two) = (a.authority().await, b.authority().await);
    assert_eq!(roots(&one), [theirs.root()]);
    let first = issuer(&two);
    theirs.renew(&cluster);
    until("both issue under the new one", || issuer(&one) != first && issuer(&one) == issuer(&two)).await;
    assert_eq!((one.bundle().generation, stage(&one)), (1, "stable"), "nobody has to trust anything new");
    let refused = cluster.order(Step::Start).await.unwrap_err().to_string();
    assert!(refused.contains("whoever makes the CA certificates rotates them"), "{refused}");
    let state = cluster.api.get(SECRET).unwrap()["data"]["root-1.pem"].as_str().unwrap().to_owned();
    assert!(!String::from_utf8(STANDARD.decode(state).unwrap()).unwrap().contains("PRIVATE KEY"));
}

#[tokio::test(start_paused = true)]
async fn another_root_comes_in_stages_and_a_restart_between_them_goes_on() {
    let cluster = Cluster::new();
    let (old, new) = (Theirs::new(&cluster), Theirs::new(&cluster));
    old.renew(&cluster);
    let a = with_issuer(&cluster, "a");
    let one = a.authority().await;
    let first = issuer(&one);
    until("published", || cluster.published().is_some()).await;
    new.renew(&cluster);
    until("both roots are trusted", || roots(&one) == [old.root(), new.root()]).await;
    assert_eq!(issuer(&one), first, "nothing is issued under the new one yet");
    until("published", || cluster.published() == Some(old.root() + &new.root())).await;
    a.leave().await;
    drop(one);

    let b = with_issuer(&cluster, "b");
    let two = b.authority().await;
    assert_eq!(issuer(&two), first, "the old one is still there, though its Secret has the new one");
    tokio::time::sleep(MINUTE * 12).await;
    assert_ne!(issuer(&two), first);
    let second = issuer(&two);
    new.renew(&cluster);
    until("renewed meanwhile", || issuer(&two) != second).await;
    tokio::time::sleep(MINUTE * 13).await;
    assert_eq!((stage(&two), roots(&two)), ("stable", vec![new.root()]));
}

#[tokio::test(start_paused = true)]
async fn bad_material_is_named_and_the_old_goes_on() {
    let cluster = Cluster::new();
    let (theirs, strangers) = (Theirs::new(&cluster), Theirs::new(&cluster));
    let a = with_issuer(&cluster, "a");
    let missing = a.missing();
    let ((cert, key), (other, _)) = (theirs.intermediate(), strangers.intermediate());
    let plain = |cert: &str, key: &str, root: &str| {
        cluster.put_secret("issuer", &[("tls.crt", cert.into()), ("tls.key", key.into()), ("ca.crt", root.into())]);
    };
    let (root, strange) = (theirs.root(), strangers.root());
    for (cert, key, root, why) in [
        ("", &*key, &*root, "key tls.crt: no certificate in it"),
        (&*cert, "", &*root, "key tls.key: no private key in it"),
        (&*cert, &*key, "x", "key ca.crt: no certificate in it"),
        (&*other, &*key, &*root, "key tls.crt: a CA certificate does not belong to its key"),
        (&*cert, &*key, &*strange, "key tls.crt: a certificate issued for a test is refused"),
    ] {
        plain(cert, key, root);
        until(why, || missing().join("").contains(&format!("Secret weft-system/issuer, {why}"))).await;
    }
    cluster.put_secret("issuer", &[("tls.crt", cert.clone()), ("tls.key", key.clone())]);
    until("no roots", || missing().join("").contains("Secret weft-system/issuer, key ca.crt is missing")).await;
    plain(&cert, &key, &root);
    let authority = a.authority().await;
    let first = issuer(&authority);
    plain(&other, &key, &root);
    tokio::time::sleep(MINUTE).await;
    assert_eq!((issuer(&authority), missing()), (first, vec![]));
}

#[tokio::test(start_paused = true)]
async fn istios_cacerts_are_taken_and_an_own_root_gives_way_to_them_in_stages() {
    let cluster = Cluster::new();
    let a = cluster.replica("a");
    let own = roots(&*a.authority().await);
    a.leave().await;

    let theirs = Theirs::new(&cluster);
    let (cert, key) = theirs.intermediate();
    let chain = format!("{cert}{}", theirs.root());
    let files =
        [("ca-cert.pem", cert), ("ca-key.pem", key), ("cert-chain.pem", chain), ("root-cert.pem", theirs.root())];
    cluster.put_secret("cacerts", &files);
    let source = RootSource::Cacerts("cacerts".into());
    let b = cluster.start(ClusterSettings { source, ..cluster.settings("b") });
    let authority = b.authority().await;
    until("both are trusted", || roots(&authority) == [own[0].clone(), theirs.root()]).await;
    tokio::time::sleep(MINUTE * 25).await;
    assert_eq!((stage(&authority), roots(&authority)), ("stable", vec![theirs.root()]));
    let request = KeyRequest::generate(&cart()).unwrap();
    let issued = authority.issue(request.csr(), &cart(), None).unwrap();
    assert_eq!(issued.chain.len(), 2, "neither the CA certificate twice nor the root");
    b.leave().await;

    let c = cluster.replica("c");
    let authority = c.authority().await;
    until("an own root comes back in stages", || stage(&authority) == "publishing").await;
    assert_eq!(roots(&authority)[0], theirs.root());
}
