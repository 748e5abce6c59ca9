//! Compares what both topics take and keep, for a plan.

use serde::Serialize;

use crate::job::limits::Configuration;
use crate::job::resolve::{COPIED, setting};
use crate::kafka::properties::Properties;
use crate::kafka::topic::Topic;

/// A property that has another value in the target than in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `partitions`, or the name of a topic's property.
    pub property: String,
    pub source: String,
    pub target: String,
    /// The command that gives the target the source's value; `None` if a topic cannot be changed like that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The differences, if the target is in the cluster of `target_of`.
pub(super) fn between(
    (source, source_config): (&Topic, Configuration<'_>),
    (target, target_config): (&Topic, Configuration<'_>),
    target_of: &Properties,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let (from, to) = (source.partitions, target.partitions);
    if from != to {
        let name = &target.name;
        let command = (to < from).then(|| {
            let from = from.to_string();
            target_of.tool("kafka-topics.sh", &["--alter", "--topic", name, "--partitions", &from])
        });
        let property = "partitions".to_owned();
        found.push(Difference { property, source: from.to_string(), target: to.to_string(), command });
    }
    for key in COPIED {
        let (from, to) = (source_config.text(key), target_config.text(key));
        if from != to && !from.is_empty() {
            let setting = setting(key, from);
            let words = ["--alter", "--topic", &target.name, "--add-config", &setting];
            let command = target_of.tool("kafka-configs.sh", &words);
            found.push(Difference {
                property: key.to_owned(),
                source: from.to_owned(),
                target: to.to_owned(),
                command: Some(command),
            });
        }
    }
    found
}
