//! What the cluster says of topics: ids, partitions, watermarks, last stable offsets, positions by time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::base::interrupt::Interrupt;
use crate::base::patience::Patience;
use crate::base::range::{Range, id, index};
use crate::base::time::rfc3339;
use crate::kafka::client::{Isolation, Properties, Quiet, REQUEST_TIMEOUT, close};
use crate::kafka::reader::first_timestamp;
use crate::kafka::sys::describe::{self, Access};
use crate::kafka::sys::largest::{Stamped, largest_timestamps};
use crate::kafka::sys::{self, admin};

/// The two clients that only ask. A read_committed one is told the last stable offset where the other is
/// told the high watermark, and waits for offsets that an open transaction is about to commit.
pub struct Cluster {
    pub committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
    properties: Properties,
}

/// A topic at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// The topic's id (KIP-516), in base64.
    pub id: String,
    /// What this principal may do with it, where the broker tells.
    pub access: Option<Access>,
    pub partitions: usize,
    /// Replicas of the partition that has fewest.
    pub min_replicas: usize,
    /// Replicas in sync of the partition that has fewest.
    pub min_in_sync: usize,
}

impl Topic {
    /// Whether each partition takes writes, where `min.insync.replicas` is `min`.
    ///
    /// # Errors
    /// [`Error::Refused`] where a partition never has as many replicas, [`Error::Failed`] where it only lacks some now.
    pub fn takes_writes(&self, min: usize) -> Result<()> {
        let Topic { name, min_replicas, min_in_sync, .. } = self;
        if *min_replicas < min {
            return Err(Error::refused(format!(
                "a partition of {name} has {min_replicas} replicas and min.insync.replicas={min}: it never takes a write; \
                 give it more replicas, or lower min.insync.replicas"
            ))
            .because(Reason::TopicConfiguration));
        }
        if *min_in_sync < min {
            return Err(Error::failed(format!(
                "a partition of {name} has {min_in_sync} replicas in sync and min.insync.replicas={min}: it takes no \
                 writes now; bring its brokers up, and run again"
            ))
            .because(Reason::NotEnoughReplicas));
        }
        Ok(())
    }
}

/// A partition's first offset and the one after its last record, committed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub low: i64,
    pub high: i64,
    /// The epoch of the leader that told `high`; -1 where it tells none.
    pub epoch: i32,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        close(&self.committed);
        close(&self.uncommitted);
    }
}

/// How long to wait for metadata, one after the other: together [`REQUEST_TIMEOUT`].
const METADATA_STEPS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(7)];

/// What librdkafka takes for a topic's id where the broker tells none: metadata before version 10, which came with
/// Kafka 2.8.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How long to listen for why a client is refused.
const LISTEN: Duration = Duration::from_millis(50);

/// Bytes of metadata; `offset.metadata.max.bytes` is 4096 unless it was changed, and the protocol's bound 32767.
const TOO_LONG: usize = 32_000;

impl Cluster {
    /// # Errors
    /// [`Error::Usage`] for properties that librdkafka refuses.
    pub fn connect(properties: &Properties, group: &str) -> Result<Cluster> {
        Ok(Cluster {
            committed: properties.consumer(group, Isolation::ReadCommitted)?,
            uncommitted: properties.consumer(group, Isolation::ReadUncommitted)?,
            properties: properties.clone(),
        })
    }

    /// `None` where there is no such topic.
    ///
    /// # Errors
    /// [`Error::Failed`] where no broker answers, [`Error::Refused`] where the topic must not be seen or a
    /// partition has no leader.
    pub fn topic(&self, name: &str) -> Result<Option<Topic>> {
        check_name(name)?;
        let started = Instant::now();
        loop {
            match self.topic_now(name) {
                // As right after a broker's death.
                Err(Error::Restart { .. }) if started.elapsed() < REQUEST_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                result => return result,
            }
        }
    }

