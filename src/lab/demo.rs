//! Shows the whole story on a broker that it starts: load, break, plan, fill, verify, fill again.

use std::cell::RefCell;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::base::shell::line;
use crate::base::zone::Tz;
use crate::compare::chart::Histogram;
use crate::compare::verify::{Comparison, verify};
use crate::dashboard::Dashboard;
use crate::fill::fill;
use crate::fill::receipt::Receipt;
use crate::generate::{Generating, generate};
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::schema::Schemas;
use crate::job::window::WindowSpec;
use crate::job::{INDEX_MEMORY, Job, Mode, Rules, Selection};
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::properties::Properties;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sides::Sides;
use crate::kafka::topic::Topic;
use crate::lab::sandbox::{Backend, Sandbox};
use crate::lab::tidy;
use crate::load::{Given, LoadReceipt, Loading, load};
use crate::sink::store;
use crate::sink::{Sinking, sink};

/// Tells a part of the story on stdout. With `--output json`, it goes to stderr, because stdout is for the one object.
macro_rules! say {
    ($on_stderr:expr, $($told:tt)*) => { tell($on_stderr, format_args!($($told)*)) };
}

/// println! would panic if the reader is gone. The demo goes on to its end without a reader.
fn tell(on_stderr: bool, told: fmt::Arguments<'_>) {
    let _ =
        if on_stderr { writeln!(std::io::stderr(), "{told}") } else { writeln!(std::io::stdout(), "{told}") };
}

/// The options of the demo.
pub struct Showing {
    /// An existing cluster. Without it, the demo starts one.
    pub cluster: Option<String>,
    /// Start two clusters, one for each topic.
    pub two_clusters: bool,
    pub properties: Sides<Properties>,
    /// A file of events. Without it, the demo generates them.
    pub data: Option<PathBuf>,
    pub given: Given,
    pub window: WindowSpec,
    pub identity: Identity,
    /// Leave the broker running at the end.
    pub keep: bool,
    /// Open the page in a browser.
    pub open: bool,
    /// Tell the story on stderr, because stdout is for one JSON object.
    pub on_stderr: bool,
}

const PARTITIONS: u16 = 3;
const RECORDS: u64 = 30_000;
const SEED: u64 = 1;

/// Runs the demo, and tells each step.
///
/// # Errors
/// [`Error::Failed`] if no broker can be started, or if a step does not do what it must.
pub fn demo(showing: &Showing, progress: Progress, interrupt: &Interrupt) -> Result<()> {
    let sandboxes = match &showing.cluster {
        Some(named) => Sandbox::connect(named).map(|named| vec![named]),
        None if showing.two_clusters => Sandbox::start_two(1, 1).map(Vec::from),
        None => Sandbox::start_own(1).map(|own| vec![own]),
    };
    let sandboxes = sandboxes.map_err(|e| Error::io("a broker for the demo", format!("{e:#}")))?;
    for sandbox in &sandboxes {
        tracing::info!("on Kafka at {} ({})", sandbox.bootstrap(), sandbox.backend());
    }
    let stage = Stage::new(showing, &sandboxes, progress, interrupt)?;
    let is_watched = showing.open || (!showing.on_stderr && std::io::stdout().is_terminal());
    let result =
        stage.play(showing).and_then(|()| if is_watched { stage.show(showing.open) } else { Ok(()) });
    if showing.keep && result.is_ok() {
        stage.leave(showing, sandboxes);
    } else if stage.is_on_named {
        stage.remove().unwrap_or_else(|err| tracing::warn!("topics and groups are left there: {err}"));
    }
    result
}

