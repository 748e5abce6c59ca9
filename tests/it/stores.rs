//! Real stores for the tests, each started once, and a reading of them that owes nothing to the code under test.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres::{Client, NoTls};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::containers;
use crate::kit::{Record, tell};
use crate::nodes;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    OpenSearch,
    Elasticsearch,
}

/// An empty store of its own for one test.
pub(crate) struct TestStore {
    pub url: String,
    kind: Kind,
    name: String,
    _dir: TempDir,
}

/// A record of the store, with whether its value is to be queried as JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub offset: i64,
    pub record: Record,
    pub is_json: bool,
}

impl TestStore {
    /// `None`, and told, where this machine cannot run it.
    pub(crate) fn new(kind: Kind, name: &str) -> Option<TestStore> {
        let dir = tempfile::tempdir().expect("a directory");
        let name = format!("{name}_{}", std::process::id());
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}", dir.path().join("store.db").display()),
            Kind::Postgres => {
                let at = server(&POSTGRES, start_postgres)?;
                let made = format!("CREATE DATABASE {name}");
                postgres_client(at, "postgres").batch_execute(&made).expect("made");
                format!("postgres://replicator@{at}/{name}")
            }
            Kind::OpenSearch => format!("opensearch+http://{}/{name}", node(kind)?),
            Kind::Elasticsearch => format!("elasticsearch+http://{}/{name}", node(kind)?),
        };
        Some(TestStore { url, kind, name, _dir: dir })
    }

    fn sqlite(&self) -> Connection {
        let connection = Connection::open(&self.url["sqlite:".len()..]).expect("opens");
        connection.busy_timeout(Duration::from_secs(60)).expect("set");
        connection
    }

    fn postgres(&self) -> Client {
        postgres_client(server(&POSTGRES, start_postgres).expect("runs"), &self.name)
    }

    /// Asks OpenSearch or Elasticsearch.
    fn ask(&self, path: &str, query: &Value) -> Value {
        let host = node(self.kind).expect("runs");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent
            .post(format!("http://{host}/{}-{path}", self.name))
            .content_type("application/json")
            .send(query.to_string())
            .expect("an answer");
        serde_json::from_str(
            &answer.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body"),
        )
        .expect("JSON")
    }

    /// `host:port` of the OpenSearch or Elasticsearch of all tests, and the prefix of this one's indices.
    pub(crate) fn place(&self) -> (&str, &str) {
        (node(self.kind).expect("runs"), &self.name)
    }

    /// Records of all topics; 0 before there is a store.
    pub(crate) fn count(&self) -> i64 {
        match self.kind {
            Kind::Sqlite => {
                self.sqlite().query_row("SELECT COUNT(*) FROM records", [], |row| row.get(0)).unwrap_or(0)
            }
            Kind::Postgres => {
                self.postgres().query_one("SELECT COUNT(*) FROM records", &[]).map_or(0, |row| row.get(0))
            }
            Kind::OpenSearch | Kind::Elasticsearch => {
                self.ask("records/_refresh", &json!({}));
                self.ask("records/_count", &json!({"query": {"match_all": {}}}))["count"]
                    .as_i64()
                    .unwrap_or(0)
            }
        }
    }

    /// Makes it a store of a version that was not told where topics end.
    pub(crate) fn forget_ends(&self) {
        match self.kind {
            Kind::Sqlite => self.sqlite().execute_batch("DROP TABLE ends").expect("dropped"),
            Kind::Postgres => self.postgres().batch_execute("DROP TABLE ends").expect("dropped"),
            Kind::OpenSearch | Kind::Elasticsearch => {
                let host = node(self.kind).expect("runs");
                ureq::delete(format!("http://{host}/{}-ends", self.name)).call().expect("deleted");
            }
        }
    }

    /// Makes it a store of a version that did not store at which brokers a sink reached a topic.
    pub(crate) fn forget_brokers(&self) {
        match self.kind {
            Kind::Sqlite => self.sqlite().execute_batch("DROP TABLE topic_brokers").expect("dropped"),
            Kind::Postgres => self.postgres().batch_execute("DROP TABLE topic_brokers").expect("dropped"),
            Kind::OpenSearch | Kind::Elasticsearch => {
                let answer = self.ask("positions/_search", &json!({"size": 1000}));
                for hit in answer["hits"]["hits"].as_array().expect("hits") {
                    let mut position = hit["_source"].clone();
                    position.as_object_mut().expect("a document").remove("bootstrap_server").expect("there");
                    let id = percent_encoding::utf8_percent_encode(
                        hit["_id"].as_str().expect("an id"),
                        percent_encoding::NON_ALPHANUMERIC,
                    );
                    let answer = self.ask(&format!("positions/_doc/{id}?refresh=true"), &position);
                    assert_eq!(answer["result"], "updated", "{answer}");
                }
            }
        }
    }

    /// What the store holds under a topic's name, by topic id, partition and offset.
    pub(crate) fn kept(&self, topic: &str) -> Vec<Kept> {
        self.kept_by("topic", topic)
    }

    /// What the store holds of the topic with this id.
    pub(crate) fn kept_of(&self, topic_id: &str) -> Vec<Kept> {
        self.kept_by("topic_id", topic_id)
    }

    /// The records with this value in this column, by topic id, partition and offset.
    fn kept_by(&self, column: &str, value: &str) -> Vec<Kept> {
        let sql = format!(
            "SELECT partition, \"offset\", time_ms, key, CAST(value AS TEXT), raw, CAST(headers AS TEXT) \
             FROM records WHERE {column} = $1 ORDER BY topic_id, partition, \"offset\""
        );
        let kept =
            |partition: i64, offset, time, key, json: Option<String>, raw, headers: Option<String>| Kept {
                offset,
                is_json: json.is_some(),
                record: Record {
                    partition: i32::try_from(partition).expect("fits"),
                    time,
                    key,
                    value: json.map(String::into_bytes).or(raw),
                    headers: headers.map_or(Vec::new(), |headers| headers_of(&headers)),
                },
            };
        match self.kind {
            Kind::Sqlite => {
                let connection = self.sqlite();
                let mut statement = connection.prepare(&sql).expect("prepared");
                let rows = statement.query_map([value], |r| {
                    Ok(kept(r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?))
                });
                rows.expect("rows").map(|row| row.expect("a row")).collect()
            }
            Kind::Postgres => {
                let rows = self.postgres().query(&sql, &[&value]).expect("rows");
                rows.iter()
                    .map(|r| kept(r.get(0), r.get(1), r.get(2), r.get(3), r.get(4), r.get(5), r.get(6)))
                    .collect()
            }
            Kind::OpenSearch | Kind::Elasticsearch => self.documents(column, value),
        }
    }

    fn documents(&self, field: &str, value: &str) -> Vec<Kept> {
        self.ask("records/_refresh", &json!({}));
        let sort = json!([{"topic_id": "asc"}, {"partition": "asc"}, {"offset": "asc"}]);
        let mut kept = Vec::new();
        let mut after = Value::Null;
        loop {
            let mut query = json!({"size": 5000, "query": {"term": {field: value}}, "sort": sort});
            if !after.is_null() {
                query["search_after"] = after;
            }
            let answer = self.ask("records/_search", &query);
            let hits = answer["hits"]["hits"].as_array().unwrap_or_else(|| panic!("hits: {answer}"));
            let Some(last) = hits.last() else { return kept };
            after = last["sort"].clone();
            kept.extend(hits.iter().map(|hit| document(&hit["_source"])));
        }
    }
}

