//! What comes in and what goes out, without an agent. With one: `tests/agent.rs`.

use super::*;
use crate::agent::PodRef;

const RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"0a:58:0a:f4:01:02","sandbox":"/n","x":1.5}],
    "ips":[{"address":"10.244.1.2/24","gateway":"10.244.1.1","interface":0},{"address":"fd00::2/64"}],
    "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.96.0.10"]},"somethingNew":{"kept":[1,2,18446744073709551615]}}"#;

fn environment(command: &str) -> Environment {
    Environment {
        command: Some(command.into()),
        container_id: Some("c1".into()),
        netns: Some("/proc/thread-self/ns/net".into()),
        ifname: Some("eth0".into()),
        args: Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1;K8S_POD_UID=u-1".into()),
    }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self, more: Value) -> Vec<u8> {
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "weft-cni", "timeoutSeconds": 1,
            "agentSocket": path("agent.sock"), "enrolmentFile": path("enrolment.json"), "missedDir": path("missed"),
            "prevResult": serde_json::from_str::<Value>(RESULT).unwrap(),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config.to_string().into_bytes()
    }

    fn outside(&self, namespaces: &[&str]) {
        let file = EnrolmentFile::new(namespaces.iter().map(|n| (*n).into()));
        std::fs::write(self.dir.path().join("enrolment.json"), serde_json::to_vec(&file).unwrap()).unwrap();
    }

    fn notes(&self) -> Vec<Missed> {
        Missed::read_all(&self.dir.path().join("missed")).into_iter().map(|(_, note)| note.unwrap()).collect()
    }
}

async fn outcome(environment: &Environment, stdin: &[u8]) -> Outcome {
    run(environment, stdin, &mut std::io::sink()).await
}

