//! What an expert would check before a run: each finding is a sentence with its fix, all told at once.

use std::collections::HashMap;

use chrono::Utc;
use rdkafka::error::RDKafkaErrorCode;

use crate::client::TRANSACTION_TIMEOUT;
use crate::cluster::{Cluster, Topic};
use crate::error::{Error, Reason, Result};
use crate::job::{Job, Mode, TargetScan};
use crate::window::{Window, rfc3339};

/// What the checks found out.
pub struct Preflight {
    pub source: Topic,
    pub target: Topic,
    pub warnings: Vec<String>,
    /// The largest batch that the target takes, in bytes.
    pub batch_bytes: usize,
    /// `None` where the topics' configuration is not visible.
    pub target_is_compacted: Option<bool>,
}

/// Both topics, or which one is missing.
///
/// # Errors
/// [`Error::Refused`] for a missing topic; as [`Cluster::topic`].
pub fn topics(cluster: &Cluster, source: &str, target: &str) -> Result<(Topic, Topic)> {
    if source == target {
        return Err(Error::usage(format!("--source and --target are both {source}; name two topics")));
    }
    let mut found = Vec::new();
    let (mut sentences, mut reason) = (Vec::new(), None);
    for (name, flag) in [(source, "--source"), (target, "--target")] {
        match cluster.topic(name) {
            Ok(Some(topic)) => found.push(topic),
            Ok(None) => {
                reason = reason.or(Some(Reason::MissingTopic));
                sentences.push(format!("there is no topic {name}: create it, or name another one by {flag}"));
            }
            Err(Error::Refused(why)) => {
                reason = reason.or(why.reason());
                sentences.push(why.text);
            }
            Err(err) => return Err(err),
        }
    }
    match <[Topic; 2]>::try_from(found) {
        Ok([source, target]) => Ok((source, target)),
        Err(_) => Err(Error::refused(sentences.join("\n")).because(reason.unwrap_or(Reason::Refused))),
    }
}

/// Checks permissions, and the target's configuration against the window. Writes nothing. A window that could
/// not be resolved is one finding among the others.
///
/// # Errors
/// [`Error::Refused`] with every reason why the run would fail, or lose or double records.
pub fn check(
    cluster: &Cluster,
    job: &Job,
    source: Topic,
    target: Topic,
    mode: Mode,
    window: Result<Window>,
) -> Result<(Preflight, Window)> {
    let mut findings = Findings::default();
    let may_read = check_access(&mut findings, &source, &target, mode);
    let window = match window {
        // Of a source that cannot be read that was said.
        Err(Error::Refused(why)) => {
            if may_read {
                findings.reason = findings.reason.or(why.reason());
                findings.refuse(why.text);
            }
            None
        }
        window => Some(window?),
    };
    if let Some(max) = cluster.transaction_max_timeout(&source.name)
        && max < i64::try_from(TRANSACTION_TIMEOUT.as_millis()).unwrap_or(i64::MAX)
    {
        findings.refuse(format!(
            "the brokers' transaction.max.timeout.ms={max} is below the {} that a run asks for; raise it on all brokers",
            TRANSACTION_TIMEOUT.as_millis()
        ));
    }
    let mut batch_bytes = 1_000_000;
    let mut target_is_compacted = None;
    match cluster.configuration(&[&source.name, &target.name])?.as_deref() {
        Some([source_config, target_config]) => {
            let (source_config, target_config) = (Configuration(source_config), Configuration(target_config));
            target_is_compacted = Some(target_config.text("cleanup.policy").contains("compact"));
            check_target(&mut findings, job, &target, &target_config, window);
            check_pair(&mut findings, job, &source_config, &target_config);
            if let Some(max) = target_config.number("max.message.bytes").and_then(|max| usize::try_from(max).ok()) {
                // A batch has a header of 61 bytes; leave it some room more.
                batch_bytes = batch_bytes.min(max.saturating_sub(512).max(1));
            }
        }
        _ => findings.warn(
            "the topics' configuration is not visible to this principal, so retention, compaction and timestamp type \
             were not checked; grant it DescribeConfigs on both topics",
        ),
    }
    if source.partitions != target.partitions {
        findings.warn(format!(
            "{} has {} partitions and {} has {}: each record goes to the partition of its key, as Java's producer \
             chooses it",
            source.name, source.partitions, target.name, target.partitions
        ));
    }
    let Findings { refusals, reason, warnings } = findings;
    match window.filter(|_| refusals.is_empty()) {
        Some(window) => {
            Ok((Preflight { source, target, warnings, batch_bytes, target_is_compacted }, window))
        }
        None => Err(Error::refused(refusals.join("\n")).because(reason.unwrap_or(Reason::Refused))),
    }
}

