//! Removes what the demo and the drills leave on a cluster that they did not start.

use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::AdminOptions;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use crate::base::error::{Error, Result};
use crate::kafka::properties::Properties;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Deletes the topics, and our groups that are named after them. The names are of one run, so nobody else uses them. A
/// topic that is not there is fine.
///
/// # Errors
/// [`Error::Failed`] if the cluster does not delete them.
pub(super) fn remove(properties: &Properties, topics: &[&str]) -> Result<()> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let admin = properties.admin()?;
    let list = admin.inner().fetch_group_list(None, TIMEOUT).map_err(|err| failed("groups", &err))?;
    let names = list.groups().iter().map(|group| group.name());
    let is_ours = |name: &&str| {
        name.starts_with("replicator/")
            && topics.iter().any(|topic| name.split('/').any(|part| part == *topic))
    };
    let groups: Vec<&str> = names.filter(is_ours).collect();
    if !groups.is_empty() {
        let deleted = block_on(admin.delete_groups(&groups, &options));
        check("group", deleted, &[RDKafkaErrorCode::GroupIdNotFound])?;
    }
    let deleted = block_on(admin.delete_topics(topics, &options));
    check("topic", deleted, &[RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic])
}

/// Checks that each of `what` is gone, by this deletion or before.
fn check(
    what: &str,
    deleted: KafkaResult<Vec<std::result::Result<String, (String, RDKafkaErrorCode)>>>,
    gone: &[RDKafkaErrorCode],
) -> Result<()> {
    let answers = deleted.map_err(|err| failed(&format!("{what}s"), &err))?;
    match answers.into_iter().filter_map(std::result::Result::err).find(|(_, code)| !gone.contains(code)) {
        Some((name, code)) => Err(failed(&format!("{what} {name}"), &code)),
        None => Ok(()),
    }
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::failed(format!("removing {what}: {why}"))
}
