//! Brokers that ask who a client is, and what the client must bring.

mod acls;
pub(crate) mod broker;
mod crossing;
mod errors;
mod follow_acls;
mod lost_rights;
mod two;
mod two_acls;
mod ways;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use replicator::{topics::Topics, topics::delivered, topics::send};

use self::broker::Broker;
use crate::kit::*;
use crate::raw;

pub(crate) const ANY: i8 = 2;
pub(crate) const READ: i8 = 3;
pub(crate) const WRITE: i8 = 4;
pub(crate) const CREATE: i8 = 5;
pub(crate) const ALTER: i8 = 7;
pub(crate) const DESCRIBE: i8 = 8;
pub(crate) const DESCRIBE_CONFIGS: i8 = 10;

/// The operation's name, as `kafka-acls.sh` prints it.
pub(crate) fn word(operation: i8) -> &'static str {
    match operation {
        READ => "Read",
        WRITE => "Write",
        CREATE => "Create",
        ALTER => "Alter",
        DESCRIBE => "Describe",
        _ => "DescribeConfigs",
    }
}

pub(crate) const TOPIC: i8 = 2;
pub(crate) const GROUP: i8 = 3;
pub(crate) const TRANSACTIONAL_ID: i8 = 5;

/// A user's topics on the secured broker, and the file by which it gets in.
pub(crate) struct Story {
    pub a: String,
    pub b: String,
    dir: tempfile::TempDir,
    listener: &'static str,
}

/// What one access control entry allows, of a story's own topics.
pub(crate) type Grant = (i8, &'static str, i8);

/// All that a fill needs, and the compared configuration.
pub(crate) const FILL: [Grant; 7] = [
    (TOPIC, "a", READ),
    (TOPIC, "b", READ),
    (TOPIC, "b", WRITE),
    (GROUP, "name", READ),
    (TRANSACTIONAL_ID, "name", WRITE),
    (TOPIC, "a", DESCRIBE_CONFIGS),
    (TOPIC, "b", DESCRIBE_CONFIGS),
];

pub(crate) fn number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Story {
    pub(crate) fn new(listener: &'static str) -> Story {
        let number = number();
        let dir = tempfile::tempdir().expect("a directory");
        Story { a: format!("secure-a-{number}"), b: format!("secure-b-{number}"), dir, listener }
    }

    pub(crate) fn topics() -> Topics {
        Topics::new(Broker::get().plain())
    }

    /// A source of a day, and a target that lacks the window.
    pub(crate) fn filled_but_for_the_window(self) -> Story {
        let (topics, records) = (Self::topics(), day(600, 2));
        for (topic, records) in [(&self.a, records.clone()), (&self.b, outside_of(&records))] {
            topics.create(topic, 2, 1).expect("made");
            let producer = topics.producer(None).expect("a producer");
            send(&producer, topic, &records).expect("sent");
            delivered(&producer).expect("delivered");
        }
        self
    }

    pub(crate) fn grant(&self, principal: &str, grants: &[Grant]) {
        self.control(principal, grants, raw::ALLOW);
    }

    /// Takes rights away, even if they are granted.
    pub(crate) fn deny(&self, principal: &str, grants: &[Grant]) {
        self.control(principal, grants, raw::DENY);
    }

    fn control(&self, principal: &str, grants: &[Grant], permission: i8) {
        for (resource, name, operation) in grants {
            let fill = format!("replicator/{}/{}", self.a, self.b);
            let load = format!("replicator/load/{}/", self.a);
            let (longer, reversed) = (format!("{fill}/"), format!("replicator/{}/{}", self.b, self.a));
            let (name, pattern) = match *name {
                "a" => (&self.a, raw::LITERAL),
                "b" => (&self.b, raw::LITERAL),
                "name" => (&fill, raw::LITERAL),
                "name/" => (&longer, raw::PREFIXED),
                "reversed" => (&reversed, raw::LITERAL),
                _ => (&load, raw::PREFIXED),
            };
            let (resource, operation) = (*resource, *operation);
            let entry = raw::Entry { principal, resource, name, pattern, operation, permission };
            raw::control(Broker::get().plain(), &entry);
        }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        path
    }

    /// The binary with `properties` in a file for -F.
    pub(crate) fn command(&self, properties: &str, arguments: &[&str]) -> Command {
        let file = self.file("client.properties", properties);
        let address = match self.listener {
            "PLAIN" => Broker::get().plain(),
            listener => Broker::get().door(listener),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
        command.args(arguments).arg("-F").arg(file).args(["--bootstrap-server", address]);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, properties: &str, arguments: &[&str]) -> Output {
        self.command(properties, arguments).output().expect("runs")
    }

    pub(crate) fn selection(&self) -> [&str; 6] {
        ["--window", "11:00-13:00", "--source", &self.a, "--target", &self.b]
    }

    /// Plan, fill, verify, and fill again.
    pub(crate) fn play(&self, properties: &str) {
        let run = |command: &[&str]| {
            let output = self.run(properties, &[command, &self.selection(), &["--output", "json"]].concat());
            assert_eq!(code(&output), 0, "{command:?}: {}", stderr(&output));
            receipt(&output)
        };
        let window = window_of(&Self::topics().consume(&self.a, 2).expect("reads")).len();
        assert!(window > 0);
        assert_eq!(run(&["plan"])["to_write"], window);
        assert_eq!(run(&[])["written"], window);
        assert_eq!(run(&["verify"])["missing"], 0);
        assert_eq!(run(&[])["written"], 0);
        let sorted = |topic: &str| {
            let mut records = Self::topics().consume(topic, 2).expect("reads");
            records.sort();
            records
        };
        assert_same(&sorted(&self.b), &sorted(&self.a));
    }
}