struct Stage<'a> {
    job: Job,
    data: PathBuf,
    _generated: Option<tempfile::TempDir>,
    /// The receipts of the fills, for the page.
    receipts: RefCell<Vec<Receipt>>,
    /// The cluster is not of this demo.
    is_on_named: bool,
    on_stderr: bool,
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    fn new(
        showing: &Showing,
        sandboxes: &[Sandbox],
        progress: Progress,
        interrupt: &'a Interrupt,
    ) -> Result<Stage<'a>> {
        // Of one cluster, the first sandbox is the last one too.
        let at = |properties: &Properties, sandbox: Option<&Sandbox>| {
            properties.clone().at(sandbox.map_or("", Sandbox::bootstrap))
        };
        let properties = Sides {
            source: at(&showing.properties.source, sandboxes.first()),
            target: at(&showing.properties.target, sandboxes.last()),
        };
        // On a named cluster, topics with the usual names may belong to somebody.
        let is_on_named = sandboxes.first().map(Sandbox::backend) == Some(Backend::Named);
        let suffix = match is_on_named {
            true => format!("-demo-{}", chrono::Utc::now().timestamp_millis()),
            false => String::new(),
        };
        let (data, generated) = match &showing.data {
            Some(file) => (file.clone(), None),
            None => {
                let dir = tempfile::tempdir().map_err(|e| Error::io("a directory for the events", e))?;
                let file = dir.path().join("events.json.gz");
                let generating = Generating { records: RECORDS, seed: SEED, out: file.clone() };
                generate(&generating, progress, interrupt)?;
                say!(showing.on_stderr, "generated {RECORDS} events of an interactive music-video service\n");
                (file, Some(dir))
            }
        };
        let job = Job::new(Selection {
            properties,
            source: format!("topicA{suffix}"),
            target: format!("topicB{suffix}"),
            window: showing.window,
            date: None,
            zone: Tz::UTC,
            event_time: EventTime::Timestamp,
            schemas: Schemas::default(),
            rules: Rules::by(showing.identity.clone()),
            index_memory: INDEX_MEMORY,
            patience: Duration::from_secs(90),
            max_out_of_orderness: None,
        });
        Ok(Stage {
            job,
            data,
            _generated: generated,
            receipts: RefCell::default(),
            is_on_named,
            on_stderr: showing.on_stderr,
            progress,
            interrupt,
        })
    }

    fn play(&self, showing: &Showing) -> Result<()> {
        let (a, b) = (&self.job.selection.source, &self.job.selection.target);
        let Sides { source, target } = &self.job.selection.properties;
        let into = |properties: &Properties, name: &str| match showing.two_clusters {
            true => format!(" into the {name} cluster ({})", properties.bootstrap()),
            false => String::new(),
        };
        say!(
            self.on_stderr,
            "1. load {a}{}, and {b}{} with a gap at {}",
            into(source, "source"),
            into(target, "target"),
            showing.window
        );
        for (properties, topic, except) in [(source, a, None), (target, b, Some(showing.window))] {
            say!(self.on_stderr, "{}", self.load(showing, properties, topic, except)?);
        }
        self.charts("before")?;

        say!(self.on_stderr, "2. plan: what would a fill do?");
        let (plan, result) = fill(&self.job, Mode::Plan, self.progress, self.interrupt);
        self.tell_run(&plan, &result);
        result?;

        say!(self.on_stderr, "3. fill");
        let first = self.fill()?;
        say!(self.on_stderr, "4. verify: compare every record of the window");
        let comparison = Comparison {
            selection: self.job.selection.clone(),
            strict_order: false,
            list: None,
            latest_only: false,
        };
        let (findings, result) = verify(&comparison, self.progress, self.interrupt);
        if matches!(result, Ok(()) | Err(Error::Different(_))) {
            say!(self.on_stderr, "{findings}\n");
        }
        result?;

        say!(self.on_stderr, "5. fill again, as somebody on call would");
        let again = self.fill()?;
        self.charts("after")?;
        if Some(first.counts.written) != plan.to_write || again.counts.written != 0 {
            return Err(Error::failed(format!(
                "planned {:?} records, wrote {}, and then wrote {} again",
                plan.to_write, first.counts.written, again.counts.written
            )));
        }
        say!(self.on_stderr, "filled {} records exactly once; the second run wrote 0", first.counts.written);
        Ok(())
    }

    /// Serves a page with both topics, until Ctrl-C.
    fn show(&self, open: bool) -> Result<()> {
        let selection = &self.job.selection;
        let dir = tempfile::tempdir().map_err(|e| Error::io("a directory for the page's store", e))?;
        let url = format!("sqlite:{}", dir.path().join("demo.db").display());
        let Sides { source, target } = &selection.properties;
        for (properties, topic) in [(source, &selection.source), (target, &selection.target)] {
            let sinking = Sinking {
                schemas: Schemas::default(),
                properties: properties.clone(),
                topics: vec![topic.clone()],
                store: url.clone(),
                follow: false,
                patience: selection.patience,
            };
            sink(&sinking, self.progress, self.interrupt).1?;
        }
        for receipt in self.receipts.borrow().iter() {
            store::keep_receipt(&url, receipt)?;
        }
        let page = Dashboard::open(&url, (Ipv4Addr::LOCALHOST, 0).into(), &[])?;
        let address = format!("{}?source={}&target={}", page.url(), selection.source, selection.target);
        say!(self.on_stderr, "\nlook at both topics at\n  {address}\nuntil you press Ctrl-C");
        if open && let Err(err) = open::that_detached(&address) {
            tracing::warn!("no browser was opened: {err}");
        }
        page.serve(self.interrupt)
    }

    fn load(
        &self,
        showing: &Showing,
        properties: &Properties,
        topic: &str,
        except: Option<WindowSpec>,
    ) -> Result<LoadReceipt> {
        let loading = Loading {
            file: self.data.clone(),
            topic: topic.to_owned(),
            given: showing.given.clone(),
            partitions: PARTITIONS,
            except,
            date: None,
            skip_invalid: false,
        };
        let (receipt, result) = load(&loading, properties, self.progress, self.interrupt);
        result.map(|()| receipt.unwrap_or_default())
    }

    fn fill(&self) -> Result<Receipt> {
        let (receipt, result) = fill(&self.job, Mode::Fill, self.progress, self.interrupt);
        self.tell_run(&receipt, &result);
        self.receipts.borrow_mut().push(receipt.clone());
        result.map(|()| receipt)
    }

    fn tell_run(&self, receipt: &Receipt, result: &Result<()>) {
        if receipt.has_read(result) {
            say!(self.on_stderr, "{receipt}\n");
        }
    }

    /// Prints both topics over the time of the source.
    fn charts(&self, when: &str) -> Result<()> {
        say!(self.on_stderr, "\n{when}:");
        let Sides { source, target } = &self.job.selection.properties;
        let a = timestamps(source, &self.job.selection.source, self.interrupt)?;
        let b = timestamps(target, &self.job.selection.target, self.interrupt)?;
        let quarter = 15 * 60_000;
        let floor = a.iter().min().map_or(0, |first| first.div_euclid(quarter) * quarter);
        let ceiling = a.iter().max().map_or(0, |last| (last.div_euclid(quarter) + 1) * quarter);
        let a = Histogram::new(&self.job.selection.source, once_each(&a), (floor, ceiling), Tz::UTC);
        let b = Histogram::new(&self.job.selection.target, once_each(&b), (floor, ceiling), Tz::UTC)
            .scaled_as(&a);
        say!(self.on_stderr, "{a}\n{b}\n");
        Ok(())
    }

    /// Removes the topics from a cluster that is not of this demo, with the groups of the loads and fills.
    fn remove(&self) -> Result<()> {
        let Selection { source, target, properties, .. } = &self.job.selection;
        tidy::remove(&properties.source, &[source, target])
    }

    fn leave(&self, showing: &Showing, sandboxes: Vec<Sandbox>) {
        let addresses: Vec<String> = sandboxes.iter().map(|sandbox| sandbox.bootstrap().to_owned()).collect();
        let mut ends: Vec<String> = sandboxes.into_iter().filter_map(Sandbox::keep).collect();
        let selection = &self.job.selection;
        let what = match addresses.len() {
            _ if self.is_on_named => "the topics",
            1 => "the broker",
            _ => "the brokers",
        };
        if self.is_on_named {
            let names = format!("{}|{}", selection.source, selection.target);
            ends.push(selection.properties.source.tool("kafka-topics.sh", &["--delete", "--topic", &names]));
        }
        say!(self.on_stderr, "\nThe demo keeps {what} at {}. Try these:", addresses.join(" and "));
        if let Some(folder) = folder_beside_path() {
            say!(self.on_stderr, "  export PATH={}:\"$PATH\"", line(&[folder]));
        }
        let window = showing.window.to_string();
        for words in [
            &["fill", "--window", &window][..],
            &["plan", "--window", "10:00-11:00", "--output", "json"],
            &["verify", "--window", &window],
        ] {
            say!(self.on_stderr, "  {}", selection.line(words, &selection.rules.identity));
        }
        say!(self.on_stderr, "and remove {what} with\n  {}", ends.join("\n  "));
    }
}

