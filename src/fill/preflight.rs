//! Makes the checks that an expert would make before a run. It reports all objections at once, each as a sentence with
//! its fix.

use chrono::Utc;
use rdkafka::error::RDKafkaErrorCode;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::time::rfc3339;
use crate::fill::compression;
use crate::fill::differences::{self, Difference};
use crate::fill::follow::marks;
use crate::job::checks::{Intent, Objections, Severity};
use crate::job::ledger::{Ledger, Topics};
use crate::job::limits::{Configuration, Limits};
use crate::job::window::Window;
use crate::job::{Job, Mode, TargetScan};
use crate::kafka::client::TRANSACTION_TIMEOUT;
use crate::kafka::follow_mark::FollowMark;
use crate::kafka::mark::Fingerprint;
use crate::kafka::offsets;
use crate::kafka::properties::Properties;
use crate::kafka::sides::{Clusters, Sides};
use crate::kafka::topic::Topic;

/// How long a follow's producer waits for more records of a batch, in milliseconds.
const FOLLOWS_LINGER: &str = "10";

/// The result of the checks.
pub(crate) struct Preflight {
    pub source: Topic,
    pub target: Topic,
    pub ledger: Ledger,
    /// The properties of the run's producer.
    pub producing: Properties,
    pub warnings: Vec<String>,
    /// The largest batch that the target takes, in bytes.
    pub batch_bytes: usize,
    /// Which records the target accepts and keeps. No limit is known if its configuration is not visible.
    pub limits: Limits,
    /// `None` if the target's configuration is not visible.
    pub target_is_compacted: Option<bool>,
    /// How the topics differ, as far as their configurations are visible.
    pub differences: Vec<Difference>,
}

/// Checks the permissions, and compares the target's configuration with the window. Writes nothing. If the window could
/// not be resolved, that is one finding among the others.
///
/// # Errors
/// [`Error::Refused`] with every reason why the run would fail, or lose or double records; [`Error::Failed`] if the
/// only reason is a state of the cluster that may pass.
pub(crate) fn check(
    clusters: &Clusters,
    job: &Job,
    topics: Topics,
    mode: Mode,
    window: Option<Result<Window>>,
    interrupt: &Interrupt,
) -> Result<(Preflight, Option<Window>)> {
    let properties = &job.selection.properties;
    let Topics { sides: Sides { source, target }, ledger } = topics;
    let mut objections = Objections::default();
    let may_read = check_access(&mut objections, properties, &source, &target, mode);
    if mode == Mode::Plan {
        let follows = FollowMark::job(&source.id, &target.id);
        check_ledger(objections.of(&properties.target), clusters, &ledger, &follows, interrupt)?;
    }
    let needs_window = window.is_some();
    let window = match window {
        None => None,
        // If the source cannot be read, `check_access` has said so already.
        Some(Err(Error::Refused(why))) => {
            if may_read {
                objections.of(&properties.source).refuse(why.reason().unwrap_or(Reason::Refused), why.text);
            }
            None
        }
        Some(window) => Some(window?),
    };
    objections.of(&properties.target);
    if let Some(max) = clusters.target.transaction_max_timeout(&target.name)
        && max < i64::try_from(TRANSACTION_TIMEOUT.as_millis()).unwrap_or(i64::MAX)
    {
        let sentence = format!(
            "the brokers' transaction.max.timeout.ms={max} is below the {} that a run needs; raise it on all brokers",
            TRANSACTION_TIMEOUT.as_millis()
        );
        objections.refuse(Reason::TopicConfiguration, sentence);
    }
    let of_source = clusters.source.configuration(&[&source.name])?.and_then(|mut all| all.pop());
    let of_target = clusters.target.configuration(&[&target.name])?.and_then(|mut all| all.pop());
    let producing = compression::chosen(properties, of_source.as_ref().map(Configuration));
    // A follow's transaction is open for long before its commit, so its records need not wait for that.
    let producing = if job.follow.is_some() { producing.lingering(FOLLOWS_LINGER) } else { producing };
    let mut limits = Limits::default();
    let mut differences = Vec::new();
    let target_config = of_target.as_ref().map(Configuration);
    let source_config = of_source.as_ref().map(Configuration);
    match target_config {
        Some(config) => {
            let now = Utc::now().timestamp_millis();
            let bootstrap = properties.target.bootstrap();
            limits = Limits::of(&target.name, bootstrap, producing.are_compressing(), config, now);
            intent(job, window, !needs_window).check(&mut objections, &target, config, &limits);
        }
        None => objections.warn(format!(
            "the configuration of {} is not visible to this principal, so retention, compaction and timestamp type were \
             not checked; grant it DescribeConfigs on the topic",
            target.name
        )),
    }
    match source_config {
        Some(config) => check_source(objections.of(&properties.source), job, config),
        None => objections.of(&properties.source).warn(format!(
            "the configuration of {} is not visible to this principal, so it was not compared with the target's; grant \
             it DescribeConfigs on the topic",
            source.name
        )),
    }
    if let Some((source_config, target_config)) = source_config.zip(target_config) {
        check_sizes(objections.of(&properties.target), job, source_config, target_config);
        let (source, target) = ((&source, source_config), (&target, target_config));
        differences = differences::between(source, target, &properties.target);
    }
    if let Some(reversed) = reversed(job, clusters, &ledger, (&source, &target), interrupt)? {
        objections.of(&properties.source).refuse(Reason::ReversedJob, reversed);
    }
    objections.settle()?;
    if needs_window && window.is_none() {
        // An unknown window was refused above.
        return Err(Error::refused("the window is unknown"));
    }
    let batch_bytes = limits.batch_bytes();
    let target_is_compacted = target_config.map(|config| config.is_compacted());
    let warnings = objections.warnings;
    Ok((
        Preflight {
            source,
            target,
            ledger,
            producing,
            warnings,
            batch_bytes,
            limits,
            target_is_compacted,
            differences,
        },
        window,
    ))
}

