//! The command line, as clap sees it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Properties;
use crate::dashboard::host;
use crate::drill::schedule::Fault;
use crate::error::{Error, Result};
use crate::event_time::{EventTime, parse_date};
use crate::identity::Identity;
use crate::job::{Job, OnConflict, Rules, Selection, TargetScan, TransactionLimits};
use crate::json::Pointer;
use crate::rate::MaxRate;
use crate::sink::Sinking;
use crate::verify::Comparison;
use crate::window::{Window, WindowSpec};

/// Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub fill: FillArgs,
    /// Keep the receipt in this store too, for the dashboard
    #[arg(long, env = "REPLICATOR_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,
    /// Share the partitions with other instances of this very command, on any machines; each ends when all is done
    #[arg(long)]
    pub scale_out: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The main job.
    ///
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn job(&self) -> Result<Job> {
        let job = self.fill.job(&self.common)?;
        if !self.scale_out {
            return Ok(job);
        }
        if !matches!(job.selection.rules.identity, Identity::Key | Identity::KeyAndValue | Identity::Record) {
            return Err(Error::usage(
                "--scale-out goes with --identity key, key+value or record: of others, no instance could know what the \
                 others write",
            ));
        }
        if job.selection.rules.target_scan == TargetScan::All || job.limit.is_some() {
            return Err(Error::usage("--scale-out goes without --target-scan all and --limit"));
        }
        Ok(Job { scale_out: true, ..job })
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, safe to run again; 2 usage; 3 refused before anything was written;
4 verify found a difference; 5 another run took over; 130 interrupted, the transaction was aborted.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a fill would do; writes nothing and disturbs no running fill
    Plan(FillArgs),
    /// Find the holes: when does the target lack records that the source has?
    Gaps(GapsArgs),
    /// Compare every record of the window in both topics
    Verify(VerifyArgs),
    /// Load a file of JSON events into a topic, each line exactly once
    Load(LoadArgs),
    /// Make a file of events of an interactive music-video service
    Generate(GenerateArgs),
    /// Keep topics in a database, each record once, to be queried and looked at
    Sink(SinkArgs),
    /// Serve a page that shows what the store holds: both topics, what is missing, the last runs
    Dashboard(DashboardArgs),
    /// Show it all on a broker started for it: load, break, plan, fill, verify, fill again
    Demo(DemoArgs),
    /// Kill runs and brokers on a cluster started for it, and compare every record afterwards
    Drill(DrillArgs),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual's page of the program, or of a sub-command, as roff
    #[command(hide = true)]
    Man { command: Option<String> },
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The brokers to ask first, as host:port, separated by commas [default: those of KAFKA_BOOTSTRAP_SERVERS in the
    /// environment, else of the file for -F, else localhost:9092; demo and drill start their own]
    #[arg(
        short,
        long,
        global = true,
        visible_aliases = ["bootstrap-servers", "brokers"],
        value_name = "HOSTS"
    )]
    pub bootstrap_server: Option<String>,
    /// A client property of librdkafka, as key=value; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true)]
    pub property: Vec<String>,
    /// A file of client properties; REPLICATOR_SASL_PASSWORD and the like in the environment beat it
    #[arg(short = 'F', long, value_name = "FILE", global = true)]
    pub command_config: Option<PathBuf>,
    /// How the result is printed on stdout
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    pub output: Output,
    /// No progress, and only errors on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More on stderr; twice, librdkafka's own log too
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// How the log is written on stderr; json is one object a line
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT", global = true)]
    pub log_format: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl Common {
    /// The cluster that is named by flag, if one is: for what writes topics of its own, the environment's is too easily
    /// the wrong one.
    pub fn cluster(&self) -> Option<&str> {
        self.bootstrap_server.as_deref().filter(|bootstrap| !bootstrap.trim().is_empty())
    }

    /// # Errors
    /// [`Error::Usage`] names the property that is refused.
    pub fn properties(&self) -> Result<Properties> {
        Properties::new(self.cluster(), self.command_config.as_deref(), std::env::vars_os(), &self.property)
    }
}