fn document(source: &Value) -> Kept {
    let bytes =
        |name: &str| source.get(name).map(|v| BASE64.decode(v.as_str().expect("text")).expect("base64"));
    let key = source.get("key").map(|key| key.as_str().expect("text").as_bytes().to_vec());
    // Without spaces, and with numbers as they are printed: the tests' JSON is written so.
    let json = source.get("value").map(|value| value.to_string().into_bytes());
    Kept {
        offset: source["offset"].as_i64().expect("a number"),
        is_json: json.is_some(),
        record: Record {
            partition: i32::try_from(source["partition"].as_i64().expect("a number")).expect("fits"),
            time: source["time_ms"].as_i64().expect("a number"),
            key: key.or_else(|| bytes("key_base64")),
            value: json.or_else(|| bytes("raw_base64")),
            headers: source.get("headers").map_or(Vec::new(), |headers| headers_of(&headers.to_string())),
        },
    }
}

fn headers_of(json: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let headers: Vec<Value> = serde_json::from_str(json).expect("an array");
    let header = |header: &Value| {
        let value =
            header.get("value_base64").map(|v| BASE64.decode(v.as_str().expect("text")).expect("base64"));
        let text = || header["value"].as_str().map(|text| text.as_bytes().to_vec());
        (header["name"].as_str().expect("a name").to_owned(), value.or_else(text))
    };
    headers.iter().map(header).collect()
}

/// A server that ends, and with it what it has written, when this process ends, however it does.
pub(crate) struct Server {
    pub at: String,
    pub _lives: Box<dyn Any + Send + Sync>,
}

static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
static OPENSEARCH: OnceLock<Option<Server>> = OnceLock::new();
static ELASTICSEARCH: OnceLock<Option<Server>> = OnceLock::new();

