//! The second reading of a file. Its events become records, in transactions that also commit the position in the file.

use std::sync::Arc;

use indicatif::ProgressBar;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::fields::{Event, Fields};
use super::input::{Document, Documents, Input};
use super::mark::{EarlierLoad, Loaded, Way};
use super::survey::Survey;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::id;
use crate::job::window::Window;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Evidence;
use crate::kafka::origin::Origin;
use crate::kafka::partition;
use crate::kafka::position::Position;
use crate::kafka::producer::{Producer, Transaction};
use crate::kafka::sys::Outgoing;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// Documents between two checks of the clock, the interrupt and the delivery reports.
const ROUND: u64 = 256;

/// Everything that a [`Writer`] must know to load a file.
pub(super) struct Plan<'a> {
    pub input: &'a Input,
    pub fields: &'a Fields,
    pub survey: &'a Survey,
    pub except: Option<Window>,
    pub skip_invalid: bool,
    pub topic: &'a Topic,
    pub way: &'a Way,
    pub interrupt: &'a Interrupt,
}

/// How far the load has written. The caller keeps this, so that it is known after a failure too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    pub mark: Loaded,
    pub transactions: u64,
    /// The position of a transaction whose commit got no answer.
    pub in_doubt: Option<u64>,
}

/// The topic's logs, as the start-up found them.
pub(super) struct Logs<'a> {
    cluster: &'a Cluster,
    found: Vec<Watermarks>,
    /// The offsets at which the load began to write.
    first: Vec<i64>,
}

impl<'a> Logs<'a> {
    /// The logs of a load that continues an earlier one, if there was one.
    pub(super) fn new(
        cluster: &'a Cluster,
        found: Vec<Watermarks>,
        earlier: Option<&EarlierLoad>,
    ) -> Logs<'a> {
        let first = match earlier.map(|earlier| &earlier.left) {
            None => ends(&found),
            Some(Evidence::Each(logs)) => logs.iter().map(|log| log.first).collect(),
            Some(Evidence::Sums { .. }) => found.iter().map(|found| found.low).collect(),
        };
        Logs { cluster, found, first }
    }

    fn now(&self, topic: &Topic) -> Result<Evidence> {
        Ok(Evidence::new(&self.first, &self.found, &ends(&self.cluster.watermarks(topic)?), 1))
    }
}

pub(super) struct Writer<'a> {
    plan: &'a Plan<'a>,
    logs: &'a Logs<'a>,
    producer: &'a Producer,
    group: Arc<ConsumerGroupMetadata>,
    transaction: Option<Transaction<'a>>,
    /// How far the file is loaded once the open transaction is committed.
    next: Loaded,
    reached: &'a mut Reached,
}

impl<'a> Writer<'a> {
    /// Begins at `reached.mark`, which each committed transaction moves on.
    pub(super) fn new(
        plan: &'a Plan<'a>,
        logs: &'a Logs<'a>,
        producer: &'a Producer,
        group: ConsumerGroupMetadata,
        reached: &'a mut Reached,
    ) -> Writer<'a> {
        Writer {
            plan,
            logs,
            producer,
            group: Arc::new(group),
            transaction: None,
            next: reached.mark,
            reached,
        }
    }

    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Failed`] if the file is not the one that the survey read;
    /// [`Error::Interrupted`].
    pub(super) fn finish(mut self, bar: &ProgressBar) -> Result<()> {
        let result = self.write(bar);
        let (Err(err), Some(transaction)) = (&result, self.transaction.take()) else { return result };
        // The state of the transaction is unknown. The next `init_transactions` ends it.
        if matches!(err, Error::Restart { .. } | Error::Fenced(_)) {
            return result;
        }
        transaction.abort_after(result)
    }

    fn write(&mut self, bar: &ProgressBar) -> Result<()> {
        let mut documents = self.plan.input.documents(&ProgressBar::hidden()).map_err(midway)?;
        self.skip_loaded(&mut documents)?;
        loop {
            if documents.passed().is_multiple_of(ROUND) {
                bar.set_position(documents.passed());
                self.look_around()?;
            }
            let Some(document) = documents.next().map_err(midway)? else { break };
            self.take(document)?;
            if self.transaction.as_ref().is_some_and(Transaction::is_full) {
                self.commit()?;
            }
        }
        if self.next.position != self.plan.survey.documents {
            return Err(self.changed("it ends at another place"));
        }
        if self.next != self.reached.mark { self.commit() } else { Ok(()) }
    }

    fn skip_loaded(&self, documents: &mut Documents) -> Result<()> {
        while documents.passed() < self.next.position {
            if documents.passed().is_multiple_of(ROUND) {
                self.plan.interrupt.check()?;
            }
            if documents.next().map_err(midway)?.is_none() {
                return Err(self.changed("it is shorter than the part that was loaded"));
            }
        }
        Ok(())
    }

    fn look_around(&mut self) -> Result<()> {
        self.plan.interrupt.check()?;
        let Some(transaction) = &self.transaction else { return Ok(()) };
        transaction.poll();
        if transaction.is_due() { self.commit() } else { Ok(()) }
    }

    fn take(&mut self, document: Document<'_>) -> Result<()> {
        self.next.position += 1;
        match self.plan.fields.read(document.bytes) {
            Ok(event) if self.plan.except.is_some_and(|window| window.contains(event.millis)) => Ok(()),
            Ok(event) => self.send(document, &event),
            Err(_) if self.plan.skip_invalid => Ok(()),
            Err(why) => Err(self.changed(&format!("{}: {why}", document.place))),
        }
    }

    fn send(&mut self, document: Document<'_>, event: &Event) -> Result<()> {
        let partitions = self.plan.topic.partitions;
        let partition = match &event.key {
            Some(key) => partition::of_key(key, partitions),
            None => usize::try_from(document.place.index % partitions.max(1) as u64).map_or(0, id),
        };
        let transaction = match &mut self.transaction {
            Some(transaction) => transaction,
            none => none.insert(self.producer.begin()?),
        };
        let record = Outgoing {
            partition,
            key: event.key.as_deref(),
            value: Some(document.bytes),
            timestamp: event.millis,
            headers_of: None,
            origin: Origin::line(document.place.line),
        };
        transaction.send(record, self.plan.interrupt)?;
        self.next.loaded += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.plan.input.check_unchanged()?;
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.producer.begin()?,
        };
        let position = i64::try_from(self.next.position).unwrap_or(i64::MAX);
        let topic = self.plan.topic;
        let mark = || {
            let metadata = self.plan.way.metadata(self.next, &self.logs.now(topic)?);
            Ok(vec![Position { partition: 0, position, metadata }])
        };
        transaction.commit(&topic.name, mark, &self.group).inspect_err(|err| {
            self.reached.in_doubt = matches!(err, Error::Restart { .. }).then_some(self.next.position);
        })?;
        self.reached.mark = self.next;
        self.reached.transactions += 1;
        Ok(())
    }

    fn changed(&self, how: &str) -> Error {
        match self.plan.input.check_unchanged() {
            Err(err) => err,
            Ok(()) => Error::failed(format!(
                "{} is not the same as when it was first read ({how}); load a copy that nobody writes to, into a new \
                 topic",
                self.plan.input.name()
            )),
        }
    }
}

/// A refusal says that nothing was written. At the second reading, that may be wrong.
fn midway(err: Error) -> Error {
    match err {
        Error::Refused(why) => Error::Failed(why),
        err => err,
    }
}
