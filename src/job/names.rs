//! The topics of a command, as its answer names them.

use serde::Serialize;

use crate::job::Selection;
use crate::kafka::properties::Properties;
use crate::kafka::sides::Sides;
use crate::kafka::topic::Topic;

/// The names of both topics. With two clusters, both may have one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    pub source: String,
    pub target: String,
    /// With two clusters, their addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_bootstrap_server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bootstrap_server: Option<String>,
    /// The ids of the topics (KIP-516), as Kafka's own tools print them. `None` until the topics are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_topic_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_topic_id: Option<String>,
}

impl From<&Selection> for Names {
    fn from(selection: &Selection) -> Names {
        let Selection { source, target, properties, .. } = selection;
        let address = |of: &Properties| properties.are_two().then(|| of.bootstrap().to_owned());
        Names {
            source: source.clone(),
            target: target.clone(),
            source_bootstrap_server: address(&properties.source),
            target_bootstrap_server: address(&properties.target),
            source_topic_id: None,
            target_topic_id: None,
        }
    }
}

impl Names {
    pub(crate) fn found(&mut self, topics: &Sides<Topic>) {
        self.source_topic_id = Some(topics.source.url_safe_id());
        self.target_topic_id = Some(topics.target.url_safe_id());
    }

    /// The source, with its cluster if there are two.
    pub(crate) fn shown_source(&self) -> String {
        shown(&self.source, self.source_bootstrap_server.as_deref())
    }

    /// The target, with its cluster if there are two.
    pub(crate) fn shown_target(&self) -> String {
        shown(&self.target, self.target_bootstrap_server.as_deref())
    }
}

fn shown(topic: &str, address: Option<&str>) -> String {
    address.map_or_else(|| topic.to_owned(), |address| format!("{topic} ({address})"))
}
