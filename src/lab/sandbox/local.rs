//! Brokers that Java runs on this machine.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::archive::Archive;
use super::config::{self, Endpoint, LOCALHOST, Layout, Node};
use super::guard::Guard;
use super::java::Java;
use super::{BackDoor, Machine, OTHER_VERSION, last_lines, version};

/// A process writes its own id into a file before it does anything else, and goes on only if `live` is there. The guard
/// removes `live` before it reads the ids. So it misses no process.
const PREAMBLE: &str = "echo $$ >pid && [ -e ../live ] || exit\n";

/// Kills each broker's process group. Then tries to remove the directory until no process writes to it any more.
const END: &str = r#"
cd "$1" || exit
rm -f live
for pid in */pid; do kill -s KILL -- "-$(cat "$pid")"; done
cd /
for wait in 0 0.1 0.1 0.1 0.2 0.5 1 1 1 1 1; do sleep "$wait"; rm -rf "$1" && exit; done
"#;

/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(60);

pub(super) struct Local {
    dir: PathBuf,
    java: PathBuf,
    libs: PathBuf,
    archive: Archive,
    /// The jars of the other version, if brokers may change it, and which brokers run it.
    other: Option<(PathBuf, Vec<bool>)>,
    cluster: Layout,
    nodes: Vec<Node>,
    /// What `LD_PRELOAD` must be for brokers with clocks of their own.
    faketime: Option<String>,
    /// How the brokers reach each other, if not directly.
    between: Vec<BackDoor>,
    running: Vec<Option<Child>>,
}

impl Local {
    pub(super) fn new(
        cluster: Layout,
        java: &Java,
        libs: &Path,
        archive: Archive,
        other: Option<PathBuf>,
    ) -> Result<(Local, Guard)> {
        let dir = env::temp_dir().join(&cluster.name);
        let cannot = || format!("cannot create {}: set TMPDIR to another directory", dir.display());
        fs::create_dir(&dir).with_context(cannot)?;
        let guard = Guard::new(END, &[dir.display().to_string()])?;
        File::create(dir.join("live")).with_context(cannot)?;

        let endpoint = |port: &u16| Endpoint::at(format!("{LOCALHOST}:{port}"));
        let inner = config::free_ports(2 * cluster.ports.len())?;
        let apart = if cluster.extras.is_apart { cluster.ports.len() } else { 0 };
        let apart = config::free_ports(apart)?;
        let nodes: Vec<Node> = cluster
            .ports
            .iter()
            .zip(inner.chunks_exact(2))
            .enumerate()
            .map(|(broker, (ports, inner))| Node {
                clients: endpoint(&ports.clients),
                proxied: Endpoint {
                    listen: format!("{LOCALHOST}:{}", ports.proxied),
                    advertise: format!("{LOCALHOST}:{}", ports.proxy),
                },
                brokers: Endpoint {
                    listen: format!("{LOCALHOST}:{}", inner[0]),
                    advertise: format!("{LOCALHOST}:{}", apart.get(broker).unwrap_or(&inner[0])),
                },
                controllers: endpoint(&inner[1]),
                extra: ports.extra.iter().map(endpoint).collect(),
            })
            .collect();
        let between = nodes.iter().zip(&apart).map(|(node, advertised)| BackDoor {
            address: node.brokers.listen.clone(),
            advertised: *advertised,
        });
        let faketime = if cluster.extras.has_clocks { Some(faketime()?) } else { None };
        let local = Local {
            faketime,
            between: between.collect(),
            other: other.map(|libs| (libs, vec![true; nodes.len()])),
            dir,
            java: java.program.clone(),
            libs: libs.to_owned(),
            archive,
            cluster,
            running: nodes.iter().map(|_| None).collect(),
            nodes,
        };
        Ok((local, guard))
    }

    fn home(&self, broker: usize) -> PathBuf {
        self.dir.join(broker.to_string())
    }

    fn clock(&self, broker: usize) -> PathBuf {
        self.home(broker).join("clock")
    }

    fn child(&mut self, broker: usize) -> Result<&mut Child> {
        self.running[broker]
            .as_mut()
            .with_context(|| format!("broker {broker} is not running: restart it first"))
    }

    fn signal(&mut self, broker: usize, signal: Signal) -> Result<()> {
        // The child leads its process group and is not reaped yet, so the id is still its own.
        let group = Pid::from_raw(self.child(broker)?.id().try_into()?);
        killpg(group, signal).with_context(|| format!("broker {broker} has ended by itself: restart it"))
    }

    /// Waits for the end of a broker that was told to end.
    fn reap(&mut self, broker: usize, timeout: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.child(broker)?.try_wait()?.is_none() {
            ensure!(
                begun.elapsed() < timeout,
                "broker {broker} does not end in {} s: kill it",
                timeout.as_secs()
            );
            thread::sleep(Duration::from_millis(10));
        }
        self.running[broker] = None;
        // From now on, another process may get this id, so the guard must not find it.
        fs::remove_file(self.home(broker).join("pid")).context("a broker's files are gone")
    }
}

