//! Files come, change, break and go.

use super::*;
use crate::index::{Index, IndexConfig};
use crate::object::Kind;

struct Dir {
    root: tempfile::TempDir,
    source: DirSource,
}

const NS: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}], clusterIP: 10.96.0.1}}\n"
    )
}

fn options(root: &Path) -> DirOptions {
    DirOptions { settle: Duration::ZERO, ..DirOptions::new(root.join("m"), root.join("state.json")) }
}

impl Dir {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("m")).unwrap();
        let source = DirSource::new(options(root.path()));
        Self { root, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.source.objects().map(|l| l.object.reference().to_string()).collect()
    }
}

fn svc(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Service, "shop", name)
}

#[test]
fn files_come_change_and_go() {
    let mut dir = Dir::new();
    dir.write("a.yaml", NS);
    dir.write("deep/er/b.yml", &service("cart", 80));
    dir.write("notes.txt", "no manifest");
    dir.write(".hidden.yaml", &service("hidden", 80));
    let scan = dir.source.scan();
    assert_eq!(scan.findings, []);
    assert_eq!(dir.names(), ["Namespace shop", "Service shop/cart"]);
    assert_eq!(scan.applied.len(), 2);
    assert!(dir.source.scan().applied.is_empty(), "nothing changed");
    dir.write("deep/er/b.yml", &service("cart", 8080));
    let scan = dir.source.scan();
    assert_eq!(scan.applied.len(), 1);
    assert_eq!(scan.applied[0].generation(), 2);
    std::fs::remove_file(dir.path("deep/er/b.yml")).unwrap();
    assert_eq!(dir.source.scan().deleted, [svc("cart")]);
}

#[test]
fn a_broken_file_keeps_its_objects_and_a_bad_object_only_itself() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &format!("{}---\n{}", service("cart", 80), service("web", 80)));
    dir.source.scan();
    dir.write("a.yaml", &format!("{}---\nspec: {{ports: [", service("cart", 80)));
    let scan = dir.source.scan();
    assert!(scan.deleted.is_empty() && scan.applied.is_empty());
    assert_eq!(scan.findings.len(), 1, "{:?}", scan.findings);
    assert!(scan.findings[0].message.contains("not valid YAML"));
    // It stays so however often it is looked at, and the finding stays too.
    assert_eq!(dir.source.scan().findings.len(), 1);
    dir.write("a.yaml", &format!("{}---\n{}", service("cart", 81), service("web", 80).replace("ports", "prots")));
    let scan = dir.source.scan();
    assert_eq!(scan.applied.len(), 1, "cart has its new port, web its old");
    assert!(scan.deleted.is_empty());
    assert!(scan.findings.iter().any(|f| f.remedy.contains("ports")), "{:?}", scan.findings);
    dir.write("a.yaml", &service("cart", 81));
    assert_eq!(dir.source.scan().deleted, [svc("web")]);
}

#[test]
fn a_file_that_is_being_written_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("m")).unwrap();
    let mut source = DirSource::new(DirOptions { settle: Duration::from_secs(3600), ..options(root.path()) });
    let path = root.path().join("m/a.yaml");
    std::fs::write(&path, service("cart", 80)).unwrap();
    let scan = source.scan();
    assert!(scan.unsettled && scan.applied.is_empty());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let scan = source.scan();
    assert!(!scan.unsettled);
    assert_eq!(scan.applied.len(), 1);
}

#[test]
fn a_mounted_config_map_changes_by_its_link() {
    let mut dir = Dir::new();
    dir.write("..1/a.yaml", &service("cart", 80));
    dir.write("..2/a.yaml", &service("cart", 81));
    std::os::unix::fs::symlink("..1", dir.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", dir.path("a.yaml")).unwrap();
    dir.source.scan();
    assert_eq!(dir.names(), ["Service shop/cart"]);
    std::os::unix::fs::symlink("..2", dir.path("..next")).unwrap();
    std::fs::rename(dir.path("..next"), dir.path("..data")).unwrap();
    let scan = dir.source.scan();
    assert_eq!(scan.applied.len(), 1);
    assert!(scan.deleted.is_empty());
}

#[test]
fn links_in_a_circle_end() {
    let mut dir = Dir::new();
    dir.write("sub/a.yaml", NS);
    std::os::unix::fs::symlink("..", dir.path("sub/loop")).unwrap();
    assert_eq!(dir.source.scan().applied.len(), 1);
}

#[test]
fn a_directory_that_is_gone_takes_nothing_away() {
    let mut dir = Dir::new();
    dir.write("a.yaml", NS);
    dir.source.scan();
    std::fs::rename(dir.path(""), dir.root.path().join("away")).unwrap();
    let scan = dir.source.scan();
    assert!(scan.deleted.is_empty());
    assert_eq!(scan.findings.len(), 1);
}

#[test]
fn uid_time_and_generation_survive_a_restart() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &service("cart", 80));
    dir.source.scan();
    dir.write("a.yaml", &service("cart", 81));
    let before = dir.source.scan().applied[0].clone();
    let mut again = DirSource::new(options(dir.root.path()));
    assert_eq!(again.scan().applied.as_slice(), std::slice::from_ref(&before));
    assert_eq!(before.generation(), 2);
    // Once it was gone, it is another object.
    std::fs::remove_file(dir.path("a.yaml")).unwrap();
    again.scan();
    dir.write("a.yaml", &service("cart", 81));
    assert_eq!(again.scan().applied[0].generation(), 1);
}

