//! The deployment files keep their promises.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use replicator::INDEX_MEMORY;
use serde_json::{Value, json};

use crate::dashboard::Page;
use crate::kit::*;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("read")
}

/// The compose file's broker lets everybody in, so only this machine may reach it.
#[test]
fn compose_publishes_to_this_machine_alone() {
    let compose = file("docker-compose.yml");
    let published = compose.lines().filter_map(|line| line.trim().strip_prefix("ports:"));
    let published: Vec<&str> = published.filter(|ports| ports.trim() != "[]").collect();
    assert!(!published.is_empty());
    for ports in published {
        let ports = ports.trim().trim_start_matches('[').trim_end_matches(']').split(',');
        for port in ports {
            assert!(port.trim().starts_with("\"127.0.0.1:"), "{port}");
        }
    }
}

const DEPLOYMENT: &str = "deploy/kubernetes-deployment.yaml";
const UNIT: &str = "deploy/replicator-follow.service";

/// The text that follows `before` in a line of its own, each time.
fn values<'m>(manifest: &'m str, before: &str) -> Vec<&'m str> {
    manifest.lines().filter_map(|line| line.trim().strip_prefix(before)).collect()
}

#[test]
fn each_deployment_has_the_memory_that_its_index_may_take() {
    for (name, limit) in
        [("deploy/kubernetes-job.yaml", "memory: "), (DEPLOYMENT, "memory: "), (UNIT, "MemoryMax=")]
    {
        let manifest = file(name);
        let (_, index) = manifest.split_once("--index-memory=").expect("an index");
        let index: usize = index.split_whitespace().next().expect("a word").parse().expect("a number");
        assert_eq!(index, INDEX_MEMORY >> 20);
        let most = values(&manifest, limit).pop().expect("a limit").trim_end_matches(['M', 'i']);
        assert_eq!(most.parse(), Ok(index * 9 / 8 + 512), "{name}: as the comment of the job says");
        assert!(name == UNIT || manifest.contains("enableServiceLinks: false"));
    }
}

/// The services of the compose file, each with its lines and those of the services that it takes them from.
fn services() -> HashMap<String, Vec<String>> {
    let compose = file("docker-compose.yml");
    let mut services: HashMap<String, Vec<String>> = HashMap::new();
    let (mut anchors, mut current) = (HashMap::new(), String::new());
    let lines = compose.lines().skip_while(|line| *line != "services:").skip(1);
    for line in lines.take_while(|line| *line != "volumes:") {
        let name = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
        if let Some(name) = name.filter(|name| !name.starts_with([' ', '#'])) {
            current = name.to_owned();
        } else if let Some(anchor) = line.strip_prefix("    &") {
            anchors.insert(anchor.to_owned(), current.clone());
        } else if let Some(anchor) = line.strip_prefix("    <<: *") {
            let taken = services[&anchors[anchor]].clone();
            services.entry(current.clone()).or_default().extend(taken);
        } else {
            services.entry(current.clone()).or_default().push(line.to_owned());
        }
    }
    services
}

/// The last value of a service's key: the service's own, or else the one that it takes from another service.
fn value<'s>(service: &'s [String], key: &str) -> Option<&'s str> {
    service.iter().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn compose_names_versions_and_waits_for_what_is_healthy() {
    let services = services();
    let mut waits = 0;
    for (name, lines) in &services {
        let image = value(lines, "image").unwrap_or_else(|| panic!("{name} has an image"));
        let tag = image.split_once(':').map_or("", |(_, tag)| tag);
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{name}: {image}");
        for line in lines {
            let Some((other, "{ condition: service_healthy }")) = line.trim().split_once(": ") else {
                continue;
            };
            assert!(
                services[other].iter().any(|line| line.trim() == "healthcheck:"),
                "{name} waits for {other}"
            );
            waits += 1;
        }
    }
    assert!(waits > 10, "{waits}");
    let id = |broker: &str| value(&services[broker], "CLUSTER_ID").map(str::to_owned);
    assert!(id("a").is_some() && id("a") != id("b"));
    let is_between = |name: &&str| value(&services[*name], "profiles") == Some("[two-clusters]");
    let of_profile =
        ["a", "b", "load-into-a", "load-into-b", "sink-a", "sink-b", "page", "fill-b", "verify-b"];
    assert_eq!(of_profile.iter().filter(|name| is_between(name)).count(), of_profile.len());
    assert_eq!(services.keys().filter(|name| is_between(&name.as_str())).count(), of_profile.len());
}