impl Machine for Local {
    fn start(&mut self, broker: usize) -> Result<()> {
        let home = self.home(broker);
        let log = fs::create_dir_all(&home)
            .and_then(|()| File::options().create(true).append(true).open(home.join("log")))
            .with_context(|| format!("cannot write to {}", home.display()))?;
        if self.faketime.is_some() && !self.clock(broker).exists() {
            self.set_clock(broker, 0)?;
        }
        let other = self.other.as_ref().filter(|(_, runs_it)| runs_it[broker]).map(|(libs, _)| libs);
        // The archive is of the usual version's classes.
        let archive = if other.is_some() { &Archive::None } else { &self.archive };
        let child = Command::new("sh")
            .arg("-c")
            .arg([PREAMBLE, config::LAUNCH].concat())
            .envs(self.faketime.iter().flat_map(|library| {
                [
                    ("LD_PRELOAD", library.clone()),
                    ("FAKETIME_TIMESTAMP_FILE", self.clock(broker).display().to_string()),
                    ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                    // The time that Java measures waits by goes on as it is. Without the second one, Java waits for no time at all.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                    ("FAKETIME_FORCE_MONOTONIC_FIX", "0".to_owned()),
                ]
            }))
            .envs(self.cluster.variables(&self.nodes, broker))
            .envs(archive.variables())
            .env("JAVA", &self.java)
            .env("LIBS", other.unwrap_or(&self.libs))
            .current_dir(&home)
            // Ctrl-C is for us, not for the brokers.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("no file handles left")?)
            .stderr(log)
            .spawn()
            .context("cannot run `sh`")?;
        self.running[broker] = Some(child);
        Ok(())
    }

    fn kill(&mut self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGKILL)?;
        self.reap(broker, STOP)
    }

    fn stop(&mut self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGTERM)?;
        self.reap(broker, STOP)
    }

    fn pause(&mut self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGSTOP)
    }

    fn resume(&mut self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGCONT)
    }

    fn doors_between(&self) -> Vec<BackDoor> {
        self.between.clone()
    }

    fn change_version(&mut self, broker: usize) -> Option<&'static str> {
        let (_, runs_it) = self.other.as_mut()?;
        runs_it[broker] = !runs_it[broker];
        if runs_it[broker] { Some(OTHER_VERSION) } else { version::chosen().ok() }
    }

    fn fill_disk(&mut self, broker: usize, room: Option<(&str, u64)>) -> Result<bool> {
        let pid = self.child(broker)?.id();
        let data = self.home(broker).join("data");
        let longest = match room {
            Some((topic, bytes)) => longest_log(&data, topic).context("a broker's files are gone")? + bytes,
            None => 0,
        };
        let limit = format!("--fsize={longest}:");
        match Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status() {
            Ok(status) => {
                ensure!(status.success(), "prlimit {limit}: {status}");
                Ok(true)
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err).context("prlimit"),
        }
    }

    fn set_clock(&mut self, broker: usize, seconds: i64) -> Result<()> {
        ensure!(self.faketime.is_some(), "this broker has the machine's clock");
        // A reader must not find half of it.
        let part = self.home(broker).join("clock.part");
        fs::write(&part, format!("{seconds:+}\n"))
            .and_then(|()| fs::rename(&part, self.clock(broker)))
            .context("a broker's files are gone")
    }

    fn check(&mut self, broker: usize) -> Result<()> {
        if let Some(status) = self.child(broker)?.try_wait()? {
            self.reap(broker, STOP)?;
            let log = fs::read(self.home(broker).join("log")).unwrap_or_default();
            bail!("broker {broker} ended ({status}): {}", last_lines(&log));
        }
        Ok(())
    }

    fn ending(&self) -> String {
        let groups: Vec<String> =
            self.running.iter().flatten().map(|child| format!("-{}", child.id())).collect();
        let dir = self.dir.display();
        format!("kill -s KILL -- {}; sleep 1; rm -rf '{dir}'", groups.join(" "))
    }
}

/// The library that gives a process another clock; libfaketime's own command knows where it is.
fn faketime() -> Result<String> {
    let output = Command::new("faketime")
        .args(["-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .context("a broker's clock can only be set by libfaketime, which has a command `faketime` (apt-get install faketime)")?;
    let library = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(output.status.success() && !library.is_empty(), "`faketime` does not work: {}", output.status);
    Ok(library)
}

/// The bytes of the longest log segment of `topic`; 0 if there is none.
fn longest_log(data: &Path, topic: &str) -> std::io::Result<u64> {
    let mut longest = 0;
    for partition in fs::read_dir(data)? {
        let partition = partition?;
        let is_of_topic = |name: &str| name.rsplit_once('-').is_some_and(|(of, _)| of == topic);
        if !partition.file_name().to_str().is_some_and(is_of_topic) {
            continue;
        }
        for file in fs::read_dir(partition.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                longest = longest.max(file.metadata()?.len());
            }
        }
    }
    Ok(longest)
}

impl Drop for Local {
    fn drop(&mut self) {
        // The guard has ended them. Nobody else reaps them while this process lives.
        for child in self.running.iter_mut().flatten() {
            let _ = child.wait();
        }
    }
}
