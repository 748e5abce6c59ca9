//! Waits until all records below an offset are committed or aborted.

use std::time::{Duration, Instant};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::patience::Patience;
use crate::base::range::{Range, id};
use crate::base::time::rfc3339;
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::first_timestamp;
use crate::kafka::topic::Topic;

impl Cluster {
    /// Waits until all records below `ends` are committed, and so readable, or aborted.
    ///
    /// # Errors
    /// [`Error::Failed`] names the open transaction, if no partition has come nearer to its end for `patience`.
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
            // Live traffic moves the offsets past the ends, which is not progress.
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
        let hanging = Error::failed(format!(
            "a transaction of another producer has been open in {name}-{partition} for {} s without progress: last \
             stable offset {start}, high watermark {end}, time of its first record {since}; wait for that producer, or \
             find the transaction with\n  {}\nabort it, and run again",
            patience.as_secs(),
            self.properties.tool(
                "kafka-transactions.sh",
                &["find-hanging", "--topic", name, "--partition", &partition.to_string()]
            ),
        ))
        .because(Reason::HangingTransaction);
        self.properties.says(hanging)
    }
}