    fn topic_now(&self, name: &str) -> Result<Option<Topic>> {
        let metadata = self.metadata(name)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        if let Some(code) = topic.error() {
            return match RDKafkaErrorCode::from(code) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                RDKafkaErrorCode::InvalidTopic => {
                    Err(Error::usage(format!("`{name}` cannot be a topic's name")))
                }
                // Who may read or write it may see it.
                code => Err(Error::topic(format!("topic {name}"), "Read", name, code)),
            };
        }
        if topic.partitions().is_empty() {
            return Ok(None);
        }
        if let Some(partition) = topic.partitions().iter().find(|p| p.leader() < 0) {
            return Err(Error::restart(format!(
                "partition {} of {name} has no leader now; bring its brokers up and run again",
                partition.id()
            ))
            .because(Reason::Unreachable));
        }
        let described = describe::topic(&self.uncommitted, name, REQUEST_TIMEOUT);
        let described = described.map_err(|code| Error::code(format!("the id of topic {name}"), code))?;
        if described.id == NO_ID {
            return Err(Error::refused(format!(
                "the brokers give topic {name} no id, so one that was deleted and made anew would pass for the same one; \
                 upgrade them to Kafka 2.8 or later"
            ))
            .because(Reason::UnsupportedBroker));
        }
        Ok(Some(Topic {
            name: name.to_owned(),
            id: described.id,
            access: described.access,
            partitions: topic.partitions().len(),
            min_replicas: topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0),
            min_in_sync: topic.partitions().iter().map(|p| p.isr().len()).min().unwrap_or(0),
        }))
    }

    fn metadata(&self, name: &str) -> Result<Metadata> {
        let bootstrap = self.properties.bootstrap();
        let mut last = None;
        // In steps, since why a client is refused is told between them.
        for step in METADATA_STEPS {
            let err = match self.uncommitted.fetch_metadata(Some(name), step) {
                Ok(metadata) => return Ok(metadata),
                Err(err) => err,
            };
            match err.rdkafka_error_code() {
                Some(code) if denied(code).is_none() => last = Some(code),
                _ => return Err(Error::kafka(format!("topic {name}"), err)),
            }
            // A poll that only served a log line looks like one that found nothing.
            let listening = Instant::now();
            while listening.elapsed() < LISTEN {
                drop(self.uncommitted.poll(Duration::from_millis(5)));
            }
            if let Some(refusal) = self.uncommitted.context().heard().refusal {
                return Err(Error::refused(format!(
                    "no connection to {bootstrap}: {refusal}; {}",
                    way_in(&refusal)
                ))
                .because(Reason::NoPermission));
            }
        }
        let heard = self.uncommitted.context().heard().failure;
        let why = heard.or(last.map(|code| code.to_string())).unwrap_or_default();
        Err(Error::restart(format!(
            "no broker answered at {bootstrap} within {} s ({why}); check --bootstrap-server, the network and the \
             security properties",
            REQUEST_TIMEOUT.as_secs()
        ))
        .because(Reason::Unreachable))
    }

    /// The topic's configuration; `None` where this principal may not see it.
    ///
    /// # Errors
    /// [`Error::Failed`] where no broker answers.
    pub fn configuration(&self, topics: &[&str]) -> Result<Option<Vec<HashMap<String, String>>>> {
        let described = admin::topic_configurations(&self.uncommitted, topics, REQUEST_TIMEOUT);
        match described {
            Ok(configurations) => Ok(Some(configurations)),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(None),
            Err(code) => Err(Error::code("the configuration of the topics", code)),
        }
    }

    /// Whether the job's group has members: then its coordinator refuses what a stranger commits. Of this commit
    /// nothing is kept, since its metadata is longer than a broker takes by default.
    ///
    /// # Errors
    /// As its coordinator answers.
    pub fn has_members(&self, topic: &Topic) -> Result<bool> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&topic.name, 0);
        element.set_metadata("x".repeat(TOO_LONG));
        let what = |e| Error::kafka("the group's members", e);
        element.set_offset(Offset::Offset(0)).map_err(what)?;
        match self.committed.commit(&list, CommitMode::Sync) {
            Err(err) => match err.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownMemberId) => Ok(true),
                Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Ok(false),
                _ => Err(what(err)),
            },
            Ok(()) => Ok(false),
        }
    }

    /// A client of another group than the job's, that sees what is committed at once.
    ///
    /// # Errors
    /// As [`Properties::consumer`].
    pub fn of_group(&self, group: &str) -> Result<BaseConsumer<Quiet>> {
        self.properties.consumer(group, Isolation::ReadUncommitted)
    }

    /// The least `transaction.max.timeout.ms` of the brokers, in milliseconds, of those that tell. The topic is any:
    /// to ask for none is to be told of all.
    pub fn transaction_max_timeout(&self, topic: &str) -> Option<i64> {
        let metadata = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT).ok()?;
        let brokers = metadata.brokers().iter();
        let configured = brokers.map_while(|broker| {
            // Who may not see one broker's may see none.
            admin::broker_configuration(&self.uncommitted, broker.id(), Duration::from_secs(2)).ok()
        });
        configured.filter_map(|all| all.get("transaction.max.timeout.ms")?.parse().ok()).min()
    }

    /// Each partition's low and high watermark. Asked by a read_uncommitted client: another is told the
    /// last stable offset for the high watermark.
    ///
    /// # Errors
    /// [`Error::Failed`] where a leader does not answer.
    pub fn watermarks(&self, topic: &Topic) -> Result<Vec<Watermarks>> {
        fetch_watermarks(&self.uncommitted, topic)
    }

    /// Each partition's last stable offset: what a read_committed reader may read is below it.
    ///
    /// # Errors
    /// [`Error::Failed`] where a leader does not answer.
    pub fn last_stable_offsets(&self, topic: &Topic) -> Result<Vec<i64>> {
        Ok(ends(&fetch_watermarks(&self.committed, topic)?))
    }

    /// Where a reading begins: no record of `millis` or later lies before it, also where the topic is not in order of
    /// time. The low watermarks, where no time is given.
    ///
    /// A broker that names an offset names the first such record. One that names none has proved nothing: it looks only
    /// into the first segment whose largest timestamp is `millis` or later, and that one may hold nothing above the
    /// log's start, while later ones do (`UnifiedLog.fetchOffsetByTimestamp`, `LogSegment.findOffsetByTimestamp`; the
    /// same in 2.8 to 4.0). So does a segment that DeleteRecords emptied, until the broker next looks for such
    /// (`log.retention.check.interval.ms`). Then the reading begins at the low watermark, but where all records are
    /// older for certain.
    ///
    /// # Errors
    /// [`Error::Failed`] where a leader does not answer.
    pub fn positions_from(
        &self,
        topic: &Topic,
        millis: Option<i64>,
        watermarks: &[Watermarks],
    ) -> Result<Vec<i64>> {
        let Some(millis) = millis.map(|millis| millis.max(0)) else {
            return Ok(watermarks.iter().map(|w| w.low).collect());
        };
        // With an open transaction in the topic, a read_committed client is told that there is nothing.
        let found = list_offsets(&self.uncommitted, topic, Offset::Offset(millis))?;
        let is_in_doubt = found.iter().zip(watermarks).any(|(at, w)| at.is_none() && w.low < w.high);
        let older = if is_in_doubt { self.all_older(topic, millis)? } else { vec![true; topic.partitions] };
        let positions = found.into_iter().zip(watermarks).zip(older);
        Ok(positions
            .map(|((at, w), all_older)| match at {
                Some(at) => at.min(w.high),
                None if all_older => w.high,
                None => w.low,
            })
            .collect())
    }

    /// Of which partitions it is certain that each record is older than `millis`, which is not negative: where the
    /// largest timestamp is (KIP-734). A segment's largest timestamp may outlive its record, but is never too small:
    /// appending and recovery raise it with each batch (`LogSegment.append`, `recover`), truncation and opening read
    /// it again from the log (`readLargestTimestamp`), and the cleaner takes it from what it keeps
    /// (`MemoryRecords.filterTo`). Two brokers' answers are not taken for it:
    /// - one older than 3.0 takes -3 for a time, and names the partition's first record;
    /// - with tiered storage, only the segments on the broker's own disk are looked at (`UnifiedLog`, 3.6 and later).
    ///   Whose configuration is not visible may have it.
    fn all_older(&self, topic: &Topic, millis: i64) -> Result<Vec<bool>> {
        let unknown = vec![false; topic.partitions];
        let is_local = |configuration: &HashMap<String, String>| {
            let is_tiering = |name: &str| name.contains("remote") || name.contains("tier");
            !configuration.iter().any(|(name, value)| is_tiering(name) && value == "true")
        };
        let configurations = self.configuration(&[&topic.name])?.unwrap_or_default();
        if !configurations.first().is_some_and(is_local) {
            return Ok(unknown);
        }
        let largest =
            match largest_timestamps(&self.uncommitted, &topic.name, topic.partitions, REQUEST_TIMEOUT) {
                Ok(largest) => largest,
                Err(code) => {
                    tracing::debug!("the largest timestamps of {}: {code}", topic.name);
                    return Ok(unknown);
                }
            };
        // Asked for after the largest: one that is before it now was so then, and so that one was not the first.
        let first = list_offsets(&self.uncommitted, topic, Offset::Offset(0))?;
        let is_older = |(largest, first): (Option<Stamped>, Option<i64>)| {
            largest
                .zip(first)
                .is_some_and(|(largest, first)| first < largest.offset && largest.timestamp < millis)
        };
        Ok(largest.into_iter().zip(first).map(is_older).collect())
    }

    /// About how many records lie from one time up to another, in milliseconds since the epoch, by the time index. To be
    /// believed by nobody who leaves out what it leaves out: see [`Cluster::positions_from`].
    ///
    /// # Errors
    /// [`Error::Failed`] where a leader does not answer.
    pub(crate) fn about_how_many(
        &self,
        topic: &Topic,
        (start, end): (Option<i64>, Option<i64>),
        watermarks: &[Watermarks],
    ) -> Result<i64> {
        let at = |millis: i64| list_offsets(&self.uncommitted, topic, Offset::Offset(millis.max(0)));
        let none = || Ok(vec![None; topic.partitions]);
        let (from, to) = (start.map_or_else(none, at)?, end.map_or_else(none, at)?);
        let within = from.into_iter().zip(to).zip(watermarks).map(|((from, to), w)| {
            let from = from.unwrap_or(if start.is_some() { w.high } else { w.low });
            (to.unwrap_or(w.high) - from).max(0)
        });
        Ok(within.sum())
    }

    /// Waits until everything below `ends` is decided: committed, and so readable, or aborted.
    ///
    /// # Errors
    /// [`Error::Failed`] names the open transaction, once no partition has come nearer for `patience`.
    pub fn wait_until_stable(
        &self,
        topic: &Topic,
        ends: &[i64],
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut last = Vec::new();
        let mut vain = Patience::new(patience);
        let mut looked = Instant::now();
        let mut pause = Duration::from_millis(2);
        let mut told = false;
        loop {
            let mut stable = self.last_stable_offsets(topic)?;
            // What lies past the ends moves with live traffic, and is no progress.
            stable.iter_mut().zip(ends).for_each(|(stable, end)| *stable = (*stable).min(*end));
            let behind = (0..ends.len()).find(|p| stable[*p] < ends[*p]);
            let Some(partition) = behind else { return Ok(()) };
            vain.wait(looked.elapsed());
            looked = Instant::now();
            if stable != last {
                last.clone_from(&stable);
                vain.progress();
            }
            interrupt.check()?;
            if !told && vain.waited() > Duration::from_secs(1) {
                told = true;
                tracing::warn!(
                    "waiting for an open transaction of another producer in {}-{partition} (last stable offset {})",
                    topic.name,
                    stable[partition]
                );
            }
            if vain.is_over() {
                let open = Range { partition: id(partition), start: stable[partition], end: ends[partition] };
                return Err(self.hanging_transaction(topic, open, patience, interrupt));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn hanging_transaction(
        &self,
        topic: &Topic,
        open: Range,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Error {
        let since = first_timestamp(&self.properties, &topic.name, open, interrupt)
            .ok()
            .flatten()
            .map_or("unknown".to_owned(), rfc3339);
        let (name, Range { partition, start, end }) = (&topic.name, open);
        Error::failed(format!(
            "a transaction of another producer has been open in {name}-{partition} for {} s without progress: last \
             stable offset {start}, high watermark {end}, its first record's time {since}; wait for that producer, or \
             find it with\n  kafka-transactions.sh --bootstrap-server {} find-hanging --broker-id <leader> --topic \
             {name} --partition {partition}\nand abort it; then run again",
            patience.as_secs(),
            self.properties.bootstrap(),
        ))
        .because(Reason::HangingTransaction)
    }
}

/// What to change where the brokers refuse this client, or it refuses them.
fn way_in(refusal: &str) -> &'static str {
    let says = |words: &str| refusal.contains(words);
    if says("OAUTHBEARER token") {
        "check sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret"
    } else if says(" alert ") {
        "the brokers ask for a certificate of this client that they trust: name it by ssl.certificate.location, and its \
         key by ssl.key.location"
    } else if says("certificate") {
        "name the authority that signed the brokers' certificate by ssl.ca.location, and the brokers by a name that \
         stands in it"
    } else if says("mechanism handshake") {
        "set sasl.mechanism to one that this listener has, or security.protocol to one without SASL if it has none"
    } else {
        "check sasl.mechanism, sasl.username and sasl.password (in a file for -F, or as REPLICATOR_SASL_PASSWORD)"
    }
}

/// The high watermarks.
pub(crate) fn ends(watermarks: &[Watermarks]) -> Vec<i64> {
    watermarks.iter().map(|w| w.high).collect()
}

fn fetch_watermarks(client: &BaseConsumer<Quiet>, topic: &Topic) -> Result<Vec<Watermarks>> {
    let (lows, highs) = (list(client, topic, Offset::Beginning)?, list(client, topic, Offset::End)?);
    let both = lows
        .into_iter()
        .zip(highs)
        .map(|(low, high)| Some(Watermarks { low: low.offset?, high: high.offset?, epoch: high.epoch }));
    let both: Option<Vec<Watermarks>> = both.collect();
    both.ok_or_else(|| Error::failed(format!("{} has no beginning or no end", topic.name)))
}

/// [`list`], without the epochs.
fn list_offsets(client: &BaseConsumer<Quiet>, topic: &Topic, at: Offset) -> Result<Vec<Option<i64>>> {
    Ok(list(client, topic, at)?.into_iter().map(|listed| listed.offset).collect())
}

/// What a partition's leader answered.
#[derive(Clone, Copy)]
struct Listed {
    /// `None` where it found none.
    offset: Option<i64>,
    /// Asked for the end, the leader's own epoch (KIP-320).
    epoch: i32,
}

/// Each partition's offset at `at`: its beginning, its end, or a time in milliseconds. One request to each leader.
fn list(client: &BaseConsumer<Quiet>, topic: &Topic, at: Offset) -> Result<Vec<Listed>> {
    let what = || match at {
        Offset::Offset(millis) => format!("the offsets of {} at {}", topic.name, rfc3339(millis)),
        _ => format!("the offsets of {}", topic.name),
    };
    let mut asked = TopicPartitionList::with_capacity(topic.partitions);
    for partition in 0..topic.partitions {
        asked.add_partition_offset(&topic.name, id(partition), at).map_err(|e| Error::kafka(what(), e))?;
    }
    // The protocol's times for the beginning and the end are librdkafka's numbers for them.
    let answer = client.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(|e| Error::kafka(what(), e))?;
    let mut found = vec![None; topic.partitions];
    for (element, epoch) in answer.elements().iter().zip(sys::leader_epochs(&answer)) {
        // A failed element keeps what was asked for as its offset.
        element.error().map_err(|e| Error::kafka(what(), e))?;
        let offset = match element.offset() {
            Offset::Offset(offset) if offset >= 0 => Some(offset),
            _ => None,
        };
        let slot = found.get_mut(index(element.partition()));
        *slot.ok_or_else(|| Error::failed(format!("{}: a partition too many", what())))? =
            Some(Listed { offset, epoch });
    }
    let found: Option<Vec<_>> = found.into_iter().collect();
    found.ok_or_else(|| Error::failed(format!("{}: a partition was left out", what())))
}

/// As `org.apache.kafka.common.internals.Topic` has it. librdkafka takes no longer name, and `rdkafka`
/// panics where it refuses one.
fn check_name(name: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 249 && name.chars().all(is_legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::usage(format!(
        "`{}` cannot be a topic's name: it has 1 to 249 letters, digits, dots, underscores and hyphens",
        name.chars().take(60).flat_map(char::escape_debug).collect::<String>()
    )))
}
