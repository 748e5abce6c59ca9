//! Runs a real Apache Kafka to try things on, for the demo, the tests and the drills.
//!
//! Docker or Java starts brokers of our own. They end with this process, however it ends (see `guard`).

mod archive;
mod config;
mod docker;
mod guard;
mod jars;
mod java;
mod local;
mod probe;
pub(crate) mod version;

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use archive::Archive;
use config::Layout;
pub(crate) use guard::Guard;

pub use version::KAFKA_VERSION;

/// An older version, for drills in which brokers of two versions are one cluster.
const OTHER_VERSION: &str = "4.1.1";

/// The advice if no broker can be started.
const NAME_ONE: &str =
    "name a cluster with --bootstrap-server (for tests, with REPLICATOR_TEST_BOOTSTRAP_SERVERS)";

/// How long a broker may take to answer. It needs 2 to 4 seconds; a loaded machine needs more.
const STARTUP: Duration = Duration::from_secs(90);

/// The program that runs the brokers of a [`Sandbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Somebody else runs them. The user named the cluster.
    Named,
    /// A Docker engine, with the image `apache/kafka`.
    Docker,
    /// Java on this machine, with the jars that Maven fetched.
    Local,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Named => "an existing cluster",
            Backend::Docker => "Docker",
            Backend::Local => "Maven and Java",
        })
    }
}

/// Brokers of our own, numbered from 0, as a backend runs them. No method waits until a broker answers. The guard, not
/// the machine, removes everything that the brokers leave behind.
trait Machine: Send + Sync {
    /// Starts a broker, for the first time or again with the data it had.
    fn start(&mut self, broker: usize) -> Result<()>;
    /// Ends it as a power cut would.
    fn kill(&mut self, broker: usize) -> Result<()>;
    /// Ends it cleanly.
    fn stop(&mut self, broker: usize) -> Result<()>;
    fn pause(&mut self, broker: usize) -> Result<()>;
    fn resume(&mut self, broker: usize) -> Result<()>;
    /// The doors through which the brokers reach each other; none if they do so directly.
    fn doors_between(&self) -> Vec<BackDoor> {
        Vec::new()
    }
    /// The next start of this broker is one of the other version. Returns that version; `None` if there is only one.
    fn change_version(&mut self, _broker: usize) -> Option<&'static str> {
        None
    }
    /// See [`Sandbox::fill_disk`]. Returns whether this machine can do that.
    fn fill_disk(&mut self, _broker: usize, _room: Option<(&str, u64)>) -> Result<bool> {
        Ok(false)
    }
    /// See [`Sandbox::set_clock`].
    fn set_clock(&mut self, _broker: usize, _seconds: i64) -> Result<()> {
        bail!("this broker has the machine's clock")
    }
    /// Fails with the last lines of its log if the broker is not running.
    fn check(&mut self, broker: usize) -> Result<()>;
    /// The command line that ends everything and removes its files.
    fn ending(&self) -> String;
}

/// A Kafka cluster to try things on. The user names one, or it is one of our own.
///
/// Brokers are numbered from 0, which is also their `node.id`. Dropping the sandbox ends its brokers, and waits until
/// they have ended. The end of the process ends them too, even after SIGKILL, or if the sandbox is in a `static`.
pub struct Sandbox {
    backend: Backend,
    bootstrap: String,
    brokers: usize,
    own: Option<Own>,
}

