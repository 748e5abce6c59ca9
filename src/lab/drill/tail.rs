//! A read_committed reader that watches the target during a round. It must see exactly the records that are there at the
//! end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::message::Message;

use super::topics::{Record, Topics, beginning, of, record};
use crate::base::error::{Error, Result};
use crate::base::range::index;

/// Reads until it is told to finish.
pub(super) struct Tail {
    seen: Arc<AtomicUsize>,
    finish: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Vec<Record>>>>,
}

impl Tail {
    /// # Errors
    /// [`Error::Failed`] if the reader cannot be created.
    pub(super) fn start(topics: &Topics, topic: &str, partitions: usize) -> Result<Tail> {
        let consumer = topics.reader("read_committed")?;
        consumer.assign(&beginning(topic, partitions)?).map_err(of("an assignment"))?;
        let (seen, finish) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, finished) = (seen.clone(), finish.clone());
        let thread = std::thread::spawn(move || {
            let mut records = vec![Vec::new(); partitions];
            while !finished.load(Ordering::Relaxed) {
                // Ignore errors, since a broker may be down. If the reader misses a record, the verdict finds out.
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                    records[index(message.partition())].push(record(&message));
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            records
        });
        Ok(Tail { seen, finish, thread: Some(thread) })
    }

    /// How many records were readable so far.
    pub(super) fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Waits until the reader has seen `count` records, but at most ten seconds. Returns the records, partition by
    /// partition.
    ///
    /// # Errors
    /// [`Error::Failed`] if the reader panicked.
    pub(super) fn finish(mut self, count: usize) -> Result<Vec<Record>> {
        let begun = Instant::now();
        while self.seen() < count && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.finish.store(true, Ordering::Relaxed);
        let records = self.thread.take().and_then(|thread| thread.join().ok());
        Ok(records.ok_or_else(|| Error::failed("the drill's own reader died".to_owned()))?.concat())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.finish.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
