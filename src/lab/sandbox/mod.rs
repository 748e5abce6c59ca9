//! A real Apache Kafka to try things on: for the demo, the tests and the crash drills.
//!
//! Brokers of our own are started by Docker or by Java, and end with this process however it ends
//! (see `guard`).

mod archive;
mod config;
mod docker;
mod guard;
mod jars;
mod java;
mod local;
mod probe;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use archive::Archive;
use config::Layout;
use guard::Guard;

/// The version of Apache Kafka that both backends run.
pub const KAFKA_VERSION: &str = "4.3.1";

/// What to do where no broker can be started.
const NAME_ONE: &str = "name a cluster by --bootstrap-server, for tests by REPLICATOR_TEST_BOOTSTRAP_SERVERS";

/// How long a broker may take to answer. It needs 2 to 4 seconds; a loaded machine needs more.
const STARTUP: Duration = Duration::from_secs(90);

/// What runs the brokers of a [`Sandbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Somebody else: the cluster was named to us.
    Named,
    /// A Docker engine, with the image `apache/kafka`.
    Docker,
    /// Java on this machine, with the jars that Maven fetched.
    Local,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Named => "a cluster that was there",
            Backend::Docker => "Docker",
            Backend::Local => "Maven and Java",
        })
    }
}

/// Brokers of our own, numbered from 0, as a backend runs them. None of its methods waits for a
/// broker to answer; the guard, not the machine, removes what it leaves behind.
trait Machine: Send + Sync {
    /// Starts a broker, for the first time or again with the data it had.
    fn start(&mut self, broker: usize) -> Result<()>;
    /// Ends it as a power cut would.
    fn kill(&mut self, broker: usize) -> Result<()>;
    /// Ends it cleanly.
    fn stop(&mut self, broker: usize) -> Result<()>;
    fn pause(&mut self, broker: usize) -> Result<()>;
    fn resume(&mut self, broker: usize) -> Result<()>;
    /// Fails, with the last lines of its log, when the broker is not running.
    fn check(&mut self, broker: usize) -> Result<()>;
    /// The command line that ends everything and removes its files.
    fn ending(&self) -> String;
}

/// A Kafka cluster to try things on: one that is named to us, or one of our own.
///
/// Brokers are numbered from 0, which is also their `node.id`. Dropping the sandbox ends its brokers
/// and waits for that; so does the end of the process, even by SIGKILL or with the sandbox in a
/// `static`.
pub struct Sandbox {
    backend: Backend,
    bootstrap: String,
    brokers: usize,
    own: Option<Own>,
}

/// What the brokers have beside their plain listeners, which stay: for tests of secured clients, and for measurements.
#[derive(Clone, Default)]
pub struct Extras {
    /// More listeners: the name, and the security protocol (`SSL`, `SASL_SSL`, …).
    pub listeners: Vec<(&'static str, &'static str)>,
    /// Broker properties, in the escaped form of a properties file. They beat the sandbox's own.
    pub properties: Vec<(&'static str, String)>,
    /// Options of the JVM, in place of those for a short life.
    pub jvm: Option<&'static str>,
}

impl Extras {
    /// A broker to measure by: the JVM as Kafka's own `kafka-server-start.sh` and `kafka-run-class.sh` start it, and
    /// deleted topics leave the disk soon.
    pub fn for_measuring() -> Extras {
        Extras {
            listeners: Vec::new(),
            properties: vec![("log.segment.delete.delay.ms", "1000".to_owned())],
            jvm: Some(
                "-Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
                 -XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15",
            ),
        }
    }
}

struct Own {
    // Dropped first, so that the machine, which waits for its brokers, finds them ended.
    guard: Guard,
    machine: Box<dyn Machine>,
    doors: Doors,
}

/// Where clients find the brokers.
struct Doors {
    addresses: Vec<String>,
    back_doors: Vec<BackDoor>,
    extra_doors: Vec<(&'static str, String)>,
}

impl Doors {
    fn of(cluster: &Layout, host: &str) -> Doors {
        let (addresses, back_doors) = cluster.doors(host);
        Doors { addresses, back_doors, extra_doors: cluster.extra_doors(host) }
    }
}

/// A second listener of a broker of ours, for a proxy that stands between it and its clients.
#[derive(Clone, Debug)]
pub struct BackDoor {
    /// Where the broker listens.
    pub address: String,
    /// The port of this machine that the broker tells clients of this listener to connect to; nothing
    /// listens there until somebody does.
    pub advertised: u16,
}

impl Sandbox {
    /// A cluster of our own, on which faults may be caused: by Docker when an engine answers, else
    /// by Java and Maven on this machine.
    pub fn start_own(brokers: usize) -> Result<Sandbox> {
        Self::start_own_with(brokers, &Extras::default())
    }

    /// [`Sandbox::start_own`], with more listeners and other properties.
    pub fn start_own_with(brokers: usize, extras: &Extras) -> Result<Sandbox> {
        ensure!(brokers == 1 || brokers == 3, "a sandbox has 1 or 3 brokers, not {brokers}");
        if !docker::answers() {
            return Self::local(brokers, extras);
        }
        let err = match Self::docker(brokers, extras) {
            Ok(sandbox) => return Ok(sandbox),
            Err(err) => err,
        };
        // A machine without network, or over its quota of pulls, may still have the jars.
        if java::Java::find().is_err() {
            return Err(err);
        }
        tracing::warn!("Docker answers but runs no broker, so Java is to: {err:#}");
        Self::local(brokers, extras)
    }

    /// The broker properties of a cluster of our own, without those for its listeners and roles: for tests that start
    /// a broker by other means.
    pub fn settings(brokers: usize) -> Vec<(&'static str, String)> {
        config::settings(brokers)
    }

