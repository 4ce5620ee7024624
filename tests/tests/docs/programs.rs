//! What the programs say of their options.

use std::fmt::Write as _;
use std::process::Command;

use weft_tests::Programs;

use crate::cell;

/// The programs whose options are settings, with what they are for.
const PROGRAMS: [(&[&str], &str); 7] = [
    (
        &["weft-node-proxy"],
        "The proxy of a node. The chart adds `nodeProxy.extraArgs`; without Kubernetes they stand behind `--` of `weft standalone`.",
    ),
    (&["weft-node-proxy", "gateway"], "The proxy of a Gateway. The chart adds `gateways.extraArgs`."),
    (&["weft-controller"], "The control plane in Kubernetes. The chart adds `controller.extraArgs`."),
    (&["weft-ca", "serve"], "The certificate authority. The chart adds `ca.extraArgs`."),
    (&["weft-agent", "run"], "The agent of a node in Kubernetes. The chart adds `agent.extraArgs`."),
    (&["weft-agent", "uninstall"], "What `helm uninstall` runs first."),
    (&["weft", "standalone"], "A node without Kubernetes."),
];
/// What every program has, and which says nothing of how it is set up.
const USUAL: [&str; 2] = ["--help", "--version"];

/// An option as `--help` tells it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    option: String,
    meaning: String,
    default: String,
    variable: String,
}

/// Takes `[key: VALUE]` out of a text.
fn taken(text: &mut String, key: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("[{key}: ")) else { return String::new() };
    // Addresses have brackets of their own: the end is the bracket that nothing but another note follows.
    let end = rest.match_indices(']').map(|(at, _)| at).find(|at| {
        let after = rest[at + 1..].trim_start();
        after.is_empty() || after.starts_with("[default:") || after.starts_with("[env:")
    });
    let end = end.unwrap_or_else(|| panic!("no end of [{key}: in {rest:?}"));
    let value = rest[..end].to_owned();
    *text = format!("{}{}", before, &rest[end + 1..]).trim().to_owned();
    value
}

/// The settings in what a program prints for `--help`. Options of the section `Cluster` are of the person who types.
fn settings(help: &str) -> Vec<Setting> {
    let mut raw: Vec<(String, String)> = Vec::new();
    let mut is_open = false;
    for line in help.lines() {
        let bare = line.trim_start();
        let depth = line.len() - bare.len();
        if bare.is_empty() {
            continue;
        }
        if depth == 0 {
            is_open = line == "Options:";
        } else if is_open && depth < 8 && bare.starts_with('-') {
            let (option, text) = bare.split_once("  ").unwrap_or((bare, ""));
            raw.push((option.to_owned(), text.trim().to_owned()));
        } else if is_open {
            let (_, text) = raw.last_mut().expect("text below an option");
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}{bare}").unwrap();
        }
    }
    raw.into_iter()
        .filter(|(option, _)| !USUAL.iter().any(|usual| option.ends_with(usual)))
        .map(|(option, mut meaning)| {
            let default = taken(&mut meaning, "default");
            let variable = taken(&mut meaning, "env").trim_end_matches('=').to_owned();
            Setting { option, meaning, default, variable }
        })
        .collect()
}

/// A section for each program.
pub fn options(page: &mut String) {
    let folder = Programs::find().unwrap().directory().to_owned();
    for (words, what) in PROGRAMS {
        let name = words.join(" ");
        let mut command = Command::new(folder.join(words[0]));
        // Without the environment: it would be told as what is set.
        let output = command.args(&words[1..]).arg("--help").env_clear().output().expect(&name);
        assert!(output.status.success(), "{name} --help: {}", String::from_utf8_lossy(&output.stderr));
        let settings = settings(&String::from_utf8_lossy(&output.stdout));
        assert!(settings.len() >= 3, "{name}: {settings:?}");
        write!(page, "\n## {name}\n\n{what}\n\n| option | default | environment | meaning |\n|---|---|---|---|\n")
            .unwrap();
        for Setting { option, meaning, default, variable } in settings {
            let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{}`", cell(text)) };
            writeln!(page, "| `{option}` | {} | {} | {} |", code(&default), code(&variable), cell(&meaning)).unwrap();
        }
    }
}

#[test]
fn help_is_read_whole() {
    let help = "A program\n\nUsage: a\n\nOptions:\n      --listen <LISTEN>\n          Where to listen\n\n          [env: A_LISTEN=] [default:\n          \
                [::]:15010]\n  -n, --name <NAME>  The name [default: a]\n  -h, --help         Print help\n\nCluster:\n      --context <NAME>  \
                Which\n";
    let setting = |option: &str, meaning: &str, default: &str, variable: &str| Setting {
        option: option.to_owned(),
        meaning: meaning.to_owned(),
        default: default.to_owned(),
        variable: variable.to_owned(),
    };
    let expected = [
        setting("--listen <LISTEN>", "Where to listen", "[::]:15010", "A_LISTEN"),
        setting("-n, --name <NAME>", "The name", "a", ""),
    ];
    assert_eq!(settings(help), expected);
}