/// The first layer of the image has the manifest and an empty program, and no test or bench.
#[test]
fn the_image_can_build_the_dependencies_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("src")).expect("made");
    for (name, text) in
        [("Cargo.toml", &*file("Cargo.toml")), ("src/main.rs", "fn main() {}"), ("src/lib.rs", "")]
    {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"), dir.path().join("Cargo.lock"))
        .expect("copied");
    // Cargo looks for the sources of all targets first, and then for this one, which is nowhere. So nothing is built.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--offline", "--no-default-features", "--bin", "none"])
        .env("CARGO_TARGET_DIR", dir.path().join("target"))
        .current_dir(dir.path())
        .output();
    let told = stderr(&output.expect("runs"));
    assert!(told.contains("no bin target named `none`"), "{told}");
}

/// A service's command in the compose file, as words.
fn words(service: &str) -> Vec<String> {
    let services = services();
    let lines = &services[service];
    let at = lines.iter().rposition(|line| line.trim().starts_with("command:")).expect("a command");
    let first = lines[at].trim().trim_start_matches("command:").trim();
    let folded = lines[at + 1..].iter().take_while(|line| line.starts_with("      "));
    let more = folded.filter(|_| first == ">-").map(|line| line.trim());
    let text = [first].into_iter().chain(more).filter(|part| *part != ">-").collect::<Vec<_>>().join(" ");
    text.split(' ').map(str::to_owned).collect()
}

/// The commands of the profile `two-clusters`, run on the tests' clusters in the order in which they wait for each other.
#[test]
fn the_commands_between_two_clusters_fill_the_hole() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (a, b, topic, store) = (side_a(), side_b(), unique("events"), format!("sqlite:{}", at("store.db")));
    let run = |service: &str| {
        let arguments: Vec<String> = words(service)
            .into_iter()
            .filter(|word| word != "--follow")
            .map(|word| match word.as_str() {
                "a:9092" => a.0.clone(),
                "b:9092" => b.0.clone(),
                "events" => topic.clone(),
                "/events/events.json.gz" | "${DATA:-/events/events.json.gz}" => at("events.json.gz"),
                _ => word,
            })
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = replicator(&arguments);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env("REPLICATOR_STORE", &store);
        let output = command.args(["--output", "json"]).output().expect("runs");
        assert_eq!(code(&output), 0, "{service} {arguments:?}: {}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null)
    };
    for service in ["generate", "load-into-a", "load-into-b", "sink-a", "sink-b"] {
        run(service);
    }
    let window = window_of(&a.consume(&topic)).len();
    let page = Page::open(&store);
    let ask = || page.json(&format!("api/overview?source={topic}%40{}&target={topic}%40{}", a.0, b.0));
    assert!(window > 100);
    assert_eq!(ask()["missing"], json!(window), "the hole");
    assert_eq!(run("fill-b")["written"], json!(window));
    for service in ["sink-a", "sink-b"] {
        run(service);
    }
    let after = ask();
    assert_eq!((&after["missing"], &after["in_source"]), (&json!(0), &json!(30_000)), "{after}");
    let shown = json!({ "source": format!("{topic}@{}", a.0), "target": format!("{topic}@{}", b.0) });
    assert_eq!(after["receipts"][0]["shown"], shown, "{after}");
    run("verify-b");
    let [mut in_a, mut in_b] = [&a, &b].map(|side| side.consume(&topic));
    in_a.sort();
    in_b.sort();
    assert_same(&in_b, &in_a);
}

