//! Creates topics, and gives them more partitions.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicResult};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::base::error::{Error, Reason, Result};
use crate::kafka::client::REQUEST_TIMEOUT;
use crate::kafka::properties::Properties;

/// The broker's answer about one topic.
type Answer = std::result::Result<(), RDKafkaErrorCode>;

/// Asks the brokers to create `new`. The caller decides what their answer means.
///
/// # Errors
/// As [`Error::kafka`], if they do not answer.
pub(crate) fn topic(properties: &Properties, new: &NewTopic<'_>) -> Result<Answer> {
    let made = futures_executor::block_on(properties.admin()?.create_topics([new], &options()));
    only(made, || format!("creating topic {}", new.name))
}

/// How long a topic that was created, or got more partitions, may take to appear.
pub(crate) const APPEARS: Duration = Duration::from_secs(15);

/// Asks the brokers to give `topic` so many `partitions`. `denied` begins the sentence that says that this principal may
/// not.
///
/// # Errors
/// [`Error::Refused`] without permission; as [`Error::kafka`], if the brokers do not answer.
pub(crate) fn widen(properties: &Properties, topic: &str, partitions: usize, denied: &str) -> Result<()> {
    let wider = NewPartitions::new(topic, partitions);
    let what = || format!("adding partitions to topic {topic}");
    let made = futures_executor::block_on(properties.admin()?.create_partitions([&wider], &options()));
    match only(made, what)? {
        // Another instance was first.
        Ok(()) | Err(RDKafkaErrorCode::InvalidPartitions) => Ok(()),
        Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(Error::refused(format!(
            "{denied}: grant it Alter on topic {topic}, or add them with\n  {}",
            properties.tool(
                "kafka-topics.sh",
                &["--alter", "--topic", topic, "--partitions", &partitions.to_string()]
            )
        ))
        .because(Reason::NoPermission)),
        Err(code) => Err(Error::code(what(), code)),
    }
}

/// The answer about the only topic of a request.
fn only(
    made: std::result::Result<Vec<TopicResult>, KafkaError>,
    what: impl Fn() -> String,
) -> Result<Answer> {
    let answers = made.map_err(|err| Error::kafka(what(), err))?;
    // No answer about the topic is no success.
    let answer = answers.into_iter().next().ok_or_else(|| Error::failed(format!("{}: no answer", what())))?;
    Ok(answer.map(drop).map_err(|(_, code)| code))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
