//! Trees of files that look like `/proc` and `/run/netns`. A namespace is a file; another name of it is a hard link.

use super::*;

const A: &str = "7c1f0d7e-3f0b-4c55-9a44-2b9a6d1e0f01";
const B: &str = "11111111-2222-3333-4444-555555555555";
const STATIC: &str = "0123456789abcdef0123456789abcdef";
const C1: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const C2: &str = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2";

#[test]
fn cgroups_of_all_runtimes() {
    let a_ = A.replace('-', "_");
    let cases = [
        (
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{a_}.slice/cri-containerd-{C1}.scope"
            ),
            A,
            true,
        ),
        (format!("0::/kubepods.slice/kubepods-pod{a_}.slice/crio-{C1}.scope/container"), A, true),
        (format!("0::/kubepods/besteffort/pod{A}/{C1}"), A, true),
        (format!("0::/kubepods/pod{A}"), A, false),
        (format!("0::/../../kubepods-besteffort-pod{a_}.slice/cri-containerd-{C1}.scope"), A, true),
        (
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{a_}.slice/cri-containerd-{C1}.scope/init"
            ),
            A,
            true,
        ),
        (format!("12:memory:/kubepods/burstable/pod{A}/{C1}\n11:cpu:/\n0::/"), A, true),
        (
            format!(
                "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-pod{a_}.slice:cri-containerd:{C1}"
            ),
            A,
            true,
        ),
        (format!("0::/kubepods/burstable/pod{STATIC}/{C1}"), STATIC, true),
        // A node of a cluster that itself is a pod: the outermost counts.
        (
            format!(
                "0::/kubepods/pod{A}/{C1}/kubelet.slice/kubepods-pod{}.slice/cri-containerd-{C2}.scope",
                B.replace('-', "_")
            ),
            A,
            true,
        ),
    ];
    for (text, pod, container) in cases {
        let owner = owner(&text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(owner.pod.as_str(), pod, "{text}");
        assert_eq!(owner.container.as_deref(), container.then_some(C1), "{text}");
    }
    let nobodys = [
        "",
        "0::/",
        "0::/system.slice/podman.service",
        "0::/user.slice",
        "0::/machine.slice/pod-x.slice",
        "nonsense",
        "0::/kubepods/pod1234/5678",
        "0::/kubepods/podzzzzzzzz-2222-3333-4444-555555555555",
    ];
    for text in nobodys {
        assert_eq!(owner(text), None, "{text}");
    }
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for dir in ["proc", "proc/self", "netns", "ns"] {
            std::fs::create_dir(tree.path(dir)).unwrap();
        }
        std::fs::write(tree.path("proc/uptime"), "1").unwrap();
        tree.namespace("host");
        tree
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn namespace(&self, name: &str) -> NetnsId {
        let file = self.path("ns").join(name);
        if !file.exists() {
            std::fs::write(&file, name).unwrap();
        }
        id(&file).unwrap()
    }

    fn process(&self, number: u32, started: u64, cgroup: &str, netns: &str) {
        let dir = self.path("proc").join(number.to_string());
        std::fs::create_dir_all(dir.join("ns")).unwrap();
        std::fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let name = if number.is_multiple_of(2) { "(pause)" } else { "((odd) name ) 9 ()" };
        std::fs::write(dir.join("stat"), format!("{number} {name} S 1{}{started} 0 0\n", " 7".repeat(17) + " "))
            .unwrap();
        self.namespace(netns);
        std::fs::hard_link(self.path("ns").join(netns), dir.join("ns/net")).unwrap();
    }

    fn file(&self, netns: &str, name: &str) {
        self.namespace(netns);
        std::fs::hard_link(self.path("ns").join(netns), self.path("netns").join(name)).unwrap();
    }

    fn find(&self, wanted: &[&str]) -> BTreeMap<PodUid, Found> {
        let places = Places {
            proc: self.path("proc"),
            netns_dirs: vec![self.path("absent"), self.path("netns")],
            home: self.namespace("host"),
        };
        find(&places, &wanted.iter().map(PodUid::new).collect()).unwrap()
    }
}

#[test]
fn the_oldest_process_with_a_network_of_its_own_tells() {
    let tree = Tree::new();
    let pod = |id: &str| format!("/kubepods/burstable/pod{A}/{id}");
    // The monitor of a runtime, older than the sandbox, in the node's network; pause; an app with a namespace inside.
    tree.process(10, 50, &pod(C2), "host");
    tree.process(12, 100, &pod(C1), "a");
    tree.process(13, 200, &pod(C2), "inner");
    tree.process(14, 90, &format!("/kubepods/pod{B}/{C2}"), "host");
    tree.process(15, 5, "/system.slice/other.service", "x");
    tree.file("other", "cni-1");
    let found = tree.find(&[A, B]);
    assert_eq!(found.len(), 1, "a pod on the node's network has none: {found:?}");
    let a = &found[&PodUid::new(A)];
    assert_eq!(*a, Found { path: tree.path("proc/12/ns/net"), netns: tree.namespace("a"), container: Some(C1.into()) });

    tree.file("a", "cni-2");
    assert_eq!(tree.find(&[A])[&PodUid::new(A)].path, tree.path("netns/cni-2"), "the runtime's file is preferred");
    assert!(tree.find(&[STATIC]).is_empty(), "nobody asked");
}

#[test]
fn processes_that_end_meanwhile_are_passed_over() {
    let tree = Tree::new();
    let pod = format!("/kubepods/burstable/pod{A}/{C1}");
    for (number, gone) in [(20, "cgroup"), (22, "stat"), (24, "ns/net")] {
        tree.process(number, 1, &pod, "a");
        std::fs::remove_file(tree.path(format!("proc/{number}/{gone}"))).unwrap();
    }
    assert!(tree.find(&[A]).is_empty());
    tree.process(26, 300, &pod, "a");
    assert_eq!(tree.find(&[A]).len(), 1);
}
