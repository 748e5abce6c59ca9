//! A source in a cluster that asks for a password, and a target in a cluster that asks for a certificate. The two
//! clusters trust different authorities.

use std::path::Path;

use super::broker::{MUTUAL, SASL, escaped};
use super::ways::scram_user;
use super::*;

pub(super) const PASSWORD: &str = "crossing-hunter2";

/// The topics of a job between the two secured clusters, and the files by which principals get in.
pub(super) struct Crossing {
    pub source: String,
    pub target: String,
    dir: tempfile::TempDir,
}

/// A user of the source's cluster, who is also somebody with a certificate of the target's.
pub(super) struct Person {
    user: String,
    /// The principal in the target's cluster.
    in_target: String,
    /// The PEM of the key that belongs to the certificate.
    pub key: String,
    certificate: PathBuf,
}

impl Person {
    /// In the source's cluster.
    pub(super) fn principal(&self) -> String {
        format!("User:{}", self.user)
    }
}

/// The properties of a client, `bootstrap.servers` too.
pub(super) type Client = Vec<(String, String)>;

/// Where the properties stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In one file, with the prefixes `source.` and `target.`.
    OneFile,
    Environment,
    /// In a file for each cluster, without prefixes.
    TwoFiles,
    /// In one file, but the secrets in the environment.
    SecretsInEnvironment,
}

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Source,
    Target,
    Ledger,
    Group,
    TransactionalId,
    /// The ids that begin with the transactional id and `/`.
    LongerIds,
}

/// The source's records, placed by key, as instances that share the work need them.
pub(super) fn records() -> Vec<Record> {
    placed(day(600, 1), 2)
}

/// The source's cluster, and the target's, as principals that may do everything.
pub(super) fn from() -> Side {
    Side(Broker::get().plain().to_owned())
}

pub(super) fn to() -> Side {
    Side(Broker::second().plain().to_owned())
}

impl Crossing {
    /// A source of a day, and a target that lacks the window.
    pub(super) fn new() -> Crossing {
        let name = format!("crossing-{}", number());
        Crossing::between(&format!("{name}-a"), &format!("{name}-b"))
    }

    /// [`Crossing::new`], with topics of one name.
    pub(super) fn same_name() -> Crossing {
        let name = format!("crossing-{}", number());
        Crossing::between(&name, &name)
    }

    fn between(source: &str, target: &str) -> Crossing {
        let records = records();
        for (side, topic, records) in
            [(from(), source, records.clone()), (to(), target, outside_of(&records))]
        {
            side.create(topic, 2, &[]);
            side.produce(topic, &records);
        }
        let dir = tempfile::tempdir().expect("a directory");
        Crossing { source: source.to_owned(), target: target.to_owned(), dir }
    }

    /// The job that copies the target to the source.
    pub(super) fn reversed(&self) -> Crossing {
        let dir = tempfile::tempdir().expect("a directory");
        Crossing { source: self.target.clone(), target: self.source.clone(), dir }
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A new user in the source's cluster, with a new certificate of the target's authority.
    pub(super) fn person(&self) -> Person {
        self.person_signed(|name| Broker::second().authority.sign(name, &[]))
    }

    pub(super) fn person_signed(
        &self,
        sign: impl Fn(&str) -> (rcgen::Certificate, rcgen::KeyPair),
    ) -> Person {
        let common_name = format!("mary-{}", number());
        let (certificate, key) = sign(&common_name);
        let certificate = self.file(&format!("{common_name}.pem"), &certificate.pem());
        let user = scram_user("sandy", PASSWORD);
        let in_target = format!("User:CN={common_name}");
        Person { user, in_target, key: key.serialize_pem(), certificate }
    }

    /// The user of SASL/PLAIN, who is the same in both clusters.
    pub(super) fn paul(&self) -> Person {
        Person { user: "paul".to_owned(), in_target: "User:paul".to_owned(), ..self.person() }
    }

    /// How a person gets into the source's cluster.
    pub(super) fn to_source(&self, person: &Person) -> Client {
        let authority = self.file("source-ca.pem", &Broker::get().authority.pem());
        client(&[
            ("bootstrap.servers", Broker::get().door(SASL)),
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", shown(&authority)),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", &person.user),
            ("sasl.password", PASSWORD),
        ])
    }

    /// How a person gets into the target's cluster.
    pub(super) fn to_target(&self, person: &Person) -> Client {
        let authority = self.file("target-ca.pem", &Broker::second().authority.pem());
        client(&[
            ("bootstrap.servers", Broker::second().door(MUTUAL)),
            ("security.protocol", "SSL"),
            ("ssl.ca.location", shown(&authority)),
            ("ssl.certificate.location", shown(&person.certificate)),
            ("ssl.key.pem", &person.key),
        ])
    }

