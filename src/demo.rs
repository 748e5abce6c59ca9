//! The whole story on a broker of its own: load, break, plan, fill, verify, fill again.

use std::cell::RefCell;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::chart::{Histogram, timestamps};
use crate::cli::{Common, DemoArgs, GenerateArgs, LoadArgs, Output};
use crate::client::Properties;
use crate::dashboard::Dashboard;
use crate::error::{Error, Result};
use crate::event_time::EventTime;
use crate::fill::fill;
use crate::interrupt::Interrupt;
use crate::job::{INDEX_MEMORY, Job, Mode, Rules, Selection};
use crate::load::load;
use crate::progress::Progress;
use crate::receipt::Receipt;
use crate::sandbox::{Backend, Sandbox};
use crate::sink::{Sinking, sink};
use crate::store;
use crate::verify::{Comparison, verify};
use crate::{generate, window};

/// Tells a part of the story, where `--output json` leaves stdout to the one object, on stderr.
macro_rules! say {
    ($output:expr, $($told:tt)*) => { tell($output, format_args!($($told)*)) };
}

/// Not println!, which panics where the reader has gone: the story is told to its end all the same.
fn tell(output: Output, told: fmt::Arguments<'_>) {
    let _ = match output {
        Output::Text => writeln!(std::io::stdout(), "{told}"),
        Output::Json => writeln!(std::io::stderr(), "{told}"),
    };
}

const PARTITIONS: u16 = 3;
const RECORDS: u64 = 30_000;
const SEED: u64 = 1;

/// Runs the demonstration, telling each step.
///
/// # Errors
/// [`Error::Failed`] where no broker can be started, or where a step does not do what it must.
pub fn demo(args: &DemoArgs, common: &Common, progress: Progress, interrupt: &Interrupt) -> Result<()> {
    let sandbox = common
        .cluster()
        .map_or_else(|| Sandbox::start_own(1), Sandbox::connect)
        .map_err(|e| Error::io("a broker for the demo", format!("{e:#}")))?;
    tracing::info!("on Kafka at {} ({})", sandbox.bootstrap(), sandbox.backend());
    let stage = Stage::new(args, common, &sandbox, progress, interrupt)?;
    stage.play(args)?;
    if args.open || (common.output == Output::Text && std::io::stdout().is_terminal()) {
        stage.show(args.open)?;
    }
    if args.keep {
        stage.leave(args, sandbox);
    }
    Ok(())
}

