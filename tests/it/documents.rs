//! The documents agree with the program and with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use replicator::{Cli, Error, Interrupt};

use crate::console::blocks;

const REASONS: &str = include_str!("../../docs/reasons.md");
const ERRORS: &str = include_str!("../../src/base/error.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn below(folder: &Path, ends_with: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| if path.is_dir() { below(&path, ends_with) } else { vec![path] };
    entries.flat_map(of).filter(|path| path.to_string_lossy().ends_with(ends_with)).collect()
}

/// Every document of the project, by its path from the root.
fn documents() -> BTreeMap<String, String> {
    let at_root = fs::read_dir(root()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let documents = at_root.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, fs::read_to_string(&path).expect("text"))
    };
    documents.chain(below(&root().join("docs"), ".md")).map(read).collect()
}

/// The text without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// The commands of a document's blocks, each on one line.
fn commands(text: &str) -> Vec<String> {
    let lines = blocks(text, "sh").into_iter().map(str::to_owned);
    let typed =
        blocks(text, "console").into_iter().filter_map(|line| line.strip_prefix("$ ").map(str::to_owned));
    let joined = lines.chain(typed).collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    joined.lines().map(|line| line.trim().trim_end_matches(" &").to_owned()).collect()
}

/// The arguments that a shell gives to the program. The output goes nowhere else.
fn arguments(command: &str) -> Vec<String> {
    let command =
        [" > ", " | "].iter().fold(command, |command, to| command.split(to).next().unwrap_or(command));
    let script = format!("replicator() {{ printf '%s\\n' replicator \"$@\"; }}; {command}");
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn every_command_is_one_of_the_program() {
    let mut found = 0;
    for (name, text) in documents() {
        for command in commands(&text) {
            let command = command.replace("cargo run --release -- ", "replicator ");
            if !command.starts_with("replicator ") {
                continue;
            }
            let parsed = Cli::read(arguments(&command).into_iter().map(OsString::from));
            let job = parsed.map_err(|e| e.to_string()).and_then(|cli| match &cli.command {
                None => cli.fill.job(&Interrupt::default()).map(drop).map_err(|e| e.to_string()),
                Some(replicator::Command::Fill(fill)) => {
                    fill.job(&Interrupt::default()).map(drop).map_err(|e| e.to_string())
                }
                Some(_) => Ok(()),
            });
            assert_eq!(job, Ok(()), "{name}: {command}");
            found += 1;
        }
    }
    assert!(found > 30, "the documents have commands");
}

#[test]
fn every_service_is_one_of_the_compose_file() {
    let compose = fs::read_to_string(root().join("docker-compose.yml")).expect("text");
    let mut found = 0;
    for (name, text) in documents() {
        for call in text.split("docker compose ").skip(1) {
            let call = call.split(['`', '\n', '#', ',']).next().expect("a call");
            let words: Vec<&str> = call.split_whitespace().collect();
            if !words.iter().any(|word| ["up", "run"].contains(word)) {
                continue;
            }
            let service =
                words.iter().rev().take_while(|w| !w.starts_with("--") && !["up", "run"].contains(w));
            for service in service {
                assert!(compose.contains(&format!("\n  {service}:\n")), "{name}: docker compose {call}");
                found += 1;
            }
        }
    }
    assert!(found > 3, "the documents have services");
}

/// The name that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let all = documents();
    let anchors = |text: &str| -> BTreeSet<String> {
        prose(text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
    };
    for (name, text) in &all {
        for link in prose(text).split("](").skip(1).map(|rest| rest.split(')').next().expect("a link")) {
            if link.starts_with("http") {
                continue;
            }
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let folder = root().join(name).parent().expect("a folder").to_owned();
            let file = if path.is_empty() { root().join(name) } else { folder.join(path) };
            assert!(file.exists(), "{name}: {link}");
            let target =
                place.is_empty() || anchors(&fs::read_to_string(&file).expect("text")).contains(place);
            assert!(target, "{name}: {link} has no such heading");
        }
    }
}

/// The text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_and_test_that_is_named_exists() {
    let sources: String = below(&root().join("tests"), ".rs")
        .iter()
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect();
    let has_module = |name: &str| {
        let name = name.replace("::", "/");
        root().join(format!("tests/it/{name}.rs")).exists()
            || root().join(format!("tests/it/{name}")).exists()
    };
    for (name, text) in documents() {
        let prose = prose(&text);
        for path in quoted(&prose).filter(|path| {
            ["src/", "tests/", "deploy/", "benches/", "docs/"].iter().any(|folder| path.starts_with(folder))
        }) {
            let path = path.split(' ').next().expect("a path");
            assert!(root().join(path).exists(), "{name}: {path}");
        }
        for named in prose.split("## Evidence").skip(1).flat_map(quoted) {
            if named.contains(['/', ' ']) {
                continue;
            }
            let (module, test) = named.rsplit_once("::").unwrap_or(("", named));
            let is_test =
                sources.contains(&format!("fn {test}(")) && (module.is_empty() || has_module(module));
            assert!(is_test || has_module(named), "{name}: {named}");
        }
    }
}

/// The variants of [`replicator::Reason`], as JSON has them.
fn reasons() -> BTreeSet<String> {
    let body =
        ERRORS.split("pub enum Reason {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("an enum");
    let variants = body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let kebab = |variant: &str| {
        let letters = variant.trim_end_matches(',').chars().enumerate();
        letters.fold(String::new(), |word, (at, c)| {
            let dash = if c.is_uppercase() && at > 0 { "-" } else { "" };
            format!("{word}{dash}{}", c.to_lowercase())
        })
    };
    variants.map(kebab).collect()
}

#[test]
fn every_reason_has_an_entry_and_each_entry_is_a_reason() {
    let known = reasons();
    assert!(known.contains("missing-topic") && known.len() > 20, "{known:?}");
    let headings: Vec<String> =
        REASONS.lines().filter_map(|line| line.strip_prefix("### `")).map(|h| h.replace('`', "")).collect();
    assert_eq!(headings.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(headings.len(), known.len(), "each once");
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let (readme, guide) = (documents()["README.md"].clone(), documents()["docs/guide.md"].clone());
    let errors = [
        Error::failed("x"),
        Error::usage("x"),
        Error::refused("x"),
        Error::different("x"),
        Error::fenced("x"),
        Error::Interrupted,
    ];
    let codes: Vec<u8> = iter::once(0).chain(errors.iter().map(Error::exit_code)).collect();
    let table = readme.split("## Exit codes").nth(1).expect("a section");
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
    assert_eq!(rows.collect::<Vec<_>>(), codes);
    let statuses = guide.split("## In scripts").nth(1).expect("a section");
    for error in &errors {
        assert!(statuses.contains(&format!("`{}`", error.status())), "{}", error.status());
    }
}

/// The sentence of the promise, on one line.
fn promise(text: &str) -> String {
    let whole = text
        .split("When a run exits 0:")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .expect("a promise");
    whole.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn readme_and_design_promise_the_same() {
    let all = documents();
    let design =
        promise(&all["DESIGN.md"]).replace("`topicA`", "the source").replace("`topicB`", "the target");
    assert_eq!(promise(&all["README.md"]), design);
}

#[test]
fn design_is_read_in_a_quarter_of_an_hour() {
    let design = &documents()["DESIGN.md"];
    for heading in [
        "Potential issues in re-ingesting all the data from cluster A",
        "Other ways to fill the gap in cluster B",
    ] {
        assert!(design.contains(&format!("\n## {heading}\n")), "{heading}");
    }
    let words = design.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
    assert!(words < 3500, "{words} words");
}
