//! The drill's reader of records and positions, on writers that keep them together and on writers that do not.

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rstest::rstest;

use crate::kit::*;
use replicator::topics::{Log, Topics, delivered, send};
use replicator::watch::{Torn, Watch};

/// A writer of one transaction after the other, from one partition to another.
struct Writer {
    pair: Pair,
    topics: Topics,
    group: BaseConsumer,
    producer: BaseProducer,
    records: Vec<Record>,
    watch: Watch,
}

impl Writer {
    fn new() -> Writer {
        let pair = Pair::new(1, 1);
        let topics = Topics::new(broker());
        let records: Vec<Record> =
            (0..10).map(|n| record(0, WINDOW.0 + n, &format!("event-{n}"), "some value")).collect();
        produce(&pair.a, &records);
        let group = format!("torn/{}", pair.a);
        let place = (group.clone(), pair.a.clone());
        let find = Box::new(move |_: &Topics| Ok(Some(place.clone())));
        Writer {
            watch: Watch::start(&topics, &pair.b, (1, 1), find).expect("a watch"),
            group: topics.reader_of(&group).expect("a consumer"),
            producer: topics.producer(Some(&group)).expect("a producer"),
            topics,
            records,
            pair,
        }
    }

    /// Waits until the reader has asked for all of it since now.
    fn until_asked(&self) {
        let before = self.watch.answered();
        until(|| self.watch.answered() > before + 1);
    }

    fn position(&self, at: i64) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.pair.a, 0, Offset::Offset(at)).expect("added");
        list
    }

    fn write(&self, from: usize, to: usize) {
        self.producer.begin_transaction().expect("begun");
        send(&self.producer, &self.pair.b, &self.records[from..to]).expect("sent");
        delivered(&self.producer).expect("delivered");
        self.until_asked();
    }

    fn add_position(&self, at: i64) {
        let group = self.group.group_metadata().expect("a group");
        self.producer.send_offsets_to_transaction(&self.position(at), &group, TIMEOUT).expect("sent");
    }

    fn commit(&self) {
        self.producer.commit_transaction(TIMEOUT).expect("committed");
        self.until_asked();
    }

    fn commit_position(&self, at: i64) {
        self.group.commit(&self.position(at), CommitMode::Sync).expect("committed");
        self.until_asked();
    }

    fn torn(self) -> Torn {
        let logs = |topic| -> Vec<Log> { self.topics.logs(topic, 1).expect("read") };
        let watched = self.watch.finish().expect("a log of positions");
        assert!(watched.knows_log() > 0, "of {}", watched.asked());
        watched.torn(&logs(&self.pair.a), &logs(&self.pair.b), &[], true)
    }
}

#[test]
fn one_transaction_is_never_torn() {
    let writer = Writer::new();
    for (from, to) in [(0, 4), (4, 10)] {
        writer.write(from, to);
        writer.add_position(to as i64);
        writer.commit();
    }
    // A run that does not trust its position begins anew.
    writer.commit_position(2);
    assert_eq!(writer.torn(), Torn::default());
}

#[rstest]
#[case::aborted(false)]
#[case::committed(true)]
fn a_position_before_its_records_is_found(#[case] commits: bool) {
    let writer = Writer::new();
    writer.commit_position(4);
    writer.write(0, 4);
    match commits {
        true => writer.commit(),
        false => writer.producer.abort_transaction(TIMEOUT).expect("aborted"),
    }
    let torn = writer.torn();
    assert_eq!((torn.missing, torn.early), (4, 0), "{torn:?}");
}

#[test]
fn records_before_their_position_are_found() {
    let writer = Writer::new();
    writer.write(0, 4);
    writer.commit();
    writer.commit_position(4);
    let torn = writer.torn();
    assert_eq!((torn.missing, torn.early), (0, 4), "{torn:?}");
}