/// Listeners and settings that the brokers have besides their plain listeners, for tests of secured clients and for
/// measurements.
#[derive(Clone, Default)]
pub struct Extras {
    /// More listeners: the name, and the security protocol (`SSL`, `SASL_SSL`, …).
    pub listeners: Vec<(&'static str, &'static str)>,
    /// Broker properties, in the escaped form of a properties file. They beat the sandbox's own.
    pub properties: Vec<(&'static str, String)>,
    /// Options of the JVM, instead of the usual ones, which are for short-lived brokers.
    pub jvm: Option<&'static str>,
    /// The brokers reach each other by [`Sandbox::doors_between`], where proxies must listen. Only Java's brokers do.
    pub is_apart: bool,
    /// Another version of Kafka to begin with. [`Sandbox::change_version`] then runs a broker by the other one. Only Java's
    /// brokers can.
    pub other_version: bool,
    /// The brokers' clocks can be set, by [`Sandbox::set_clock`]. Only those of Java's brokers can, where libfaketime is installed.
    pub has_clocks: bool,
}

impl Extras {
    /// A broker to measure by: the JVM as Kafka's own `kafka-server-start.sh` and `kafka-run-class.sh` start it, and
    /// deleted topics leave the disk soon.
    pub fn for_measuring() -> Extras {
        Extras {
            properties: vec![("log.segment.delete.delay.ms", "1000".to_owned())],
            jvm: Some(
                "-Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
                 -XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15",
            ),
            ..Extras::default()
        }
    }
}

struct Own {
    // This is dropped first. So the brokers have ended when the machine is dropped and waits for them.
    guard: Guard,
    machine: Box<dyn Machine>,
    doors: Doors,
}

/// The id of the cluster, and the addresses of the brokers.
struct Doors {
    cluster: String,
    addresses: Vec<String>,
    back_doors: Vec<BackDoor>,
    extra_doors: Vec<(&'static str, String)>,
}

impl Doors {
    fn of(cluster: &Layout, host: &str) -> Doors {
        let (addresses, back_doors) = cluster.doors(host);
        Doors { cluster: cluster.id.clone(), addresses, back_doors, extra_doors: cluster.extra_doors(host) }
    }
}

/// A second listener of one of our brokers, for a proxy between the broker and its clients.
#[derive(Clone, Debug)]
pub struct BackDoor {
    /// The address on which the broker listens.
    pub address: String,
    /// The port of this machine that the broker tells clients of this listener to connect to. Nothing listens there
    /// until a proxy is started.
    pub advertised: u16,
}

impl Sandbox {
    /// Starts a cluster of our own, on which faults may be caused. Docker runs it if an engine answers. Otherwise Java
    /// and Maven run it on this machine.
    pub fn start_own(brokers: usize) -> Result<Sandbox> {
        Self::start_own_with(brokers, &Extras::default())
    }