    /// Somebody's cluster, which is not ours to break.
    pub fn connect(bootstrap: &str) -> Result<Sandbox> {
        let ids = probe::brokers(bootstrap, Duration::from_secs(15)).map_err(|err| {
            anyhow!(
                "{bootstrap} does not answer: start that cluster, or name none for one of our own ({err})"
            )
        })?;
        let (backend, bootstrap) = (Backend::Named, bootstrap.to_owned());
        Ok(Sandbox { backend, bootstrap, brokers: ids.len(), own: None })
    }

    /// Whether a Docker engine answers, within two seconds.
    pub fn docker_answers() -> bool {
        docker::answers()
    }

    fn docker(brokers: usize, extras: &Extras) -> Result<Sandbox> {
        let cluster = Layout::new(brokers, extras.clone())?;
        let doors = Doors::of(&cluster, &docker::host());
        let (machine, guard) = docker::Docker::new(cluster)?;
        Self::launch(Backend::Docker, Box::new(machine), guard, doors)
    }

    fn local(brokers: usize, extras: &Extras) -> Result<Sandbox> {
        let java = java::Java::find()?;
        let libs = jars::libs()?;
        let archive = archive::ready(&java, &libs);
        Self::local_with(brokers, extras, &java, &libs, archive)
    }

    fn local_with(
        brokers: usize,
        extras: &Extras,
        java: &java::Java,
        libs: &Path,
        archive: Archive,
    ) -> Result<Sandbox> {
        let cluster = Layout::new(brokers, extras.clone())?;
        let doors = Doors::of(&cluster, config::LOCALHOST);
        let (machine, guard) = local::Local::new(cluster, java, libs, archive)?;
        Self::launch(Backend::Local, Box::new(machine), guard, doors)
    }

    fn launch(backend: Backend, machine: Box<dyn Machine>, guard: Guard, doors: Doors) -> Result<Sandbox> {
        // From here on, an early return drops `own`, which ends what has been started.
        let mut own = Own { guard, machine, doors };
        let brokers = own.doors.addresses.len();
        for broker in 0..brokers {
            own.machine.start(broker)?;
        }
        let all: Vec<usize> = (0..brokers).collect();
        for broker in 0..brokers {
            own.ready(broker, &all)?;
        }
        Ok(Sandbox { backend, bootstrap: own.doors.addresses.join(","), brokers, own: Some(own) })
    }

    /// The addresses of all brokers, for `bootstrap.servers`. They stay the same over restarts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The other listeners of the brokers; none of a cluster that is not ours.
    pub fn back_doors(&self) -> &[BackDoor] {
        self.own.as_ref().map_or(&[], |own| &own.doors.back_doors)
    }

    /// Where clients find an extra listener of the first broker.
    pub fn extra_door(&self, name: &str) -> Option<&str> {
        let doors = &self.own.as_ref()?.doors.extra_doors;
        doors.iter().find(|(of, _)| *of == name).map(|(_, address)| address.as_str())
    }

    /// What runs the brokers.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// How many brokers the cluster had when we first saw it.
    pub fn brokers(&self) -> usize {
        self.brokers
    }

    /// Ends a broker with SIGKILL.
    pub fn kill(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.kill(broker)
    }

    /// Ends a broker with SIGTERM and waits: it hands over its partitions before it goes.
    pub fn stop(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.stop(broker)
    }

    /// Starts a killed or stopped broker again, with its data and its address, and waits until it
    /// answers.
    pub fn restart(&mut self, broker: usize) -> Result<()> {
        let own = self.own(broker)?;
        ensure!(
            own.machine.check(broker).is_err(),
            "broker {broker} is running: kill or stop it before the restart"
        );
        own.machine.start(broker)?;
        own.ready(broker, &[broker])
    }

    /// Freezes a broker: its connections stay open and nothing answers.
    pub fn pause(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.pause(broker)
    }

    /// Lets a paused broker go on.
    pub fn resume(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.resume(broker)
    }

    /// Leaves the brokers running after this process. The answer is the command line that ends them
    /// and removes their files; none for a cluster that was named, which is not ours to end.
    pub fn keep(mut self) -> Option<String> {
        let Own { guard, machine, .. } = self.own.take()?;
        let ending = machine.ending();
        guard.dismiss();
        // Its drop would wait for brokers that are to stay.
        std::mem::forget(machine);
        Some(ending)
    }

    fn own(&mut self, broker: usize) -> Result<&mut Own> {
        let brokers = self.brokers;
        let Some(own) = self.own.as_mut() else {
            bail!("this cluster is not ours to break: name none for one of our own");
        };
        ensure!(broker < brokers, "no broker {broker}: the {brokers} are numbered from 0");
        Ok(own)
    }
}

impl Own {
    /// Waits until `broker` itself answers, and knows of all `expected`.
    fn ready(&mut self, broker: usize, expected: &[usize]) -> Result<()> {
        let machine = &mut self.machine;
        probe::ready(&self.doors.addresses[broker], expected, STARTUP, || machine.check(broker))
    }
}

/// The part of a broker's log that says what is wrong: from its first error on, else its end. Without
/// Java's stack traces.
fn last_lines(log: &[u8]) -> String {
    const LINES: usize = 8;
    let log = String::from_utf8_lossy(log);
    let lines: Vec<&str> =
        log.lines().filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty()).collect();
    let error = lines.iter().position(|line| line.contains(" ERROR ") || line.contains(" FATAL "));
    let from = error.unwrap_or(lines.len().saturating_sub(LINES));
    match &lines[from..] {
        [] => "it left no log".to_owned(),
        lines => format!("its log says\n{}", lines[..lines.len().min(LINES)].join("\n")),
    }
}