/// The folder of this program, unless a shell finds the program without it.
fn folder_beside_path() -> Option<String> {
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("replicator")).find(|file| file.is_file());
    let is_own = found.and_then(|file| std::fs::canonicalize(file).ok()).is_some_and(|file| file == own);
    if is_own { None } else { Some(own.parent()?.to_string_lossy().into_owned()) }
}

/// Each timestamp as one record.
fn once_each(timestamps: &[i64]) -> impl Iterator<Item = (i64, u64)> + '_ {
    timestamps.iter().map(|time| (*time, 1))
}

/// Reads all of a topic and returns its timestamps, in milliseconds since the epoch.
///
/// # Errors
/// As [`Reader`].
fn timestamps(properties: &Properties, topic: &str, interrupt: &Interrupt) -> Result<Vec<i64>> {
    let group = "replicator/chart";
    let cluster = Cluster::connect(properties, group)?;
    let found: Topic = cluster
        .topic(topic)?
        .ok_or_else(|| Error::refused(format!("there is no topic {topic}")).because(Reason::MissingTopic))?;
    let (starts, ends): (Vec<_>, Vec<_>) =
        cluster.watermarks(&found)?.iter().map(|w| (w.low, w.high)).unzip();
    let patience = std::time::Duration::from_secs(30);
    cluster.wait_until_stable(&found, &ends, patience, interrupt)?;
    let reading = Reading { properties, group, topic, isolation: Isolation::ReadCommitted, patience };
    let mut timestamps = Vec::new();
    let reader = Reader::open(&reading, &Range::all(&starts, &ends))?;
    reader.for_each(interrupt, &indicatif::ProgressBar::hidden(), |message, ()| {
        timestamps.push(message.timestamp().0);
        Ok(())
    })?;
    Ok(timestamps)
}