/// The job's command, with its lines for two clusters.
#[test]
fn the_job_fills_between_two_clusters() {
    let manifest = file("deploy/kubernetes-job.yaml");
    let across = Across::same_name(2, 2);
    // Instances share the work only if each key is in one partition.
    let records = placed(day(405, 2), 2);
    across.from.produce(&across.source, &records);
    across.to.produce(&across.target, &outside_of(&records));
    let properties = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(properties.path(), "source.client.id=from-a\ntarget.client.id=to-b\n").expect("written");

    let mut command = replicator(&[]);
    command.env_remove("KAFKA_BOOTSTRAP_SERVERS");
    for argument in manifest.lines().filter_map(|line| line.trim().strip_prefix("- --")) {
        let (option, value) = argument.split_once('=').unwrap_or((argument, ""));
        let value = match option {
            "source" | "target" => &across.source,
            "metrics-listen" => "127.0.0.1:0",
            "command-config" => properties.path().to_str().expect("a path"),
            _ => value,
        };
        command.arg(if value.is_empty() { format!("--{option}") } else { format!("--{option}={value}") });
    }
    set_commented(
        &mut command,
        &manifest,
        &HashMap::from([("a-bootstrap:9092", &across.from), ("b-bootstrap:9092", &across.to)]),
    );
    let output = command.output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(
        (&receipt["written"], &receipt["complete"]),
        (&json!(window_of(&records).len()), &json!(true))
    );
    across.assert_filled(&outside_of(&records));
}

/// Sets the variables that stand as comments in the manifest.
fn set_commented(command: &mut Command, manifest: &str, clusters: &HashMap<&str, &Side>) {
    let mut commented = manifest.lines().filter_map(|line| line.trim().strip_prefix("# "));
    let mut set = 0;
    while let Some(line) = commented.next() {
        let Some(name) = line.strip_prefix("- name: ") else { continue };
        let value = commented.next().and_then(|line| line.strip_prefix("  value: ")).expect("a value");
        command.env(name, &clusters[value].0);
        set += 1;
    }
    assert_eq!(set, 2);
}

