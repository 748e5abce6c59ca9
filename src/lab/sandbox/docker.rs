//! Runs brokers in containers, with the `docker` command. The guard is a shell, so it needs that command in any case.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::config::{self, Endpoint, LOCALHOST, Layout, Node};
use super::guard::Guard;
use super::{Machine, NAME_ONE, last_lines, version};

const IMAGE: &str = "apache/kafka";

/// The image's directory of Kafka's jars.
const LIBS: &str = "/opt/kafka/libs";

/// A directory that the image's user may write to. It is not on a volume, so the data stays with the container.
const PREAMBLE: &str = "exec 2>&1; mkdir -p /tmp/broker && cd /tmp/broker || exit\n";

const CLIENTS: u16 = 9092;
const CONTROLLERS: u16 = 9093;
const BROKERS: u16 = 9094;
const PROXIED: u16 = 9095;
/// The first port of the extra listeners.
const EXTRA: u16 = 9100;

/// Removes the containers, with the volumes that the image declares, and then their network. Then does it again in the
/// background, because the engine may still be creating a container that a killed owner asked for.
const END: &str = r#"
network="$1"; shift
end() { docker rm -f -v "$@"; docker network rm "$network"; }
end "$@"
(sleep 2; end "$@"; sleep 3; end "$@") &
"#;

pub(super) struct Docker {
    cluster: Layout,
    nodes: Vec<Node>,
    created: Vec<bool>,
}

/// Whether a Docker engine can be used. It must answer within two seconds.
pub(super) fn answers() -> bool {
    let version = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut version) = version else {
        return false;
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        match version.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Ok(Some(status)) => return status.success(),
            Err(_) => return false,
        }
    }
    // The command is still trying to reach an engine on another machine.
    let _ = version.kill();
    let _ = version.wait();
    false
}

/// The host of the containers' ports. It is this machine, unless `DOCKER_HOST` names another one.
pub(super) fn host() -> String {
    env::var("DOCKER_HOST").ok().and_then(|url| host_of(&url)).unwrap_or_else(|| LOCALHOST.to_owned())
}

fn host_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    (["tcp", "http", "https"].contains(&scheme) && !host.is_empty()).then(|| host.to_owned())
}

impl Docker {
    pub(super) fn new(cluster: Layout) -> Result<(Docker, Guard)> {
        let host = host();
        let nodes: Vec<Node> = cluster
            .ports
            .iter()
            .enumerate()
            .map(|(broker, ports)| {
                let inside = |port| Endpoint {
                    listen: format!(":{port}"),
                    advertise: format!("{}:{port}", container(&cluster, broker)),
                };
                Node {
                    clients: Endpoint {
                        listen: format!(":{CLIENTS}"),
                        advertise: format!("{host}:{}", ports.clients),
                    },
                    proxied: Endpoint {
                        listen: format!(":{PROXIED}"),
                        advertise: format!("{LOCALHOST}:{}", ports.proxy),
                    },
                    brokers: inside(BROKERS),
                    controllers: inside(CONTROLLERS),
                    extra: (EXTRA..)
                        .zip(&ports.extra)
                        .map(|(inner, outer)| Endpoint {
                            listen: format!(":{inner}"),
                            advertise: format!("{host}:{outer}"),
                        })
                        .collect(),
                }
            })
            .collect();
        let docker = Docker { created: vec![false; nodes.len()], cluster, nodes };
        let mut args = vec![docker.cluster.name.clone()];
        args.extend(docker.containers());
        fetch_image()?;
        let guard = Guard::new(END, &args)?;
        run(&["network", "create", &docker.cluster.name])?;
        Ok((docker, guard))
    }

    fn containers(&self) -> impl Iterator<Item = String> {
        (0..self.nodes.len()).map(|broker| container(&self.cluster, broker))
    }

