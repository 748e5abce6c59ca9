//! The topic that a file is loaded into. If it is missing, the load creates it with settings that keep the loaded
//! records.

use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::survey::Survey;
use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::time::rfc3339;
use crate::job::checks::{Intent, Objections, Severity};
use crate::job::limits::{Configuration, Limits};
use crate::kafka::cluster::Cluster;
use crate::kafka::create;
use crate::kafka::properties::Properties;
use crate::kafka::topic::Topic;

/// How long to wait until each partition of a new topic has a leader.
const LEADERS: Duration = Duration::from_secs(30);

/// A topic that accepts the file's records.
pub(super) struct Destination {
    pub topic: Topic,
    /// The largest batch that the topic accepts, in bytes.
    pub batch_bytes: usize,
}

/// # Errors
/// [`Error::Refused`] if the topic would not accept the records, or if it is missing and may not be created; otherwise
/// as [`Cluster::topic`].
pub(super) fn prepare(
    cluster: &Cluster,
    properties: &Properties,
    name: &str,
    partitions: u16,
    survey: &Survey,
    interrupt: &Interrupt,
) -> Result<Destination> {
    if let Some(topic) = cluster.topic(name)? {
        let batch_bytes = check(cluster, properties, &topic, survey)?;
        return Ok(Destination { topic, batch_bytes });
    }
    make(properties, name, partitions)?;
    let topic = wait_for_leaders(cluster, name, interrupt)?;
    tracing::info!("created topic {name} with {} partitions and retention.ms=-1", topic.partitions);
    let batch_bytes = check(cluster, properties, &topic, survey)?;
    Ok(Destination { topic, batch_bytes })
}

/// Creates the topic without a retention time. With the default one, the first retention check would delete old events.
fn make(properties: &Properties, name: &str, partitions: u16) -> Result<()> {
    let broker_default = TopicReplication::Fixed(-1);
    let topic = NewTopic::new(name, i32::from(partitions), broker_default)
        .set("retention.ms", "-1")
        .set("message.timestamp.type", "CreateTime");
    match create::topic(properties, &topic)? {
        // Somebody else was first, or an earlier request arrived after all.
        Ok(()) | Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(()),
        Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(Error::refused(format!(
            "there is no topic {name}, and this principal may not create it: grant it Create on topic {name}, or create \
             the topic with retention.ms=-1"
        ))
        .because(Reason::NoPermission)),
        Err(code) => Err(Error::code(format!("creating topic {name}"), code)),
    }
}

fn wait_for_leaders(cluster: &Cluster, name: &str, interrupt: &Interrupt) -> Result<Topic> {
    let deadline = Instant::now() + LEADERS;
    loop {
        interrupt.check()?;
        // A broker may not know yet that it is a leader.
        let answered = cluster.topic(name).and_then(|topic| {
            topic.as_ref().map_or(Ok(Vec::new()), |topic| cluster.watermarks(topic)).map(|_| topic)
        });
        match answered {
            Ok(Some(topic)) => return Ok(topic),
            Ok(None) | Err(Error::Failed(_) | Error::Restart { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(None) => return Err(Error::failed(format!("topic {name} was created but does not appear"))),
            Err(err) => return Err(err),
        }
    }
}

/// Compares the topic's configuration with the file's events. Returns the largest batch that the topic accepts.
fn check(cluster: &Cluster, properties: &Properties, topic: &Topic, survey: &Survey) -> Result<usize> {
    let Some(configurations) = cluster.configuration(&[&topic.name])? else {
        tracing::warn!(
            "this principal cannot see the configuration of {}, so retention and timestamp type were not checked; grant \
             it DescribeConfigs",
            topic.name
        );
        return Ok(Limits::default().batch_bytes());
    };
    let configuration = configurations.into_iter().next().unwrap_or_default();
    let config = Configuration(&configuration);
    let now = Utc::now().timestamp_millis();
    let limits = Limits::of(&topic.name, properties.bootstrap(), properties.are_compressing(), config, now);
    let mut objections = Objections::default();
    intent(topic, survey).check(&mut objections, topic, config, &limits);
    for warning in &objections.warnings {
        tracing::warn!("{warning}");
    }
    objections.settle()?;
    Ok(limits.batch_bytes())
}

/// Describes what the load will write to its topic, for the checks. A later change of the configuration can still save
/// records from deletion, so the load only warns of deletion.
fn intent(topic: &Topic, survey: &Survey) -> Intent {
    let name = &topic.name;
    let event = |which, millis| (millis, format!("the file's {which} event is at {}", rfc3339(millis)));
    Intent {
        oldest: survey.span.map(|(oldest, _)| event("first", oldest)),
        newest: survey.span.map(|(_, newest)| event("last", newest)),
        deleted: Severity::Warn,
        stamped: (
            Severity::Warn,
            format!(
                "{name} has message.timestamp.type=LogAppendTime: the broker stamps the records with the time of the load"
            ),
        ),
        compacted: (
            Severity::Warn,
            format!("{name} is compacted: it will keep only the last of the lines with the same key"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const WEEK: i64 = 604_800_000;

    fn found(entries: &[(&str, &str)], span: (i64, i64)) -> (Vec<String>, usize) {
        let configuration = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = Configuration(&configuration);
        let topic = Topic {
            name: "t".into(),
            id: "i".into(),
            access: None,
            partitions: 1,
            min_replicas: 1,
            min_in_sync: 1,
        };
        let survey = Survey { span: Some(span), ..Survey::default() };
        let limits = Limits::of("t", "b:9092", false, config, NOW);
        let mut objections = Objections::default();
        intent(&topic, &survey).check(&mut objections, &topic, config, &limits);
        let refused = objections.settle().err().map_or(0, |err| err.to_string().lines().count());
        (objections.warnings, refused)
    }

    #[rstest]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "604800000")], (NOW - WEEK - 1, NOW), 1, 0)]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "604800000")], (NOW - WEEK, NOW), 0, 0)]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "-1")], (1, NOW), 0, 0)]
    #[case(&[("cleanup.policy", "compact"), ("retention.ms", "604800000")], (1, NOW), 1, 0)]
    #[case(&[("cleanup.policy", "delete"), ("retention.bytes", "1000")], (NOW, NOW), 1, 0)]
    #[case(&[("message.timestamp.before.max.ms", "1000")], (1, 2), 0, 1)]
    #[case(&[("message.timestamp.after.max.ms", "1000")], (NOW + 2000, NOW + 3000), 0, 1)]
    #[case(&[("message.timestamp.type", "LogAppendTime")], (1, NOW), 1, 0)]
    #[case(&[("message.timestamp.before.max.ms", "1000")], (NOW - 1001, NOW), 0, 1)]
    #[case(&[("message.timestamp.after.max.ms", "1000")], (NOW, NOW + 1001), 0, 1)]
    #[case(&[("min.insync.replicas", "2")], (NOW, NOW), 0, 1)]
    #[case(&[], (1, i64::MAX), 0, 0)]
    fn configurations(
        #[case] entries: &[(&str, &str)],
        #[case] span: (i64, i64),
        #[case] warned: usize,
        #[case] refused: usize,
    ) {
        let (warnings, refusals) = found(entries, span);
        assert_eq!((warnings.len(), refusals), (warned, refused), "{warnings:?}");
    }
}
