//! The committed offset of a load and its metadata. The offset counts documents, and so says how far the file is
//! loaded. Pure.

use crate::base::error::{Error, Result};
use crate::kafka::mark::{Committed, Evidence, Fingerprint};

/// Everything that decides which records a file becomes.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub topic_id: String,
    pub partitions: usize,
    pub key_field: String,
    pub time_field: String,
    /// The window whose events are left out, as [`crate::job::window::Window`] displays it.
    pub except: String,
}

/// Every document before `position` is in the topic or was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Documents passed.
    pub position: u64,
    /// How many of them were written as records.
    pub loaded: u64,
}

/// The progress of an earlier load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EarlierLoad {
    pub mark: Loaded,
    /// The state of the topic's logs, from the offsets at which the load began to write.
    pub left: Evidence,
}

impl Way {
    fn fingerprint(&self) -> Fingerprint {
        let options = [
            "load".to_owned(),
            self.topic_id.clone(),
            self.partitions.to_string(),
            self.key_field.clone(),
            self.time_field.clone(),
            self.except.clone(),
        ];
        Fingerprint::of(&options)
    }

    /// The metadata that is committed with the position. It names the topic's id in clear text. So [`Way::mark`] can tell
    /// progress in a deleted topic, which is void, from a load with other options, which is refused.
    pub(super) fn metadata(&self, mark: Loaded, left: &Evidence) -> String {
        format!("{} {} {} {left}", self.fingerprint(), self.topic_id, mark.loaded)
    }

    /// Where an earlier load of this file into this topic stopped; `None` if there was none.
    ///
    /// # Errors
    /// [`Error::Refused`] if the file was loaded into this topic with other options.
    pub(super) fn mark(&self, committed: Option<&Committed>) -> Result<Option<EarlierLoad>> {
        let Some(committed) = committed else { return Ok(None) };
        let Some((topic_id, loaded, left)) = parts(&committed.metadata) else {
            return Err(Error::refused(
                "another version of the program wrote the load's committed offset; load into a new topic"
                    .to_owned(),
            ));
        };
        if topic_id != self.topic_id {
            return Ok(None);
        }
        if !self.fingerprint().is_of(&committed.metadata) {
            return Err(Error::refused(
                "the file was loaded into this topic in another way: with other fields, with another --except, or when the \
                 topic had another count of partitions; loading it again would double its lines; use a new topic"
                    .to_owned(),
            ));
        }
        let position = u64::try_from(committed.position).unwrap_or_default();
        Ok(Some(EarlierLoad { mark: Loaded { position, loaded }, left }))
    }
}

fn parts(metadata: &str) -> Option<(&str, u64, Evidence)> {
    let (_, rest) = Fingerprint::split(metadata)?;
    let mut words = rest.split(' ');
    let parts = (words.next()?, words.next()?.parse().ok()?, Evidence::parse(words.next()?)?);
    words.next().is_none().then_some(parts)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kafka::mark::Log;

    fn way() -> Way {
        Way {
            topic_id: "Xy_1-A".into(),
            partitions: 3,
            key_field: "/id".into(),
            time_field: "/ts".into(),
            except: "none".into(),
        }
    }

    fn committed(way: &Way) -> Committed {
        Committed { position: 12, metadata: way.metadata(MARK, &left()) }
    }

    const MARK: Loaded = Loaded { position: 12, loaded: 7 };

    fn left() -> Evidence {
        Evidence::Each(vec![Log { first: 3, end: 11, epoch: 2 }])
    }

    #[test]
    fn reads_back() {
        assert_eq!(way().mark(None).expect("none"), None);
        let mark = way().mark(Some(&committed(&way()))).expect("the same way");
        assert_eq!(mark, Some(EarlierLoad { mark: MARK, left: left() }));
        let anew = Way { topic_id: "other".into(), ..way() };
        assert_eq!(anew.mark(Some(&committed(&way()))).expect("another topic"), None);
    }

    #[rstest]
    #[case(Way { partitions: 4, ..way() })]
    #[case(Way { key_field: "/user".into(), ..way() })]
    #[case(Way { time_field: "/at".into(), ..way() })]
    #[case(Way { except: "a window".into(), ..way() })]
    fn other_options_are_refused(#[case] other: Way) {
        assert!(matches!(other.mark(Some(&committed(&way()))), Err(Error::Refused(_))));
    }

    #[rstest]
    #[case("")]
    #[case("replicator/1 0123- id 7")]
    #[case("replicator/2 0123 id 7")]
    fn foreign_metadata_is_refused(#[case] metadata: &str) {
        let committed = Committed { position: 1, metadata: metadata.to_owned() };
        assert!(matches!(way().mark(Some(&committed)), Err(Error::Refused(_))));
    }
}