/// What this principal may not do with the topics, as far as the broker tells before it is tried. Of the group only
/// its coordinator would, and a request of that kind ends the process where the coordinator dies
/// (librdkafka#4605). Whether the source may be read. A plan needs no permission to write, and warns.
fn check_access(findings: &mut Findings, source: &Topic, target: &Topic, mode: Mode) -> bool {
    let of_topic = |doing: &str, operation, Topic { name, .. }: &Topic| {
        Error::topic(format!("{doing} {name}"), operation, name, RDKafkaErrorCode::TopicAuthorizationFailed)
    };
    let may_read = source.access.is_none_or(|may| may.read);
    if !may_read {
        findings.deny(of_topic("reading", "Read", source).to_string());
    }
    if target.access.is_some_and(|may| !may.read) {
        findings.deny(of_topic("reading", "Read", target).to_string());
    }
    if target.access.is_some_and(|may| !may.write) {
        let why = of_topic("writing", "Write", target);
        match mode {
            Mode::Fill => findings.deny(why.to_string()),
            Mode::Plan => findings.warn(format!("a run would be refused: {why}")),
        }
    }
    may_read
}

fn check_target(
    findings: &mut Findings,
    job: &Job,
    target: &Topic,
    config: &Configuration<'_>,
    window: Option<Window>,
) {
    let name = &target.name;
    let now = Utc::now().timestamp_millis();
    let policy = config.text("cleanup.policy");
    // The broker looks at the record's timestamp, which says nothing of a time that is in a field.
    let oldest = window
        .and_then(|window| window.start.or(window.end))
        .filter(|oldest| *oldest < now && job.selection.event_time.is_indexed());
    if let (Some(retention), true, Some(oldest)) =
        (config.number("retention.ms").filter(|r| *r >= 0), policy.contains("delete"), oldest)
        && now - oldest > retention
    {
        findings.refuse(format!(
            "{name} deletes records older than retention.ms={retention} ({} days), and the window is of {}: the \
             broker would delete what the run writes; set it with kafka-configs.sh --alter --topic {name} \
             --add-config retention.ms=-1",
            retention / 86_400_000,
            rfc3339(oldest)
        ));
    }
    if let (Some(before), Some(oldest)) = (config.number("message.timestamp.before.max.ms"), oldest)
        && now - oldest > before
    {
        findings.refuse(format!(
            "{name} takes no record older than message.timestamp.before.max.ms={before}, and the window is of {}; \
             raise it for the run",
            rfc3339(oldest)
        ));
    }
    if config.text("message.timestamp.type") == "LogAppendTime" {
        if job.selection.rules.target_scan == TargetScan::Window {
            findings.refuse(log_append_time(name));
        } else {
            findings.warn(format!(
                "{name} has message.timestamp.type=LogAppendTime: the broker stamps the copies anew"
            ));
        }
    }
    if policy.contains("compact") {
        if job.allow_compacted_target {
            findings.warn(format!(
                "{name} is compacted: an old value that the run writes becomes its key's latest one"
            ));
        } else {
            findings.refuse(format!(
                "{name} is compacted: an old value that the run writes behind a newer one becomes its key's latest; \
                 allow that with --allow-compacted-target, or fill another topic"
            ));
        }
    }
    if let Some(min) = config.number("min.insync.replicas").and_then(|min| usize::try_from(min).ok())
        && target.min_in_sync < min
    {
        findings.refuse(format!(
            "a partition of {name} has {} replicas in sync and min.insync.replicas={min}: it takes no writes; bring \
             its brokers up",
            target.min_in_sync
        ));
    }
}

fn check_pair(findings: &mut Findings, job: &Job, source: &Configuration<'_>, target: &Configuration<'_>) {
    if source.text("cleanup.policy").contains("compact") {
        findings
            .warn(format!("{} is compacted: what it no longer holds cannot be copied", job.selection.source));
    }
    if source.text("message.timestamp.type") == "LogAppendTime" && job.selection.event_time.is_indexed() {
        findings.warn(format!(
            "{} has message.timestamp.type=LogAppendTime: the window is of the time at which the broker took the \
             records; --time-field makes it the event's",
            job.selection.source
        ));
    }
    let limits = (source.number("max.message.bytes"), target.number("max.message.bytes"));
    if let (Some(from), Some(to)) = limits
        && to < from
    {
        findings.warn(format!(
            "{} takes records up to {to} bytes and {} up to {from}: a larger one would end the run; raise \
             max.message.bytes of {}",
            job.selection.target, job.selection.source, job.selection.target
        ));
    }
}

/// The refusal of a target whose copies do not carry the source's timestamps.
pub fn log_append_time(target: &str) -> String {
    format!(
        "{target} has message.timestamp.type=LogAppendTime: its copies do not carry the source's timestamps, so the \
         window alone does not show which are there; compare the whole topic with --target-scan all"
    )
}

#[derive(Default)]
struct Findings {
    refusals: Vec<String>,
    /// Of the first of them.
    reason: Option<Reason>,
    warnings: Vec<String>,
}

impl Findings {
    fn refuse(&mut self, sentence: impl Into<String>) {
        self.reason = self.reason.or(Some(Reason::TopicConfiguration));
        self.refusals.push(sentence.into());
    }

    fn deny(&mut self, sentence: impl Into<String>) {
        self.reason = self.reason.or(Some(Reason::NoPermission));
        self.refuse(sentence);
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }
}

struct Configuration<'a>(&'a HashMap<String, String>);

impl Configuration<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.0.get(key)?.parse().ok()
    }
}