#[test]
fn what_the_manifest_says_of_its_time_counts() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &NS.replace("name: shop", "name: shop, creationTimestamp: '2020-01-02T03:04:05Z'"));
    let object = dir.source.scan().applied[0].clone();
    assert_eq!(crate::object::created_seconds(object.meta()), 1_577_934_245);
}

#[test]
fn the_same_object_in_two_files_is_said_and_the_first_counts() {
    let mut dir = Dir::new();
    dir.write("a.yaml", &service("cart", 80));
    dir.write("b.yaml", &service("cart", 81));
    let scan = dir.source.scan();
    assert_eq!(scan.applied.len(), 1);
    assert_eq!(&*scan.findings[0].file, "b.yaml");
    assert!(scan.findings[0].message.contains("already defined in a.yaml at line 1"), "{}", scan.findings[0]);
    // It moves on to the second file without having been away.
    std::fs::remove_file(dir.path("a.yaml")).unwrap();
    let scan = dir.source.scan();
    assert_eq!((scan.applied.len(), scan.deleted.len()), (1, 0));
}

#[test]
fn statuses_are_written_and_their_times_kept() {
    let mut dir = Dir::new();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n\
                 spec: {parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [{name: nobody, port: 80}]}]}\n";
    dir.write("a.yaml", &service("cart", 80));
    dir.write("r.yaml", route);
    let mut index = Index::new(IndexConfig::default());
    dir.source.scan().applied.into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    let file = dir.path(".weft/status/httproute.shop.r.yaml");
    let condition = |kind: &str| -> serde_json::Value {
        let value: serde_json::Value = serde_norway::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let all = value["status"]["parents"][0]["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|c| c["type"] == kind).unwrap()
    };
    let statuses = dir.source.statuses.as_mut().unwrap();
    statuses.write(&out.statuses[0], "2026-01-01T00:00:00Z").unwrap();
    assert_eq!(condition("ResolvedRefs")["reason"], "BackendNotFound");
    assert_eq!(condition("ResolvedRefs")["observedGeneration"], 1);
    dir.write("r.yaml", &route.replace("name: nobody", "name: cart"));
    dir.source.scan().applied.into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    dir.source.statuses.as_mut().unwrap().write(&out.statuses[0], "2026-02-02T00:00:00Z").unwrap();
    assert_eq!(condition("Accepted")["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition("ResolvedRefs")["lastTransitionTime"], "2026-02-02T00:00:00Z");
    assert_eq!(condition("ResolvedRefs")["observedGeneration"], 2);
    std::fs::remove_file(dir.path("r.yaml")).unwrap();
    dir.source.scan();
    assert!(!file.exists());
}

#[tokio::test]
async fn a_change_is_noticed_and_our_own_writing_is_not() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("m")).unwrap();
    let options = DirOptions { poll: Duration::from_secs(3600), ..options(root.path()) };
    let mut source = DirSource::new(options);
    source.scan();
    std::fs::write(root.path().join("m/a.yaml"), NS).unwrap();
    tokio::time::timeout(Duration::from_secs(20), source.changed()).await.unwrap();
    assert_eq!(source.scan().applied.len(), 1);
    while tokio::time::timeout(Duration::from_millis(200), source.changed()).await.is_ok() {}
    let status = StatusUpdate {
        object: ObjectRef::new(Kind::HttpRoute, "shop", "r"),
        generation: 1,
        status: crate::object::ObjectStatus::Parents(Vec::new()),
    };
    source.write_statuses(&[status]);
    source.scan();
    assert!(tokio::time::timeout(Duration::from_millis(300), source.changed()).await.is_err());
}