/// `host:port` of the OpenSearch or Elasticsearch of all tests.
fn node(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Elasticsearch => server(&ELASTICSEARCH, || {
            // It gets the same requests as OpenSearch, and each of these tests takes time.
            if std::env::var_os("REPLICATOR_TEST_ELASTICSEARCH").is_none() {
                return Err("set REPLICATOR_TEST_ELASTICSEARCH=1, as .ci/all does".to_owned());
            }
            nodes::start(&nodes::ELASTICSEARCH)
        }),
        _ => server(&OPENSEARCH, || nodes::start(&nodes::OPENSEARCH)),
    }
}

pub(crate) fn server(
    once: &'static OnceLock<Option<Server>>,
    start: fn() -> Result<Server, String>,
) -> Option<&'static str> {
    let server = once.get_or_init(|| {
        start().map_err(|why| tell(&format!("SKIPPED, and all tests that need it: {why}"))).ok()
    });
    server.as_ref().map(|server| server.at.as_str())
}

/// Runs until the child's stdin ends; then it gets the signal, and the shell does what is to be done `afterwards`.
pub(crate) fn spawn(dir: &Path, signal: &str, afterwards: &str, mut command: Vec<String>) -> Child {
    let script = format!(
        "dir=$1; shift; \"$@\" >\"$dir/log\" 2>&1 & read -r line; kill -s {signal} $!; wait; {afterwards}"
    );
    let mut arguments = vec!["-c".to_owned(), script, "server".to_owned(), dir.display().to_string()];
    arguments.append(&mut command);
    let mut shell = Command::new("sh");
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let shell =
        shell.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    shell.expect("a shell")
}

/// What a server that ends leaves behind.
pub(crate) const REMOVE: &str = "rm -rf \"$dir\"";

pub(crate) fn wait_for(what: &str, dir: &Path, is_up: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_up() {
        if begun.elapsed() > Duration::from_secs(300) {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            return Err(format!(
                "{what} does not start: {}",
                log.lines().last().unwrap_or("it says nothing")
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// `at` as it stands in a URL.
fn postgres_client(at: &str, database: &str) -> Client {
    Client::connect(&format!("postgres://replicator@{at}/{database}"), NoTls).expect("connects")
}

/// PostgreSQL's programs. They refuse to run as root, so then as its own user.
pub(crate) struct Programs {
    bin: PathBuf,
    is_root: bool,
}

impl Programs {
    pub(crate) fn find() -> Result<Programs, String> {
        let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest: Option<PathBuf> = installed.map(|version| version.path().join("bin")).max();
        let bin = newest.ok_or("PostgreSQL is not installed: apt-get install postgresql")?;
        Ok(Programs { bin, is_root: nix_is_root() })
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let program = self.bin.join(program).display().to_string();
        let switch = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let switch = if self.is_root { &switch[..] } else { &[] };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        switch.iter().map(|word| (*word).to_owned()).chain([program]).chain(arguments).collect()
    }

    /// Makes the directory `data` in `dir`, which becomes PostgreSQL's own.
    pub(crate) fn init(&self, dir: &Path, options: &[&str]) -> Result<(), String> {
        let run = |command: Vec<String>| {
            let output = Command::new(&command[0]).args(&command[1..]).current_dir("/").output();
            let output = output.map_err(|e| format!("{}: {e}", command[0]))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
        };
        if self.is_root {
            run(["chown", "-R", "postgres", &dir.display().to_string()].map(str::to_owned).to_vec())?;
        }
        let data = dir.join("data").display().to_string();
        let ours = ["-D", &data, "-U", "replicator", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
        run(self.command("initdb", &[&ours[..], options].concat()))
    }
}

/// PostgreSQL in a container, else on a socket in a directory of its own.
fn start_postgres() -> Result<Server, String> {
    if containers::can_run() {
        match containers::postgres() {
            Ok(container) => {
                return Ok(Server { at: container.address.clone(), _lives: Box::new(container) });
            }
            Err(why) => tell(&format!("no PostgreSQL in a container: {why}")),
        }
    }
    let programs = Programs::find()?;
    let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory").keep();
    programs.init(&dir, &["-A", "trust"])?;
    let (at, data) = (dir.display().to_string(), dir.join("data").display().to_string());
    let options = ["-D", &data, "-k", &at, "-c", "listen_addresses=", "-c", "fsync=off"];
    let pipe = pipe(spawn(&dir, "TERM", REMOVE, programs.command("postgres", &options)));
    let is_up = || {
        let mut config = postgres::Config::new();
        config.host_path(&at).user("replicator").dbname("postgres").connect(NoTls).is_ok()
    };
    wait_for("PostgreSQL", &dir, is_up)?;
    Ok(Server { at: at.replace('/', "%2F"), _lives: Box::new(pipe) })
}

pub(crate) fn pipe(mut shell: Child) -> ChildStdin {
    shell.stdin.take().expect("a pipe")
}

fn nix_is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout.starts_with(b"0\n")
}
