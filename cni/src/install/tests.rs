//! On directories as primary plugins leave them.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const CHAIN: &str =
    r#"{"cniVersion":"0.3.1","name":"kindnet","plugins":[{"type":"ptp","mtu":1500},{"type":"portmap"}],"x":1}"#;
const SINGLE: &str = r#"{"cniVersion":"0.4.0","name":"br","type":"bridge","bridge":"cni0"}"#;

fn settings() -> Settings {
    Map::from_iter([("timeoutSeconds".to_owned(), 20.into())])
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn appended_to_the_first_chain_and_taken_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("10-kindnet.conflist"), dir.path().join("20-other.conflist"));
    std::fs::write(&first, CHAIN).unwrap();
    std::fs::write(&second, CHAIN).unwrap();
    std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o600)).unwrap();

    assert_eq!(install(dir.path(), &settings()).unwrap(), Installed { file: first.clone(), changed: true });
    let chain = json(&first);
    assert_eq!(chain["plugins"][2], json!({"type": "weft-cni", "timeoutSeconds": 20}));
    assert_eq!((&chain["x"], &chain["plugins"][0]["mtu"]), (&json!(1), &json!(1500)));
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600, "the mode stays");
    assert_eq!(json(&second), serde_json::from_str::<Value>(CHAIN).unwrap());

    let before = std::fs::metadata(&first).unwrap().modified().unwrap();
    assert!(!install(dir.path(), &settings()).unwrap().changed);
    assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), before, "again: not even written");
    install(dir.path(), &Settings::new()).unwrap();
    assert_eq!(json(&first)["plugins"].as_array().unwrap().len(), 3, "an entry with other settings is replaced");

    uninstall(dir.path()).unwrap();
    uninstall(dir.path()).unwrap();
    assert_eq!(json(&first), serde_json::from_str::<Value>(CHAIN).unwrap());
    assert_eq!(names(dir.path()), ["10-kindnet.conflist", "20-other.conflist"]);
}

#[test]
fn a_single_plugin_becomes_a_chain_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("10-br.conf"), SINGLE).unwrap();
    let file = install(dir.path(), &settings()).unwrap().file;
    assert_eq!(file, dir.path().join("10-br.conflist"));
    let chain = json(&file);
    assert_eq!((&chain["cniVersion"], &chain["name"]), (&json!("0.4.0"), &json!("br")));
    assert_eq!((&chain["plugins"][0]["bridge"], &chain["plugins"][1]["type"]), (&json!("cni0"), &json!("weft-cni")));
    assert_eq!(names(dir.path()), ["10-br.conf.before-weft", "10-br.conflist"], "the runtime sees one network");
    install(dir.path(), &settings()).unwrap();
    uninstall(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["10-br.conf"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("10-br.conf")).unwrap(), SINGLE);
}

#[test]
fn nothing_there_and_nonsense_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(install(dir.path(), &settings()), Err(InstallError::NoNetwork(_))));
    for text in ["{", "[]", r#"{"name":"x"}"#, r#"{"plugins":{}}"#] {
        let file = dir.path().join("10-x.conflist");
        std::fs::write(&file, text).unwrap();
        let error = install(dir.path(), &settings()).unwrap_err();
        assert!(
            matches!(error, InstallError::Malformed { .. }) && error.to_string().contains("10-x.conflist"),
            "{error}"
        );
        uninstall(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn the_binary_is_replaced_while_it_may_run() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("new");
    std::fs::write(&binary, "v1").unwrap();
    let target = install_binary(&binary, dir.path()).unwrap().file;
    assert!(!install_binary(&binary, dir.path()).unwrap().changed);
    let old = std::fs::File::open(&target).unwrap();
    std::fs::write(&binary, "v2").unwrap();
    install_binary(&binary, dir.path()).unwrap();
    assert_eq!(std::io::read_to_string(old).unwrap(), "v1", "who runs the old one keeps it");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "v2");
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
    remove_binary(dir.path()).unwrap();
    remove_binary(dir.path()).unwrap();
    assert!(!target.exists());
}