struct Stage<'a> {
    job: Job,
    data: PathBuf,
    _generated: Option<tempfile::TempDir>,
    /// Of the fills, for the page.
    receipts: RefCell<Vec<Receipt>>,
    output: Output,
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    fn new(
        args: &DemoArgs,
        common: &Common,
        sandbox: &Sandbox,
        progress: Progress,
        interrupt: &'a Interrupt,
    ) -> Result<Stage<'a>> {
        let bootstrap = sandbox.bootstrap();
        let properties = Properties::new(
            Some(bootstrap),
            common.command_config.as_deref(),
            std::env::vars_os(),
            &common.property,
        )?;
        // On somebody's own cluster, topics of the usual names may be theirs.
        let suffix = match sandbox.backend() {
            Backend::Named => format!("-demo-{}", chrono::Utc::now().timestamp_millis()),
            _ => String::new(),
        };
        let (data, generated) = match &args.data {
            Some(file) => (file.clone(), None),
            None => {
                let dir = tempfile::tempdir().map_err(|e| Error::io("a directory for the events", e))?;
                let file = dir.path().join("events.json.gz");
                let args = GenerateArgs { records: RECORDS, seed: SEED, out: file.clone() };
                generate::generate(&args, progress, interrupt)?;
                say!(common.output, "generated {RECORDS} events of an interactive music-video service\n");
                (file, Some(dir))
            }
        };
        let job = Job::new(Selection {
            properties,
            source: format!("topicA{suffix}"),
            target: format!("topicB{suffix}"),
            window: args.window,
            date: None,
            event_time: EventTime::Timestamp,
            rules: Rules::by(args.identity.clone()),
            index_memory: INDEX_MEMORY,
            patience: Duration::from_secs(90),
        });
        Ok(Stage {
            job,
            data,
            _generated: generated,
            receipts: RefCell::default(),
            output: common.output,
            progress,
            interrupt,
        })
    }

    fn play(&self, args: &DemoArgs) -> Result<()> {
        let (a, b) = (&self.job.selection.source, &self.job.selection.target);
        say!(self.output, "1. load {a}, and {b} with a hole at {}", args.window);
        for (topic, except) in [(a, None), (b, Some(args.window))] {
            say!(self.output, "{}", self.load(args, topic, except)?);
        }
        self.charts("before")?;

        say!(self.output, "2. plan: what would a fill do?");
        let (plan, result) = fill(&self.job, Mode::Plan, self.progress, self.interrupt);
        self.tell_run(&plan, &result);
        result?;

        say!(self.output, "3. fill");
        let first = self.fill()?;
        say!(self.output, "4. verify: compare every record of the window");
        let comparison = Comparison { selection: self.job.selection.clone(), strict_order: false };
        let (findings, result) = verify(&comparison, self.progress, self.interrupt);
        if matches!(result, Ok(()) | Err(Error::Different(_))) {
            say!(self.output, "{findings}\n");
        }
        result?;

        say!(self.output, "5. fill again, as somebody on call would");
        let again = self.fill()?;
        self.charts("after")?;
        if Some(first.counts.written) != plan.to_write || again.counts.written != 0 {
            return Err(Error::failed(format!(
                "planned {:?}, wrote {}, and then {} again",
                plan.to_write, first.counts.written, again.counts.written
            )));
        }
        say!(self.output, "filled {} records exactly once; the second run wrote 0", first.counts.written);
        Ok(())
    }

    /// Both topics on a page, until Ctrl-C.
    fn show(&self, open: bool) -> Result<()> {
        let selection = &self.job.selection;
        let dir = tempfile::tempdir().map_err(|e| Error::io("a directory for the page's store", e))?;
        let url = format!("sqlite:{}", dir.path().join("demo.db").display());
        let sinking = Sinking {
            properties: selection.properties.clone(),
            topics: vec![selection.source.clone(), selection.target.clone()],
            store: url.clone(),
            follow: false,
            patience: selection.patience,
        };
        sink(&sinking, self.progress, self.interrupt).1?;
        for receipt in self.receipts.borrow().iter() {
            store::keep_receipt(&url, receipt)?;
        }
        let page = Dashboard::open(&url, (Ipv4Addr::LOCALHOST, 0).into(), &[])?;
        let address = format!("{}?source={}&target={}", page.url(), selection.source, selection.target);
        say!(self.output, "\nlook at both topics at\n  {address}\nuntil Ctrl-C");
        if open && let Err(err) = open::that_detached(&address) {
            tracing::warn!("no browser was opened: {err}");
        }
        page.serve(self.interrupt)
    }

    fn load(
        &self,
        args: &DemoArgs,
        topic: &str,
        except: Option<window::WindowSpec>,
    ) -> Result<crate::load::LoadReceipt> {
        let args = LoadArgs {
            file: self.data.clone(),
            topic: topic.to_owned(),
            fields: args.fields.clone(),
            partitions: PARTITIONS,
            except,
            date: None,
            skip_invalid: false,
        };
        let (receipt, result) = load(&args, &self.job.selection.properties, self.progress, self.interrupt);
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
            say!(self.output, "{receipt}\n");
        }
    }

    /// Both topics over the source's time.
    fn charts(&self, when: &str) -> Result<()> {
        say!(self.output, "\n{when}:");
        let read = |topic: &str| timestamps(&self.job.selection.properties, topic, self.interrupt);
        let (a, b) = (read(&self.job.selection.source)?, read(&self.job.selection.target)?);
        let quarter = 15 * 60_000;
        let floor = a.iter().min().map_or(0, |first| first.div_euclid(quarter) * quarter);
        let ceiling = a.iter().max().map_or(0, |last| (last.div_euclid(quarter) + 1) * quarter);
        let a = Histogram::new(&self.job.selection.source, &a, (floor, ceiling));
        let b = Histogram::new(&self.job.selection.target, &b, (floor, ceiling)).scaled_as(&a);
        say!(self.output, "{a}\n{b}\n");
        Ok(())
    }

    fn leave(&self, args: &DemoArgs, sandbox: Sandbox) {
        let bootstrap = sandbox.bootstrap().to_owned();
        let end = sandbox.keep();
        say!(
            self.output,
            "\nThe broker stays up at {bootstrap}. Try, with `cargo run --release --` for `replicator`:"
        );
        say!(self.output, "  export KAFKA_BOOTSTRAP_SERVERS={bootstrap}");
        let topics = format!("--source {} --target {}", self.job.selection.source, self.job.selection.target);
        for line in [
            format!("replicator --window {} {topics}", args.window),
            format!("replicator plan --window 10:00-11:00 {topics} --output json"),
            format!("replicator verify --window {} {topics}", args.window),
        ] {
            say!(self.output, "  {line}");
        }
        if let Some(end) = end {
            say!(self.output, "and end it with\n  {end}");
        }
    }
}