/// The sentence that refuses a run beside a reversed job, if there is one. A fill does not copy a copy back, since it
/// compares; so it goes on if nobody can see whether there is one. A follow would copy each record round and round.
fn reversed(
    job: &Job,
    clusters: &Clusters,
    ledger: &Ledger,
    (source, target): (&Topic, &Topic),
    interrupt: &Interrupt,
) -> Result<Option<String>> {
    if job.follow.is_none() && ledger.is_source() {
        return Ok(None);
    }
    let unseen = format!(
        "whether a job copies {} back to {} could not be seen: this takes Describe on that job's topic and on its group in \
         the source cluster, and its coordinator's answer",
        target.name, source.name
    );
    match ledger.is_reversed_at_work(clusters, (source, target), interrupt) {
        Ok(false) => Ok(None),
        Ok(true) => Ok(Some(format!(
            "instances that copy {} to {} are at work, the other way round; end them first",
            target.name, source.name
        ))),
        Err(Error::Refused(_)) if job.follow.as_ref().is_some_and(|follow| !follow.allow_unchecked_loop) => {
            Ok(Some(format!(
                "{unseen}; grant these, or follow anyway with --allow-unchecked-loop: two runs that follow each other copy \
                 each record round and round"
            )))
        }
        // A follow waits for the coordinator. A fill needs no group of the source's cluster, so it does not wait.
        Err(err @ Error::Restart { .. }) if job.follow.is_some() => Err(err),
        Err(Error::Refused(_) | Error::Restart { .. }) => {
            tracing::info!("{unseen}");
            Ok(None)
        }
        Err(err) => Err(err),
    }
}

impl Preflight {
    /// Looks once more for a reversed job.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is one.
    pub(super) fn check_reversed(&self, job: &Job, clusters: &Clusters, interrupt: &Interrupt) -> Result<()> {
        match reversed(job, clusters, &self.ledger, (&self.source, &self.target), interrupt)? {
            Some(why) => {
                let failed = Error::failed(why).because(Reason::ReversedJob);
                Err(clusters.source.properties().says(failed))
            }
            None => Ok(()),
        }
    }
}

/// Finds missing permissions on the topics, as far as the broker tells them in advance, and returns whether this
/// principal may read the source. A plan needs no permission to write, so it only warns. Permissions on the group are
/// not checked: only its coordinator knows them, and a request for them ends the process if the coordinator dies
/// meanwhile (librdkafka#4605).
fn check_access(
    objections: &mut Objections,
    properties: &Sides<Properties>,
    source: &Topic,
    target: &Topic,
    mode: Mode,
) -> bool {
    let of_topic = |doing: &str, operation, Topic { name, .. }: &Topic| {
        Error::topic(format!("{doing} {name}"), operation, name, RDKafkaErrorCode::TopicAuthorizationFailed)
    };
    let may_read = source.access.is_none_or(|may| may.read);
    if !may_read {
        let why = of_topic("reading", "Read", source).to_string();
        objections.of(&properties.source).refuse(Reason::NoPermission, why);
    }
    objections.of(&properties.target);
    if target.access.is_some_and(|may| !may.read) {
        objections.refuse(Reason::NoPermission, of_topic("reading", "Read", target).to_string());
    }
    if target.access.is_some_and(|may| !may.write) {
        let why = of_topic("writing", "Write", target);
        match mode {
            Mode::Fill => objections.refuse(Reason::NoPermission, why.to_string()),
            Mode::Plan => objections.warn(format!("a run would be refused: {why}")),
        }
    }
    may_read
}

