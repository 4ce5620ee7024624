//! Chromium by its DevTools protocol, over a pipe: real keys, and everything that it says on its console.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long anything of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab. Dropping it ends it.
pub struct Browser {
    _process: Child,
    _profile: tempfile::TempDir,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last: u64,
    tab: String,
    console: Vec<String>,
}

impl Browser {
    /// One with an empty tab of the size of a small screen.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken over descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"]);
        command.args(["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"]);
        command.args(["--disable-background-networking", "--force-color-profile=srgb"]);
        if nix::unistd::geteuid().is_root() {
            // Its own sandbox doesn't start as root; it only ever sees the page of this program.
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (to, from) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let (last, tab, console) = Default::default();
        let mut it = Self { _process: process, _profile: profile, to, from, last, tab, console };
        let target = it.call("Target.createTarget", json!({ "url": "about:blank" })).await["targetId"].clone();
        let attached = it.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await;
        it.tab = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            it.call(&format!("{domain}.enable"), json!({})).await;
        }
        let size = json!({ "width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        it.call("Emulation.setDeviceMetricsOverride", size).await;
        it
    }

    /// Calls a method, and notes what the page says meanwhile.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut call = json!({ "id": self.last, "method": method, "params": params });
        if !self.tab.is_empty() {
            call["sessionId"] = self.tab.clone().into();
        }
        self.to.write_all(format!("{call}\0").as_bytes()).await.unwrap();
        loop {
            let mut said = Vec::new();
            let read = tokio::time::timeout(PATIENCE, self.from.read_until(0, &mut said)).await;
            let read = read.unwrap_or_else(|_| panic!("no answer to {method}")).unwrap();
            assert!(read > 0, "Chromium has ended: tests/tools/install.sh pictures installs it");
            let said: Value = serde_json::from_slice(said.strip_suffix(b"\0").unwrap()).unwrap();
            match said["method"].as_str() {
                Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => {
                    self.console.push(said["params"].to_string());
                }
                Some(_) => {}
                None if said["id"] == self.last => {
                    assert!(said["error"].is_null(), "{method}: {said}");
                    return said["result"].clone();
                }
                None => {}
            }
        }
    }

    /// Opens an address, and waits until the page has an element.
    pub async fn open(&mut self, address: &str, element: &str) {
        // Another fragment alone would load nothing.
        self.call("Page.navigate", json!({ "url": "about:blank" })).await;
        self.call("Page.navigate", json!({ "url": address })).await;
        self.wait_for(element).await;
    }

    /// Waits until the page has an element.
    pub async fn wait_for(&mut self, element: &str) {
        let there = format!("document.querySelector({})", json!(element));
        let look =
            format!("new Promise((ok) => {{ const look = () => {there} ? ok(true) : setTimeout(look, 20); look(); }})");
        let params = json!({ "expression": look, "awaitPromise": true, "returnByValue": true });
        assert_eq!(self.call("Runtime.evaluate", params).await["result"]["value"], true, "{element}");
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    /// The texts, or an attribute, of all elements.
    pub async fn all(&mut self, elements: &str, attribute: &str) -> Vec<String> {
        let of = match attribute {
            "" => "it.textContent".to_owned(),
            name => format!("it.getAttribute({})", json!(name)),
        };
        let value = self.value(&format!("[...document.querySelectorAll({})].map((it) => {of})", json!(elements))).await;
        serde_json::from_value(value).unwrap()
    }

    /// Presses a key, as a hand does.
    pub async fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowRight" => 39,
            key => panic!("{key}: which code has it?"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Writes a picture of the tab.
    pub async fn picture(&mut self, file: &Path) {
        let data = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        std::fs::write(file, STANDARD.decode(data["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// What was said on the console so far, mistakes included.
    pub fn console(&self) -> &[String] {
        &self.console
    }
}