    fn create(&self, broker: usize) -> Result<()> {
        let name = container(&self.cluster, broker);
        let ports = &self.cluster.ports[broker];
        let mut published = vec![(ports.clients, CLIENTS), (ports.proxied, PROXIED)];
        published.extend(ports.extra.iter().copied().zip(EXTRA..));
        let host = host();
        // If the engine is on another machine, this machine must reach the ports there.
        let only_here = if host == LOCALHOST { format!("{LOCALHOST}:") } else { String::new() };

        let mut command = docker();
        // Never pull here. If this process is killed, the container must appear at once or not at all (see `END`).
        command.args(["run", "--detach", "--pull=never", "--name", &name, "--hostname", &name]);
        command.args(["--network", &self.cluster.name]);
        for (outer, inner) in published {
            command.arg(format!("--publish={only_here}{outer}:{inner}"));
        }
        let variables = self.cluster.variables(&self.nodes, broker);
        let java = [("JAVA", "java".to_owned()), ("LIBS", LIBS.to_owned())];
        for (key, value) in variables.into_iter().chain(java) {
            // Only the name is on the command line, which everybody can read: properties may hold passwords.
            command.arg(format!("--env={key}")).env(key, value);
        }
        let image = image()?;
        command.args([&image, "sh", "-c", &[PREAMBLE, config::LAUNCH].concat()]);
        answer(&mut command).with_context(|| format!("Docker cannot start {image}; {NAME_ONE}"))?;
        Ok(())
    }
}

impl Machine for Docker {
    fn start(&mut self, broker: usize) -> Result<()> {
        if self.created[broker] {
            return run(&["start", &container(&self.cluster, broker)]).map(drop);
        }
        self.create(broker)?;
        self.created[broker] = true;
        Ok(())
    }

    fn kill(&mut self, broker: usize) -> Result<()> {
        run(&["kill", &container(&self.cluster, broker)]).map(drop)
    }

    fn stop(&mut self, broker: usize) -> Result<()> {
        self.check(broker)?;
        run(&["stop", "-t", "60", &container(&self.cluster, broker)]).map(drop)
    }

    fn pause(&mut self, broker: usize) -> Result<()> {
        run(&["pause", &container(&self.cluster, broker)]).map(drop)
    }

    fn resume(&mut self, broker: usize) -> Result<()> {
        run(&["unpause", &container(&self.cluster, broker)]).map(drop)
    }

    fn check(&mut self, broker: usize) -> Result<()> {
        let name = container(&self.cluster, broker);
        let running = run(&["inspect", "-f", "{{.State.Running}}", &name])?;
        if running.trim_ascii() != b"true" {
            let log = run(&["logs", "--tail", "200", &name])?;
            bail!("broker {broker} has ended: {}", last_lines(&log));
        }
        Ok(())
    }

    fn ending(&self) -> String {
        let containers: Vec<String> = self.containers().collect();
        format!("docker rm -f -v {}; docker network rm {}", containers.join(" "), self.cluster.name)
    }
}

fn container(cluster: &Layout, broker: usize) -> String {
    format!("{}-{broker}", cluster.name)
}

fn image() -> Result<String> {
    Ok(format!("{IMAGE}:{}", version::chosen()?))
}

/// Pulls the image if the engine does not have it.
fn fetch_image() -> Result<()> {
    let image = image()?;
    if run(&["image", "inspect", "--format={{.Id}}", &image]).is_err() {
        run(&["pull", "--quiet", &image]).with_context(|| {
            format!("Docker cannot fetch {image}: run `docker pull {image}` while the network is up, or {NAME_ONE}")
        })?;
    }
    Ok(())
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    // Ctrl-C goes to the terminal's whole process group, and would end a pull in the middle.
    command.stdin(Stdio::null()).process_group(0);
    command
}

fn run(args: &[&str]) -> Result<Vec<u8>> {
    answer(docker().args(args)).with_context(|| format!("`docker {}` failed", args.join(" ")))
}

/// Runs a command of `docker`, and returns its output.
fn answer(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().context("the `docker` command is gone: install it again")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_of_a_docker_engine() {
        assert_eq!(host_of("tcp://docker:2375").as_deref(), Some("docker"));
        assert_eq!(host_of("unix:///var/run/docker.sock"), None);
        assert_eq!(host_of("nonsense"), None);
    }
}
