//! The packages of a release hold what they name, and the workflow that makes them names what exists.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use replicator::Cli;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::kit::*;

const WORKFLOW: &str = ".github/workflows/release.yml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The section of Cargo.toml's `package.metadata` for one kind of package.
fn metadata(kind: &str) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    all["packages"][0]["metadata"][kind].clone()
}

/// Where the packages of a kind take each file from, and where they put it.
fn assets(kind: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").trim_start_matches('/').to_owned();
    let metadata = metadata(kind);
    let assets = metadata["assets"].as_array().expect("assets");
    match kind {
        "deb" => assets.iter().map(|asset| (text(&asset[0]), text(&asset[1]))).collect(),
        _ => assets.iter().map(|asset| (text(&asset["source"]), text(&asset["dest"]))).collect(),
    }
}

/// The files that a source with at most one `*` in its name means.
fn matching(source: &Path) -> Vec<PathBuf> {
    let name = source.file_name().and_then(|name| name.to_str()).expect("a name");
    let Some((before, after)) = name.split_once('*') else {
        return Some(source.to_owned()).filter(|path| path.is_file()).into_iter().collect();
    };
    let folder = std::fs::read_dir(source.parent().expect("a folder")).expect("read");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.starts_with(before) && name.ends_with(after)
    };
    paths.filter(is_meant).collect()
}

#[test]
fn each_package_finds_what_it_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(root().join("packaging/build"))
        .args(["assets", env!("CARGO_BIN_EXE_replicator")])
        .env("ASSETS", dir.path())
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));

    let mut commands: BTreeSet<String> = Cli::command()
        .get_subcommands()
        .map(|command| format!("usr/share/man/man1/replicator-{}.1", command.get_name()))
        .collect();
    assert!(commands.len() > 8, "{commands:?}");
    commands.insert("usr/share/man/man1/replicator.1".to_owned());
    for kind in ["deb", "generate-rpm"] {
        let mut installed = BTreeSet::new();
        for (source, dest) in assets(kind) {
            let made = source.strip_prefix("target/assets/").map(|name| dir.path().join(name));
            let found = matching(&made.unwrap_or_else(|| root().join(&source)));
            assert!(!found.is_empty(), "{kind}: there is no {source}");
            for file in found {
                assert!(file.metadata().expect("a file").len() > 0, "{kind}: {} is empty", file.display());
                let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
                installed.insert(if dest.ends_with('/') { format!("{dest}{name}") } else { dest.clone() });
            }
        }
        for file in ["usr/bin/replicator", "usr/share/bash-completion/completions/replicator"] {
            assert!(installed.contains(file), "{kind}: {installed:?}");
        }
        let pages = installed.iter().filter(|file| file.starts_with("usr/share/man/"));
        assert_eq!(pages.cloned().collect::<BTreeSet<_>>(), commands, "{kind}");
    }
    let unit = std::fs::read_to_string(dir.path().join("replicator-follow.service")).expect("read");
    assert!(unit.contains("ExecStart=/usr/bin/replicator ") && !unit.contains("/usr/local"), "{unit}");
}

/// The text of each key of this name, wherever it stands.
fn texts<'y>(yaml: &'y Yaml, key: &str, found: &mut Vec<&'y str>) {
    match yaml {
        Yaml::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        Yaml::Hash(entries) => {
            for (name, value) in entries {
                match value.as_str().filter(|_| name.as_str() == Some(key)) {
                    Some(text) => found.push(text),
                    None => texts(value, key, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_release_workflow_names_what_exists() {
    let text = std::fs::read_to_string(root().join(WORKFLOW)).expect("read");
    let workflow = YamlLoader::load_from_str(&text).expect("YAML").remove(0);
    let (mut actions, mut scripts) = (Vec::new(), Vec::new());
    texts(&workflow, "uses", &mut actions);
    texts(&workflow, "run", &mut scripts);
    assert!(actions.len() > 4 && scripts.len() > 4, "{actions:?} {scripts:?}");
    for action in actions {
        let (_, commit) = action.split_once('@').expect("a version");
        let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
        assert!(
            is_commit && text.contains(&format!("{action} # v")),
            "{action}: pin it, and say its version"
        );
    }
    for script in &scripts {
        let check = Command::new("bash").args(["-n", "-c", script]).output().expect("bash");
        assert!(check.status.success(), "{script}: {}", stderr(&check));
    }
    // What it runs or reads here is there.
    let words = scripts.iter().flat_map(|script| script.split_whitespace());
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("packaging/")).collect();
    assert!(named.len() > 3, "{named:?}");
    for name in named {
        let file = root().join(name).metadata().unwrap_or_else(|err| panic!("{name}: {err}"));
        let is_program = file.permissions().mode() & 0o111 != 0;
        assert_eq!(is_program, name != "packaging/Dockerfile", "{name}");
    }
    // A job that publishes says so itself.
    assert_eq!(workflow["permissions"]["contents"].as_str(), Some("read"));
    for job in ["packages", "release"] {
        assert!(!workflow["jobs"][job].is_badvalue(), "{job}");
    }
}

/// `cargo binstall` finds an archive only by the name that `packaging/build` gives it.
#[test]
fn binstall_looks_for_the_archive_that_is_built() {
    let build = std::fs::read_to_string(root().join("packaging/build")).expect("read");
    assert!(build.contains("name=\"replicator-$version-$target\"") && build.contains("$name.tar.gz"));
    let metadata = metadata("binstall");
    let url = |of: &Value| of["pkg-url"].as_str().expect("a URL").to_owned();
    let archive = "/v{ version }/replicator-{ version }-{ target }.tar.gz";
    assert!(url(&metadata).ends_with(archive), "{metadata}");
    for (target, of) in metadata["overrides"].as_object().expect("overrides") {
        let target = target.replace("musl", "gnu");
        assert!(url(of).ends_with(&archive.replace("{ target }", &target)), "{target}: {of}");
    }
}