/// Runs the program where no broker is. It waits for one only if it takes the arguments.
fn assert_taken(arguments: &[String]) {
    let command = |more: &[&str]| {
        let mut command = replicator(more);
        command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1").args(arguments).args(["--output", "json"]);
        command
    };
    let mut waits = command(&[]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    let log = BufReader::new(waits.stderr.take().expect("a pipe"));
    let told = log.lines().map_while(Result::ok).find(|line| line.contains("waiting: no broker answered"));
    waits.kill().expect("ends");
    waits.wait().expect("ended");
    assert!(told.is_some(), "{arguments:?}");
    // An option that a follow does not take.
    let refused = command(&["--limit", "1"]).output().expect("runs");
    assert_eq!(
        (code(&refused), &receipt(&refused)["error"]["reason"]),
        (2, &"usage".into()),
        "{arguments:?}"
    );
}

#[test]
fn the_deployment_follows() {
    let manifest = file(DEPLOYMENT);
    let properties = tempfile::NamedTempFile::new().expect("a file");
    let path = properties.path().to_str().expect("a path");
    let arguments = values(&manifest, "- --").into_iter().filter(|argument| *argument != "output=json");
    let arguments: Vec<String> = arguments
        .map(|argument| match argument.split_once('=') {
            Some(("metrics-listen", address)) => {
                let port = address.rsplit_once(':').expect("a port").1;
                assert_eq!(values(&manifest, "containerPort: "), [port]);
                "--metrics-listen=127.0.0.1:0".to_owned()
            }
            Some(("command-config", file)) => {
                assert!(file.starts_with(values(&manifest, "mountPath: ")[0]), "{file}");
                format!("--command-config={path}")
            }
            _ => format!("--{argument}"),
        })
        .collect();
    assert!(arguments.iter().any(|argument| argument == "--follow"));
    assert_taken(&arguments);

    let path_of = |probe: &str| {
        let (_, rest) = manifest.split_once(&format!("{probe}:\n")).unwrap_or_else(|| panic!("a {probe}"));
        values(rest, "path: ")[0].to_owned()
    };
    assert_eq!(
        ["startupProbe", "readinessProbe", "livenessProbe"].map(path_of),
        ["/healthz", "/healthz", "/livez"]
    );
    assert_eq!(values(&manifest, "port: "), ["metrics"; 3]);
    // Both documents, the spread and the pods mean the same ones.
    assert_eq!(values(&manifest, "app: "), ["replicator-follow"; 4]);
    for line in
        ["replicas: 2", "runAsNonRoot: true", "readOnlyRootFilesystem: true", "kind: PodDisruptionBudget"]
    {
        assert!(manifest.lines().any(|found| found.trim() == line), "{line}");
    }
}

#[test]
fn the_unit_follows() {
    let unit = file(UNIT);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("client.properties"), "client.id=unit\n").expect("written");
    let text = unit.replace("\\\n", "");
    let mut words = values(&text, "ExecStart=")[0].split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/replicator"));
    let variable = |name: &str| values(&unit, &format!("#   {name}="))[0];
    let arguments: Vec<String> = words
        .map(|word| {
            let word = word
                .replace("%d", &dir.path().display().to_string())
                .replace("127.0.0.1:9090", "127.0.0.1:0");
            ["WINDOW", "SOURCE", "TARGET"]
                .into_iter()
                .fold(word, |word, name| word.replace(&format!("${{{name}}}"), variable(name)))
        })
        .collect();
    assert!(arguments.iter().any(|argument| argument == "--follow"));
    assert!(arguments.iter().all(|argument| !argument.contains(['$', '%'])), "{arguments:?}");
    assert_taken(&arguments);

    let [final_codes] = values(&unit, "RestartPreventExitStatus=")[..] else { panic!("{unit}") };
    let of_the_job = file("deploy/kubernetes-job.yaml");
    assert_eq!(values(&of_the_job, "values: "), [format!("[{}]", final_codes.replace(' ', ", "))]);

    // systemd's own check. It wants the program to exist.
    let here = dir.path().join("replicator-follow.service");
    let of_build = unit.replace("/usr/local/bin/replicator", env!("CARGO_BIN_EXE_replicator"));
    std::fs::write(&here, of_build).expect("written");
    match Command::new("systemd-analyze").arg("verify").arg(&here).output() {
        Ok(output) => {
            let told = stderr(&output);
            assert!(output.status.success() && !told.contains("replicator-follow"), "{told}");
        }
        Err(_) => eprintln!("skipped: systemd-analyze is not installed"),
    }
}

#[test]
fn compose_follows_records_that_have_keys() {
    let services = services();
    let of_follow = |name: &str| value(&services[name], "profiles") == Some("[follow]");
    assert!(of_follow("follow") && of_follow("live"));
    assert_taken(
        &words("follow")
            .into_iter()
            .map(|word| word.replace("0.0.0.0:9090", "127.0.0.1:0"))
            .collect::<Vec<_>>(),
    );
    // Compose writes a dollar sign as two.
    let print = services["live"].iter().find(|line| line.trim().starts_with("printf")).expect("it prints");
    let print = print.trim().trim_end_matches(';').replace("$$", "$");
    let output = Command::new("bash").args(["-c", &format!("{print}; {print}")]).output().expect("bash");
    let text = String::from_utf8(output.stdout).expect("text");
    let records: Vec<(&str, &str)> = text.lines().map(|line| line.split_once('\t').expect("a key")).collect();
    assert!(records.len() == 2 && records[0].0 != records[1].0, "{text}");
    assert!(records.iter().all(|(_, event)| serde_json::from_str::<Value>(event).is_ok()), "{text}");
}