    /// The binary, with these properties and both topics.
    pub(super) fn command(&self, sides: (&Client, &Client), way: Way, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").stdin(Stdio::null()).args(arguments);
        command.args(["--source", &self.source, "--target", &self.target]);
        let mut file = String::new();
        for (word, client) in [("source", sides.0), ("target", sides.1)] {
            let mut own = String::new();
            for (key, value) in client {
                let is_secret = ["sasl.password", "ssl.key.pem"].contains(&key.as_str());
                match way {
                    Way::Environment => drop(command.env(variable(word, key), value)),
                    Way::SecretsInEnvironment if is_secret => drop(command.env(variable(word, key), value)),
                    Way::TwoFiles => own += &format!("{key}={}\n", escaped(value)),
                    Way::OneFile | Way::SecretsInEnvironment => {
                        file += &format!("{word}.{key}={}\n", escaped(value));
                    }
                }
            }
            if !own.is_empty() {
                let path = self.file(&format!("{word}-{}.properties", number()), &own);
                command.arg(format!("--{word}-command-config")).arg(path);
            }
        }
        if !file.is_empty() {
            command.arg("-F").arg(self.file(&format!("client-{}.properties", number()), &file));
        }
        command
    }

    /// Runs a command for a person, and returns its output.
    pub(super) fn run_for(&self, person: &Person, arguments: &[&str]) -> Output {
        let sides = (&self.to_source(person), &self.to_target(person));
        self.command(sides, Way::OneFile, arguments).output().expect("runs")
    }

    /// The group, and the transactional id of a run without `--scale-out`.
    pub(super) fn job(&self) -> String {
        let Crossing { source, target, .. } = self;
        format!("replicator/{}/{source}/{target}", raw::topic_id(&from(), source))
    }

    pub(super) fn ledger(&self) -> String {
        format!("replicator.{}.{}.internal", raw::topic_id(&from(), &self.source), self.source)
    }

    /// The name of the resource.
    pub(super) fn named(&self, on: On) -> String {
        match on {
            On::Source => self.source.clone(),
            On::Target => self.target.clone(),
            On::Ledger => self.ledger(),
            On::Group | On::TransactionalId => self.job(),
            On::LongerIds => format!("{}/", self.job()),
        }
    }

    /// Allows a person these operations.
    pub(super) fn grant(&self, person: &Person, grants: impl IntoIterator<Item = (On, i8)>) {
        grants.into_iter().for_each(|right| self.control(person, right, raw::ALLOW));
    }

    /// Allows a person to see whether the reversed job is at work, in the source's cluster.
    pub(super) fn grant_describe_of_reversed(&self, person: &Person) {
        let id = raw::topic_id(&to(), &self.target);
        let ledger = format!("replicator.{id}.{}.internal", self.target);
        let group = format!("replicator/{id}/{}/{}", self.target, self.source);
        for (resource, name) in [(TOPIC, &ledger), (GROUP, &group)] {
            let (principal, operation) = (&person.principal(), DESCRIBE);
            let (pattern, permission) = (raw::LITERAL, raw::ALLOW);
            let entry = raw::Entry { principal, resource, name, pattern, operation, permission };
            raw::control(Broker::get().plain(), &entry);
        }
    }

    /// Takes a right away, even if it is granted.
    pub(super) fn deny(&self, person: &Person, right: (On, i8)) {
        self.control(person, right, raw::DENY);
    }

    fn control(&self, person: &Person, (on, operation): (On, i8), permission: i8) {
        let (address, principal) = match on {
            On::Source => (Broker::get().plain(), &person.principal()),
            _ => (Broker::second().plain(), &person.in_target),
        };
        let (resource, pattern) = match on {
            On::Source | On::Target | On::Ledger => (TOPIC, raw::LITERAL),
            On::Group => (GROUP, raw::LITERAL),
            On::TransactionalId => (TRANSACTIONAL_ID, raw::LITERAL),
            On::LongerIds => (TRANSACTIONAL_ID, raw::PREFIXED),
        };
        let name = &self.named(on);
        raw::control(address, &raw::Entry { principal, resource, name, pattern, operation, permission });
    }

    /// Both clusters as the run found or left them: the topics' ends, and the names of topics and groups of this job in
    /// the source's cluster.
    pub(super) fn source_state(&self) -> (Vec<(i64, i64)>, Vec<String>, Vec<String>) {
        let side = from();
        let topics = side.topics().into_iter().filter(|name| name.contains(&self.source)).collect();
        let groups = side.groups().into_iter().filter(|name| name.contains(&self.source)).collect();
        (side.watermarks(&self.source), topics, groups)
    }

    pub(super) fn target_ends(&self) -> Vec<(i64, i64)> {
        to().watermarks(&self.target)
    }
}

/// The beginning of each sentence about the cluster at this address.
pub(super) fn place(word: &str, client: &Client) -> String {
    format!("the {word} cluster ({}): ", client[0].1)
}

pub(super) fn client(properties: &[(&str, &str)]) -> Client {
    properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The client with another value for one property.
pub(super) fn with(client: &Client, key: &str, value: &str) -> Client {
    let changed = |(name, old): &(String, String)| {
        (name.clone(), if name == key { value.to_owned() } else { old.clone() })
    };
    client.iter().map(changed).collect()
}

fn variable(word: &str, key: &str) -> String {
    let prefix = if key == "bootstrap.servers" { "KAFKA" } else { "REPLICATOR" };
    format!("{prefix}_{word}_{key}").to_uppercase().replace('.', "_")
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path")
}