/// Two topics, and what their records are compared by.
#[derive(Clone, Debug, Args)]
pub struct TopicsArgs {
    /// The topic that has the records
    #[arg(long, default_value = "topicA", value_name = "TOPIC")]
    pub source: String,
    /// The topic with the gap
    #[arg(long, default_value = "topicB", value_name = "TOPIC")]
    pub target: String,
    /// Take the event time from this field of the JSON value, not from the record's timestamp
    #[arg(long, value_name = "POINTER")]
    pub time_field: Option<Pointer>,
    /// What makes two records the same one: key, key+value, value or field:/pointer; or record, which counts equal
    /// records (key, value, headers and timestamp), and fits where keys are user or device ids
    #[arg(long, default_value = "key")]
    pub identity: Identity,
    /// What to do where one identity has two contents
    #[arg(long, value_enum, default_value = "fail")]
    pub on_conflict: OnConflict,
    /// Leave out records without identity or event time, and count them
    #[arg(long)]
    pub skip_invalid: bool,
    /// Which records of the target are compared
    #[arg(long, value_enum, default_value = "window")]
    pub target_scan: TargetScan,
    /// MiB that the index of identities may take (20 to 60 bytes each)
    #[arg(long, default_value = "1024", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub index_memory: u32,
    /// Seconds to wait without progress, as on another producer's open transaction
    #[arg(long, default_value = "90", value_name = "SECONDS", value_parser = patience())]
    pub patience: u64,
}

/// Which records of which topics.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    #[command(flatten)]
    pub topics: TopicsArgs,
    /// The gap, half-open and in UTC: 11:00-13:00, 11:00-, -13:00 or 2021-04-14T11:00Z/2021-04-14T13:00Z
    #[arg(long, required = true, value_name = "WINDOW", allow_hyphen_values = true)]
    pub window: Option<WindowSpec>,
    /// The day of a window in times of day; by default the one that the source's first and last records are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    pub date: Option<NaiveDate>,
}

#[derive(Clone, Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Fill a target that is compacted
    #[arg(long)]
    pub allow_compacted_target: bool,
    /// Records in a transaction, at most; it also ends after a second, or 256 MiB
    #[arg(long, default_value = "1000000", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub transaction_records: u32,
    /// Write no faster than this: records as 5000/s, or bytes as 10MB/s
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<MaxRate>,
    /// Stop after N records, at a committed point (exit 0, `complete: false`); without it, a run goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Answer Prometheus here while it runs, as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub metrics_listen: Option<SocketAddr>,
}

impl FillArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn job(&self, common: &Common) -> Result<Job> {
        Ok(Job {
            selection: self.selection.selection(common)?,
            allow_compacted_target: self.allow_compacted_target,
            limits: TransactionLimits {
                records: self.transaction_records as usize,
                ..TransactionLimits::default()
            },
            max_rate: self.max_rate,
            limit: self.limit,
            scale_out: false,
        })
    }
}

impl SelectionArgs {
    fn selection(&self, common: &Common) -> Result<Selection> {
        let window =
            self.window.ok_or_else(|| Error::usage("--window is missing, as in --window 11:00-13:00"))?;
        self.topics.selection(common, window, self.date)
    }
}

