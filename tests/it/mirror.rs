//! MirrorMaker 2 between two clusters, exactly once, with the settings that the benches give it (`benches/peers`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use replicator::KAFKA_VERSION;
use tempfile::TempDir;

use crate::kit::*;

const SETTINGS: &str = include_str!("../../benches/peers/mirror.properties");

/// Prints the id of MirrorMaker's process. A line on the standard input ends that process cleanly. The end of the
/// input, which comes even if SIGKILL ends the tests, kills it.
const GUARD: &str = "\"$@\" & echo $!; if read -r line; then kill $!; else kill -9 $!; fi; wait $!";

/// A running MirrorMaker 2. Dropping it kills it.
pub(crate) struct MirrorMaker {
    guard: Child,
    pid: String,
    _settings: TempDir,
}

impl MirrorMaker {
    /// Mirrors one topic to a topic of the same name; `None` without Java and Maven.
    pub(crate) fn start(from: &Side, to: &Side, topic: &str) -> Option<MirrorMaker> {
        let libs = libs()?;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("mirror.properties");
        // An alias names MirrorMaker's internal topics in the target cluster.
        let (a, b) = (unique("from"), unique("to"));
        let mut settings = SETTINGS.to_owned();
        for (name, value) in [
            ("{a}", a.as_str()),
            ("{b}", &b),
            ("{from}", &from.0),
            ("{to}", &to.0),
            ("{topic}", topic),
            ("{tasks}", "3"),
        ] {
            settings = settings.replace(name, value);
        }
        // Kafka waits so long until it aborts the transactions of a MirrorMaker that was killed.
        settings.push_str(&format!("{b}.producer.transaction.timeout.ms = 10000\n"));
        fs::write(&file, settings).expect("written");
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard", "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", libs.display()))
            .arg("org.apache.kafka.connect.mirror.MirrorMaker")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().expect("a pipe")).read_line(&mut pid).expect("an id");
        Some(MirrorMaker { guard, pid: pid.trim().to_owned(), _settings: directory })
    }

    /// Stands still: it keeps its connections, and its open transactions in the target.
    pub(crate) fn freeze(&self) {
        assert!(Command::new("kill").args(["-STOP", &self.pid]).status().expect("kill").success());
    }

    /// Ends it cleanly.
    pub(crate) fn stop(mut self) {
        self.guard.stdin.take().expect("a pipe").write_all(b"stop\n").expect("told");
        self.guard.wait().expect("ended");
    }
}

impl Drop for MirrorMaker {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Waits until a topic holds `count` committed records. MirrorMaker needs many seconds before its first record.
pub(crate) fn await_records(side: &Side, topic: &str, count: usize) -> Vec<Record> {
    let begun = Instant::now();
    loop {
        let records = side.consume(topic);
        if records.len() >= count {
            return records;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "{} of {count} records came", records.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The directory of MirrorMaker's jars, which `benches/peers/run` uses too. Maven fetches them if they are missing.
fn libs() -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libs = root.join("target/peers/java");
    if libs.join(format!("connect-mirror-{KAFKA_VERSION}.jar")).exists() {
        return Some(libs);
    }
    let pom = root.join("benches/peers/java/pom.xml");
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-f"])
        .arg(pom)
        .arg(format!("-Dkafka.version={KAFKA_VERSION}"))
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .stdin(Stdio::null())
        .status();
    match fetched {
        Ok(status) => assert!(status.success(), "Maven could not fetch MirrorMaker 2"),
        Err(why) => {
            tell(&format!("not tried: Maven and Java run MirrorMaker 2 ({why})"));
            return None;
        }
    }
    Some(libs)
}