/// The call fails with a CNI error; its code and text.
async fn error(environment: &Environment, stdin: &[u8]) -> (u64, String) {
    let outcome = outcome(environment, stdin).await;
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(error["cniVersion"].is_string(), "{error}");
    let text = format!("{} | {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
    (error["code"].as_u64().unwrap(), text)
}

#[tokio::test]
async fn versions() {
    for version in ["0.4.0", "1.0.0", "1.1.0", "9.9.9"] {
        let stdin = json!({ "cniVersion": version }).to_string();
        let outcome = outcome(&environment("VERSION"), stdin.as_bytes()).await;
        let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(outcome.status, 0);
        assert_eq!(answer["cniVersion"], *version);
        assert_eq!(answer["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
    assert_eq!(outcome(&environment("VERSION"), b"").await.status, 0, "asked without input");
}

#[tokio::test]
async fn what_makes_no_sense_is_an_error_that_says_what_to_fix() {
    let files = Files::new();
    let good = files.config(json!({}));
    let without = |change: fn(&mut Environment)| {
        let mut environment = environment("ADD");
        change(&mut environment);
        environment
    };
    let cases: Vec<(Environment, Vec<u8>, u64, &str)> = vec![
        (environment("ADD"), b"\x00\xff garbage".to_vec(), 6, "standard input"),
        (environment("ADD"), b"".to_vec(), 6, "standard input"),
        (environment("ADD"), b"[]".to_vec(), 6, "standard input"),
        (environment("ADD"), br#"{"cniVersion":7}"#.to_vec(), 6, "standard input"),
        (environment("ADD"), br#"{"name":"x"}"#.to_vec(), 1, "cniVersion 0.1.0"),
        (environment("ADD"), files.config(json!({"cniVersion": "2.0.0"})), 1, "1.1.0"),
        (environment("ADD"), files.config(json!({"prevResult": null})), 7, "prevResult"),
        (environment("ADD"), files.config(json!({"prevResult": 3})), 7, "prevResult"),
        (environment("CHECK"), files.config(json!({"prevResult": null})), 7, "prevResult"),
        (
            environment("ADD"),
            files.config(json!({"prevResult": {"ips": [{"address": "10.0.0.300/8"}]}})),
            7,
            "10.0.0.300",
        ),
        (environment("ADD"), files.config(json!({"prevResult": {"ips": [{}]}})), 7, "prevResult.ips"),
        (environment("FLY"), good.clone(), 4, "FLY"),
        (without(|e| e.command = None), good.clone(), 4, "CNI_COMMAND"),
        (without(|e| e.container_id = None), good.clone(), 4, "CNI_CONTAINERID"),
        (without(|e| e.container_id = Some("../../etc".into())), good.clone(), 4, "CNI_CONTAINERID"),
        (without(|e| e.netns = None), good.clone(), 4, "CNI_NETNS"),
        (without(|e| e.netns = Some("/nonexistent".into())), good.clone(), 4, "/nonexistent"),
        (without(|e| e.netns = Some("/etc/passwd".into())), good.clone(), 4, "not a namespace"),
        (without(|e| e.ifname = Some(String::new())), good.clone(), 4, "CNI_IFNAME"),
        (without(|e| e.ifname = Some("../x".into())), good.clone(), 4, "CNI_IFNAME"),
        (without(|e| e.args = Some("K8S_POD_NAME".into())), good.clone(), 4, "CNI_ARGS"),
        (environment("GC"), good.clone(), 7, "cni.dev/valid-attachments"),
        (environment("STATUS"), good.clone(), 50, "agent"),
    ];
    for (environment, stdin, code, text) in cases {
        let got = error(&environment, &stdin).await;
        assert!(
            got.0 == code && got.1.contains(text),
            "{environment:?} {:?}: {got:?}",
            String::from_utf8_lossy(&stdin)
        );
    }
}

#[tokio::test]
async fn del_never_fails() {
    let files = Files::new();
    for stdin in [b"garbage".to_vec(), b"".to_vec(), files.config(json!({})), files.config(json!({"prevResult": null}))]
    {
        for environment in [environment("DEL"), Environment { command: Some("DEL".into()), ..Environment::default() }] {
            assert_eq!(outcome(&environment, &stdin).await, Outcome { stdout: String::new(), status: 0 });
        }
    }
}

#[tokio::test]
async fn without_an_agent_only_what_is_known_to_be_outside_passes() {
    let files = Files::new();
    let config = files.config(json!({}));
    let (code, text) = error(&environment("ADD"), &config).await;
    assert!(code == 11 && text.contains("shop/cart-1") && text.contains("enrolment.json"), "no file: {code} {text}");

    files.outside(&["kube-system"]);
    let (code, text) = error(&environment("ADD"), &config).await;
    assert!(code == 11 && text.contains("namespace shop may have pods in the mesh"), "{code} {text}");
    assert!(files.notes().is_empty());
    assert_eq!(error(&environment("CHECK"), &config).await.0, 11);
    assert_eq!(outcome(&environment("STATUS"), &config).await.status, 0, "pods outside can be added");

    files.outside(&["shop"]);
    let passed = outcome(&environment("ADD"), &config).await;
    assert_eq!(passed.status, 0, "{passed:?}");
    let result: Value = serde_json::from_str(&passed.stdout).unwrap();
    assert_eq!(result, serde_json::from_str::<Value>(RESULT).unwrap(), "every field is passed on");
    let [note] = files.notes().try_into().unwrap();
    assert_eq!(note.pod, PodRef { namespace: "shop".into(), name: "cart-1".into(), uid: Some("u-1".into()) });
    assert_eq!(note.ips.len(), 2);
    assert_eq!(outcome(&environment("DEL"), &config).await.status, 0);
    assert!(files.notes().is_empty(), "a pod that is gone needs no note");

    std::fs::write(files.dir.path().join("enrolment.json"), br#"{"version":2,"namespacesOutside":["shop"]}"#).unwrap();
    assert_eq!(error(&environment("ADD"), &config).await.0, 11, "a file of another version says nothing");
}

#[tokio::test]
async fn after_a_reboot_the_meshs_own_pods_start_without_agent_and_file() {
    let files = Files::new();
    let own = environment("ADD");
    let other =
        Environment { args: Some("K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns".into()), ..environment("ADD") };
    let config = files.config(json!({ "meshNamespace": "shop" }));
    assert_eq!(outcome(&own, &config).await.status, 0);
    assert_eq!(files.notes().len(), 1, "the agent takes it over");
    assert_eq!(error(&other, &config).await.0, 11, "any other waits");
    assert_eq!(outcome(&environment("STATUS"), &config).await.status, 0, "or the proxy's pod would never come");
    let (code, _) = error(&own, &files.config(json!({ "meshNamespace": "shop-2" }))).await;
    assert_eq!(code, 11, "only that namespace");
}

#[tokio::test]
async fn a_runtime_without_kubernetes_names_the_container() {
    let files = Files::new();
    let environment = Environment { args: None, ..environment("ADD") };
    files.outside(&["default"]);
    assert_eq!(outcome(&environment, &files.config(json!({}))).await.status, 0);
    let [note] = files.notes().try_into().unwrap();
    assert_eq!(note.pod, PodRef { namespace: "default".into(), name: "c1".into(), uid: None });
}

#[tokio::test]
async fn an_agent_that_hangs_is_no_agent() {
    let files = Files::new();
    let _silent = weft_sys::SeqPacketListener::bind(&files.dir.path().join("agent.sock"), 0o600).unwrap();
    let (code, text) = error(&environment("CHECK"), &files.config(json!({}))).await;
    assert!(code == 11 && text.contains("no answer in 1s"), "{code} {text}");
}

#[tokio::test]
async fn a_result_without_a_version_gets_one() {
    let files = Files::new();
    files.outside(&["shop"]);
    let config = files
        .config(json!({"cniVersion": "0.3.1", "prevResult": {"ips": [{"version": "4", "address": "10.0.0.2/8"}]}}));
    let passed = outcome(&environment("ADD"), &config).await;
    let result: Value = serde_json::from_str(&passed.stdout).unwrap();
    assert_eq!(result, json!({"ips": [{"version": "4", "address": "10.0.0.2/8"}], "cniVersion": "0.3.1"}));
}