impl TopicsArgs {
    fn selection(&self, common: &Common, window: WindowSpec, date: Option<NaiveDate>) -> Result<Selection> {
        match (window, date) {
            (WindowSpec::Instants(_), Some(_)) => {
                return Err(Error::usage(
                    "--date goes with a window in times of day; this one has its dates",
                ));
            }
            (window, Some(date)) => drop(window.on(date).map_err(Error::usage)?),
            (_, None) => {}
        }
        Ok(Selection {
            properties: common.properties()?,
            source: self.source.clone(),
            target: self.target.clone(),
            window,
            date,
            event_time: self.time_field.clone().map_or(EventTime::Timestamp, EventTime::Field),
            rules: Rules {
                identity: self.identity.clone(),
                on_conflict: self.on_conflict,
                skip_invalid: self.skip_invalid,
                target_scan: self.target_scan,
            },
            index_memory: (self.index_memory as usize) << 20,
            patience: Duration::from_secs(self.patience),
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct GapsArgs {
    #[command(flatten)]
    topics: TopicsArgs,
    /// Where to look, as the fill takes it; by default in all of both topics
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    window: Option<WindowSpec>,
    /// The day of a window in times of day; by default the one that the source's first and last records are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date, requires = "window")]
    date: Option<NaiveDate>,
    /// Missing records that are closer together than this are one hole
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub bucket: Duration,
}

impl GapsArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        let everywhere = WindowSpec::Instants(Window { start: None, end: None });
        self.topics.selection(common, self.window.unwrap_or(everywhere), self.date)
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Another order or partition than the source's is a difference too
    #[arg(long)]
    pub strict_order: bool,
}

impl VerifyArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn comparison(&self, common: &Common) -> Result<Comparison> {
        Ok(Comparison { selection: self.selection.selection(common)?, strict_order: self.strict_order })
    }
}

#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// JSON Lines or one JSON array, plain or gzipped
    pub file: PathBuf,
    /// The topic; made where it is missing
    #[arg(long)]
    pub topic: String,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Partitions of a topic that is made
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: u16,
    /// Leave out the events of this window
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    pub except: Option<WindowSpec>,
    /// The day of --except; by default the one day that the file's events are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    pub date: Option<NaiveDate>,
    /// Leave out lines that are no event, and count them
    #[arg(long)]
    pub skip_invalid: bool,
}

/// Where an event's key and time are.
#[derive(Clone, Debug, Args)]
pub struct FieldArgs {
    /// The field that becomes the record's key; guessed where one is plain
    #[arg(long, value_name = "POINTER")]
    pub key_field: Option<Pointer>,
    /// The field that becomes the record's timestamp; guessed where one is plain
    #[arg(long, value_name = "POINTER")]
    pub time_field: Option<Pointer>,
}

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    #[arg(long, default_value = "30000", value_name = "N")]
    pub records: u64,
    /// The same seed gives the same bytes
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Gzipped where it ends in .gz
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Events to show it on; generated where none is given
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub fields: FieldArgs,
    #[arg(long, default_value = "11:00-13:00", value_name = "WINDOW", allow_hyphen_values = true)]
    pub window: WindowSpec,
    /// What makes two records the same one: key, key+value, value or field:/pointer; or record, which counts equal
    /// records (key, value, headers and timestamp), and fits where keys are user or device ids
    #[arg(long, default_value = "key")]
    pub identity: Identity,
    /// Leave the broker up at the end, and print what to try on it
    #[arg(long)]
    pub keep: bool,
    /// Open the page with both topics in a browser; it is served until Ctrl-C
    #[arg(long)]
    pub open: bool,
}

#[derive(Clone, Debug, Args)]
pub struct SinkArgs {
    /// A topic to keep; may be repeated
    #[arg(long, required = true, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Where to: sqlite:FILE, postgres://USER@HOST/DATABASE or opensearch+https://HOST:PORT; a URL with a password goes
    /// into the environment
    #[arg(long, env = "REPLICATOR_STORE", hide_env_values = true, value_name = "URL")]
    pub store: String,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Seconds to wait without progress, as on another producer's open transaction
    #[arg(long, default_value = "90", value_name = "SECONDS", value_parser = patience())]
    pub patience: u64,
}

impl SinkArgs {
    /// # Errors
    /// [`Error::Usage`] names the property that is refused.
    pub fn sinking(&self, common: &Common) -> Result<Sinking> {
        Ok(Sinking {
            properties: common.properties()?,
            topics: self.topic.clone(),
            store: self.store.clone(),
            follow: self.follow,
            patience: Duration::from_secs(self.patience),
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DashboardArgs {
    /// The store that `sink` writes
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        default_value = "sqlite:replicator.db",
        value_name = "URL"
    )]
    pub store: String,
    /// Where the page is served; to other machines only where you say so, as with 0.0.0.0:8080
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = parse_address)]
    pub listen: SocketAddr,
    /// A name that the page may be asked for by, besides localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host::parse)]
    pub allowed_host: Vec<String>,
}

/// With no patience at all, the first wait of a few milliseconds would end a run. Who would wait for ever says a week.
fn patience() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=604_800)
}

fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address and a port; write 127.0.0.1:8080".to_owned())
}

fn brokers() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", "3"]).map(|number| if number == "1" { 1 } else { 3 })
}

#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    // Stands for the global option of the same name, whose alias `--brokers` means something else here.
    /// A cluster to drill on, without faults of brokers; by default one is started
    #[arg(short, long, value_name = "HOSTS")]
    bootstrap_server: Option<String>,
    /// Brokers of the cluster that is started: 1 or 3
    #[arg(long, default_value = "3", value_parser = brokers())]
    pub brokers: usize,
    /// Records of the source
    #[arg(long, default_value = "10000", value_name = "N")]
    pub records: usize,
    /// The faults to cause; by default all, in scenarios that take turns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS")]
    pub faults: Vec<Fault>,
    /// Of the first round; the next round's is one more. The same seed gives the same schedule
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// How long to begin new rounds, as in 90s, 2m or 1h; one round is always played
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}
