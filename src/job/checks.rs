//! The checks of a topic before a run writes to it. The fill and the load share them; they differ only in what
//! their records are, and in how severe an objection is.

use crate::base::error::{Error, Reason, Result, placed};
use crate::job::limits::{Configuration, Limits, Unfit, takes_writes};
use crate::kafka::properties::Properties;
use crate::kafka::topic::Topic;

/// How severe an objection is for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Refuse,
    Warn,
}

/// The objections to a run. The run reports all of them at once, each as a sentence with its fix.
#[derive(Default)]
pub(crate) struct Objections {
    refusals: Vec<String>,
    /// The reason of the first refusal that has one.
    reason: Option<Reason>,
    /// A state of the cluster that may soon be over.
    passing: Option<Error>,
    /// The cluster that the next objections are about, if the job names two.
    place: Option<String>,
    pub warnings: Vec<String>,
}

impl Objections {
    /// From here on, the objections are about this cluster.
    pub(crate) fn of(&mut self, properties: &Properties) -> &mut Objections {
        self.place = properties.place();
        self
    }

    fn placed(&self, sentence: String) -> String {
        match &self.place {
            Some(place) => placed(place, sentence),
            None => sentence,
        }
    }

    pub(crate) fn refuse(&mut self, reason: Reason, sentence: impl Into<String>) {
        self.reason = self.reason.or(Some(reason));
        self.refusals.push(self.placed(sentence.into()));
    }

    pub(crate) fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(self.placed(sentence.into()));
    }

    fn take(&mut self, severity: Severity, sentence: impl Into<String>) {
        match severity {
            Severity::Refuse => self.refuse(Reason::TopicConfiguration, sentence),
            Severity::Warn => self.warn(sentence),
        }
    }

    /// # Errors
    /// [`Error::Refused`] with the sentences of all objections; [`Error::Failed`] if the only objection is a state that
    /// may soon be over, because then the same command may succeed later.
    pub(crate) fn settle(&mut self) -> Result<()> {
        match self.passing.take() {
            Some(err) if self.refusals.is_empty() => return Err(err),
            passing => self.refusals.extend(passing.map(|err| err.to_string())),
        }
        if self.refusals.is_empty() {
            return Ok(());
        }
        Err(Error::refused(self.refusals.join("\n")).because(self.reason.unwrap_or(Reason::Refused)))
    }
}

/// The records that a run will write to the topic, and how severe the objections to them are.
pub(crate) struct Intent {
    /// The oldest time of its records in milliseconds since the epoch, and a clause that says so.
    pub oldest: Option<(i64, String)>,
    /// The newest time of its records, in the same way.
    pub newest: Option<(i64, String)>,
    /// How severe it is if the broker will delete records, by their age or by the size of the log.
    pub deleted: Severity,
    /// How severe it is if the broker replaces the timestamps with its own, and a sentence that says what this means.
    pub stamped: (Severity, String),
    /// How severe it is if the topic is compacted, and a sentence that says what this means.
    pub compacted: (Severity, String),
}

impl Intent {
    /// Compares what the topic takes and keeps with what the run will write.
    pub(crate) fn check(
        self,
        objections: &mut Objections,
        topic: &Topic,
        config: Configuration<'_>,
        limits: &Limits,
    ) {
        let is_late = |unfit: &Unfit| *unfit == Unfit::TooNew;
        if let Some((oldest, what)) = self.oldest {
            for unfit in limits.of_time(oldest).filter(|unfit| !is_late(unfit)) {
                let severity = if unfit == Unfit::Deleted { self.deleted } else { Severity::Refuse };
                objections.take(severity, limits.sentence(unfit, &what));
            }
        }
        if let Some((newest, what)) = self.newest {
            for unfit in limits.of_time(newest).filter(is_late) {
                objections.take(Severity::Refuse, limits.sentence(unfit, &what));
            }
        }
        if let Some(sentence) = limits.deletes_by_size() {
            objections.take(self.deleted, sentence);
        }
        if config.is_stamped() {
            objections.take(self.stamped.0, self.stamped.1);
        }
        if config.is_compacted() {
            objections.take(self.compacted.0, self.compacted.1);
        }
        match takes_writes(topic, config) {
            Ok(()) => {}
            Err(Error::Refused(why)) => objections.refuse(Reason::TopicConfiguration, why.text),
            Err(err) => {
                objections.passing = Some(match &objections.place {
                    Some(place) => err.within(place),
                    None => err,
                });
            }
        }
    }
}
