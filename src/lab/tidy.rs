//! Removes what the demo and the drills leave on a cluster that they did not start.

use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::AdminOptions;
use rdkafka::error::RDKafkaErrorCode;

use crate::base::error::{Error, Result};
use crate::kafka::properties::Properties;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Deletes the topics, and our groups that are named after them. The names are of one run, so nobody else uses them. A
/// topic that is not there is fine.
///
/// # Errors
/// [`Error::Failed`] if the cluster does not delete them.
pub(super) fn remove(properties: &Properties, topics: &[&str]) -> Result<()> {
    let failed = |what: &str, why: &dyn std::fmt::Display| Error::failed(format!("removing {what}: {why}"));
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
        let deleted =
            block_on(admin.delete_groups(&groups, &options)).map_err(|err| failed("groups", &err))?;
        let gone = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::GroupIdNotFound;
        if let Some((group, code)) =
            deleted.into_iter().filter_map(std::result::Result::err).find(|(_, c)| !gone(*c))
        {
            return Err(failed(&format!("group {group}"), &code));
        }
    }
    let deleted = block_on(admin.delete_topics(topics, &options)).map_err(|err| failed("topics", &err))?;
    let gone = |code: RDKafkaErrorCode| {
        [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic].contains(&code)
    };
    match deleted.into_iter().filter_map(std::result::Result::err).find(|(_, code)| !gone(*code)) {
        Some((topic, code)) => Err(failed(&format!("topic {topic}"), &code)),
        None => Ok(()),
    }
}