    /// [`Sandbox::start_own`], with more listeners and other properties.
    pub fn start_own_with(brokers: usize, extras: &Extras) -> Result<Sandbox> {
        ensure!(brokers == 1 || brokers == 3, "a sandbox has 1 or 3 brokers, not {brokers}");
        if extras.other_version || extras.has_clocks || !docker::answers() {
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
        tracing::warn!("Docker answers but cannot run a broker, so Java runs it: {err:#}");
        Self::local(brokers, extras)
    }

    /// Starts two clusters of our own side by side, of so many brokers. Each has a cluster id of its own, and shares
    /// nothing with the other.
    pub fn start_two(first: usize, second: usize) -> Result<[Sandbox; 2]> {
        Self::start_two_with(first, second, &Extras::default())
    }

    /// [`Sandbox::start_two`], with more listeners and other properties.
    pub fn start_two_with(first: usize, second: usize, extras: &Extras) -> Result<[Sandbox; 2]> {
        thread::scope(|scope| {
            let first = scope.spawn(|| Self::start_own_with(first, extras));
            let second = Self::start_own_with(second, extras);
            let first = first.join().map_err(|_| anyhow!("the start of the first cluster panicked"))?;
            Ok([first?, second?])
        })
    }

    /// The broker properties of a cluster of our own, without those for its listeners and roles: for tests that start
    /// a broker by other means.
    pub fn settings(brokers: usize) -> Vec<(&'static str, String)> {
        config::settings(brokers)
    }

    /// Connects to somebody else's cluster, whose brokers must not be broken.
    pub fn connect(bootstrap: &str) -> Result<Sandbox> {
        let (_, ids) = probe::brokers(bootstrap, Duration::from_secs(15)).map_err(|err| {
            anyhow!(
                "{bootstrap} does not answer: start that cluster, or name no cluster, so that one is started ({err})"
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
        let libs = jars::libs(version::chosen()?)?;
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
        let other = if extras.other_version { Some(jars::libs(OTHER_VERSION)?) } else { None };
        let (machine, guard) = local::Local::new(cluster, java, libs, archive, other)?;
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

    /// The brokers' listeners for proxies. A cluster that is not ours has none.
    pub fn back_doors(&self) -> &[BackDoor] {
        self.own.as_ref().map_or(&[], |own| &own.doors.back_doors)
    }

    /// The doors through which the brokers reach each other, by number; none if they do so directly.
    pub fn doors_between(&self) -> Vec<BackDoor> {
        self.own.as_ref().map_or(Vec::new(), |own| own.machine.doors_between())
    }

    /// The next restart of this broker is by the other version of Kafka. Returns that version; `None` if there is only one.
    pub fn change_version(&mut self, broker: usize) -> Result<Option<&'static str>> {
        Ok(self.own(broker)?.machine.change_version(broker))
    }

    /// The address of an extra listener of the first broker.
    pub fn extra_door(&self, name: &str) -> Option<&str> {
        let doors = &self.own.as_ref()?.doors.extra_doors;
        doors.iter().find(|(of, _)| *of == name).map(|(_, address)| address.as_str())
    }

    /// The program that runs the brokers.
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

    /// Ends a broker with SIGTERM, and waits until it has handed over its partitions and ended.
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

    /// The broker's writes fail, as on a full disk: those to a log behind the end that the longest log of a topic has now, and so
    /// many bytes; or all of them. Kafka then ends. Its restart finds room again. Returns whether this can be done: only to brokers
    /// of Java on Linux.
    pub fn fill_disk(&mut self, broker: usize, room: Option<(&str, u64)>) -> Result<bool> {
        self.own(broker)?.machine.fill_disk(broker, room)
    }

    /// Sets a broker's clock ahead of the machine's by so many seconds, or behind it. The broker notices within a second. Needs
    /// [`Extras::has_clocks`].
    pub fn set_clock(&mut self, broker: usize, seconds: i64) -> Result<()> {
        self.own(broker)?.machine.set_clock(broker, seconds)
    }

    /// Whether a broker has not ended.
    pub fn is_running(&mut self, broker: usize) -> Result<bool> {
        Ok(self.own(broker)?.machine.check(broker).is_ok())
    }

    /// Freezes a broker: its connections stay open and nothing answers.
    pub fn pause(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.pause(broker)
    }

    /// Lets a paused broker go on.
    pub fn resume(&mut self, broker: usize) -> Result<()> {
        self.own(broker)?.machine.resume(broker)
    }

    /// Leaves the brokers running after this process. Returns the command line that ends them and removes their files;
    /// `None` for a named cluster, because it is not ours to end.
    pub fn keep(mut self) -> Option<String> {
        let Own { guard, machine, .. } = self.own.take()?;
        let ending = machine.ending();
        guard.dismiss();
        // Its drop would wait for the end of brokers that should stay.
        std::mem::forget(machine);
        Some(ending)
    }

    fn own(&mut self, broker: usize) -> Result<&mut Own> {
        let brokers = self.brokers;
        let Some(own) = self.own.as_mut() else {
            bail!("this cluster is not ours to break: name no cluster, so that one is started");
        };
        ensure!(broker < brokers, "no broker {broker}: the {brokers} are numbered from 0");
        Ok(own)
    }
}

impl Own {
    /// Waits until `broker` itself answers, and knows of all `expected`.
    fn ready(&mut self, broker: usize, expected: &[usize]) -> Result<()> {
        let machine = &mut self.machine;
        probe::ready(&self.doors.addresses[broker], &self.doors.cluster, expected, STARTUP, || {
            machine.check(broker)
        })
    }
}

/// The part of a broker's log that says what is wrong, without Java's stack traces: from the last error on, because Kafka says last
/// why it exits, and goes on after others. If there is none, it is the end of the log.
fn last_lines(log: &[u8]) -> String {
    const LINES: usize = 8;
    let log = String::from_utf8_lossy(log);
    let lines: Vec<&str> =
        log.lines().filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty()).collect();
    let error = lines.iter().rposition(|line| line.contains(" ERROR ") || line.contains(" FATAL "));
    let from = error.unwrap_or(lines.len().saturating_sub(LINES));
    match &lines[from..] {
        [] => "it left no log".to_owned(),
        lines => format!("its log says\n{}", lines[..lines.len().min(LINES)].join("\n")),
    }
}