/// Warns if this principal may not see the ledger, or a follow has committed positions there. A fill finds this out when it
/// starts up.
fn check_ledger(
    objections: &mut Objections,
    clusters: &Clusters,
    ledger: &Ledger,
    follows: &Fingerprint,
    interrupt: &Interrupt,
) -> Result<()> {
    let committed = match clusters.target.width(&ledger.topic) {
        Err(Error::Refused(_)) if !ledger.is_source() => {
            let why = Error::lacking("committing positions", &format!("Read on topic {}", ledger.topic));
            objections.warn(format!("a run would be refused: {why}"));
            return Ok(());
        }
        Ok(None) => return Ok(()),
        width => width.and_then(|_| offsets::now(&clusters.target, ledger.extent(), interrupt)),
    };
    match committed {
        Ok(committed) if marks(follows, &committed).iter().any(Option::is_some) => {
            let why = ledger.followed(clusters.target.properties());
            objections.warn(format!("a run would be refused: {why}"));
        }
        Ok(_) => {}
        // A plan needs no right on the group.
        Err(err @ (Error::Refused(_) | Error::Restart { .. })) => {
            tracing::info!("whether a run with --follow has copied these topics could not be seen: {err}");
        }
        Err(err) => return Err(err),
    }
    Ok(())
}

/// Describes what the fill will write to its target, for the checks.
fn intent(job: &Job, window: Option<Window>, follows_only: bool) -> Intent {
    let name = &job.selection.target;
    // The broker's limits apply to a record's timestamp. They say nothing about a time in a field.
    let edge = |window: Window| {
        let bounds =
            window.start.map(|start| (start, "begins at")).or(window.end.map(|end| (end, "ends at")));
        bounds.filter(|_| job.selection.event_time.is_indexed())
    };
    let oldest = window.and_then(edge);
    Intent {
        oldest: oldest.map(|(at, edge)| (at, format!("the window {edge} {}", rfc3339(at)))),
        // The copy itself checks whether a record is ahead of the broker's clock.
        newest: None,
        // A follow copies what is new, and the target may then delete it in its own time.
        deleted: if follows_only { Severity::Warn } else { Severity::Refuse },
        stamped: if job.selection.rules.target_scan == TargetScan::Window {
            (Severity::Refuse, log_append_time(name))
        } else {
            (
                Severity::Warn,
                format!(
                    "{name} has message.timestamp.type=LogAppendTime: the broker gives the copies its own time"
                ),
            )
        },
        compacted: if job.allow_compacted_target {
            (
                Severity::Warn,
                format!("{name} is compacted: an old value that the run writes becomes its key's latest one"),
            )
        } else {
            (
                Severity::Refuse,
                format!(
                    "{name} is compacted: an old value that the run writes behind a newer one becomes its key's latest \
                     one; allow this with --allow-compacted-target, or fill another topic"
                ),
            )
        },
    }
}

fn check_source(objections: &mut Objections, job: &Job, config: Configuration<'_>) {
    let source = &job.selection.source;
    if config.is_compacted() {
        objections.warn(format!("{source} is compacted: records that it no longer holds cannot be copied"));
    }
    if config.is_stamped() && job.selection.event_time.is_indexed() {
        objections.warn(format!(
            "{source} has message.timestamp.type=LogAppendTime: the window applies to the time when the broker received a \
             record; with --time-field, it applies to the time of the event"
        ));
    }
}

fn check_sizes(objections: &mut Objections, job: &Job, source: Configuration<'_>, target: Configuration<'_>) {
    let limits = (source.number("max.message.bytes"), target.number("max.message.bytes"));
    if let (Some(from), Some(to)) = limits
        && to < from
    {
        let name = &job.selection.target;
        objections.warn(format!(
            "{name} accepts records up to {to} bytes, but {} up to {from}: a larger record would end the run; raise \
             max.message.bytes of {name}",
            job.selection.shown_source()
        ));
    }
}

/// The refusal of a target whose copies do not have the source's timestamps.
pub(crate) fn log_append_time(target: &str) -> String {
    format!(
        "{target} has message.timestamp.type=LogAppendTime: its copies do not have the source's timestamps, so the \
         window alone does not show which records it holds; compare the whole topic with --target-scan all"
    )
}
