//! Creates topics, and gives them more partitions.

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicResult};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::base::error::{Error, Result};
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

/// Asks the brokers to give a topic `wider.new_partition_count` partitions.
///
/// # Errors
/// As [`Error::kafka`], if they do not answer.
pub(crate) fn partitions(properties: &Properties, wider: &NewPartitions<'_>) -> Result<Answer> {
    let made = futures_executor::block_on(properties.admin()?.create_partitions([wider], &options()));
    only(made, || format!("adding partitions to topic {}", wider.topic_name))
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
