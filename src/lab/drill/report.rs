//! The report of a drill, for people and for machines.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::anomalies::Anomalies;
use super::run::Ended;
use super::schedule::Schedule;
use crate::base::time::millis;
use crate::kafka::sides::Side;

/// The result of a whole drill.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many clusters there are: one, or one for each side of the job.
    pub clusters: usize,
    /// The brokers of all clusters.
    pub brokers: usize,
    pub backend: String,
    /// The program of somebody else's copier, if that is drilled. Its arguments may hold secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    pub rounds: Vec<Round>,
    pub elapsed_ms: u64,
}

/// The result of one round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub seed: u64,
    pub scenario: &'static str,
    pub source_partitions: usize,
    pub target_partitions: usize,
    /// 0 if the drill does not know, because it runs somebody else's copier.
    pub transaction_records: usize,
    /// Records of the source in the window.
    pub records: usize,
    pub runs: usize,
    pub faults: usize,
    /// Runs that were killed.
    pub kills: usize,
    /// Brokers that were killed or stopped, and started again.
    pub bounces: usize,
    /// What happened to the source's cluster, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_cluster: Option<Suffering>,
    /// What happened to the target's cluster, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_cluster: Option<Suffering>,
    /// Runs that ended with exit code 1, which says that it is safe to run again.
    pub gave_up: usize,
    /// Only in a round of `--follow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<Following>,
    pub timeline: Vec<Incident>,
    pub anomalies: Anomalies,
    /// How often a reader asked for the job's positions and the target's records at once.
    pub asked_for_both: usize,
    /// Runs that ended in a way that a run must not, and everything else that went wrong.
    pub failures: Vec<String>,
}

/// What happened while a round followed its source.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Following {
    pub instances: usize,
    /// Records that the writers committed in the source.
    pub committed: u64,
    /// Records that the writers aborted.
    pub aborted: u64,
    /// Records that the instances copied behind the joint, as their receipts say. A killed instance leaves no receipt.
    pub followed: u64,
    /// Instances that SIGTERM ended.
    pub stops: usize,
    /// Instances that were frozen.
    pub freezes: usize,
    /// Start-ups again, as the receipts say.
    pub restarts: u64,
    /// Partitions that both topics got.
    pub grown: usize,
}

/// How often a cluster suffered a fault.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Suffering {
    pub brokers_killed: usize,
    pub brokers_stopped: usize,
    pub brokers_stalled: usize,
    /// How often a broker's clock was wrong.
    pub clocks: usize,
    /// How often its network was cut, slow or silent.
    pub network: usize,
    /// How often the topic there was made anew, got more partitions, lost records, or was moved.
    pub topics: usize,
}

impl Suffering {
    pub fn bounces(&self) -> usize {
        self.brokers_killed + self.brokers_stopped
    }

    fn add(&mut self, other: &Suffering) {
        self.brokers_killed += other.brokers_killed;
        self.brokers_stopped += other.brokers_stopped;
        self.brokers_stalled += other.brokers_stalled;
        self.clocks += other.clocks;
        self.network += other.network;
        self.topics += other.topics;
    }
}

impl fmt::Display for Suffering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Suffering { brokers_killed, brokers_stopped, brokers_stalled, clocks, network, topics } = self;
        write!(f, "{brokers_killed} brokers killed, {brokers_stopped} stopped, {brokers_stalled} stalled, ")?;
        write!(f, "{clocks} clocks set wrong, ")?;
        write!(f, "{network} faults of the network, {topics} of the topic")
    }
}

/// What is 0 is left out.
impl fmt::Display for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Following { instances, committed, aborted, followed, stops, freezes, restarts, grown } = *self;
        let mut told = vec![format!("{committed} records committed in the source, {aborted} aborted")];
        let counts = [
            (followed, "followed"),
            (stops as u64, "stops"),
            (freezes as u64, "freezes"),
            (restarts, "restarts"),
            (grown as u64, "partitions added"),
        ];
        told.extend(
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        write!(f, "instances: {instances}, {}", told.join(", "))
    }
}

/// Something that happened, and when.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    pub at_ms: u64,
    pub what: String,
}

impl Round {
    pub fn new(schedule: &Schedule, are_two: bool) -> Round {
        let unhurt = are_two.then(Suffering::default);
        Round {
            source_cluster: unhurt,
            target_cluster: unhurt,
            seed: schedule.seed,
            scenario: schedule.scenario,
            source_partitions: schedule.shape.source_partitions,
            target_partitions: schedule.shape.target_partitions,
            transaction_records: schedule.transaction_records,
            records: 0,
            runs: 0,
            faults: 0,
            kills: 0,
            bounces: 0,
            gave_up: 0,
            follow: None,
            timeline: Vec::new(),
            anomalies: Anomalies::default(),
            asked_for_both: 0,
            failures: Vec::new(),
        }
    }

    /// Counts a fault of one side, if the sides have clusters of their own.
    pub fn count(&mut self, side: Side, count: impl Fn(&mut Suffering)) {
        let suffering = match side {
            Side::Source => &mut self.source_cluster,
            Side::Target => &mut self.target_cluster,
        };
        suffering.iter_mut().for_each(count);
    }

    /// Adds what the receipt of an instance says.
    pub(super) fn count_follow(&mut self, ended: &Ended) {
        let number =
            |name: &str| ended.receipt.as_ref().and_then(|receipt| receipt[name].as_u64()).unwrap_or(0);
        if let Some(follow) = &mut self.follow {
            follow.followed += number("followed");
            follow.restarts += number("restarts");
            follow.stops += usize::from(ended.is_done());
        }
    }

    pub fn note(&mut self, at: Duration, what: String) {
        self.timeline.push(Incident { at_ms: millis(at), what });
    }

    pub fn is_right(&self) -> bool {
        self.anomalies.is_none() && self.failures.is_empty()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { scenario, seed, source_partitions, target_partitions, records, .. } = self;
        write!(f, "{scenario}, seed {seed}: {source_partitions} -> {target_partitions} partitions, ")?;
        match self.transaction_records {
            0 => writeln!(f, "{records} records")?,
            size => writeln!(f, "{records} records in transactions of {size}")?,
        }
        for event in &self.timeline {
            let seconds = event.at_ms / 1000;
            let first = event.what.lines().next().unwrap_or_default();
            writeln!(f, "  {:02}:{:02}.{:03}  {first}", seconds / 60, seconds % 60, event.at_ms % 1000)?;
        }
        for (name, suffering) in [("source", &self.source_cluster), ("target", &self.target_cluster)] {
            if let Some(suffering) = suffering {
                writeln!(f, "  {name} cluster: {suffering}")?;
            }
        }
        if let Some(follow) = &self.follow {
            writeln!(f, "  {follow}")?;
        }
        write!(f, "  {}", self.anomalies)?;
        // Nobody knows where somebody else's copier keeps its positions.
        if self.transaction_records > 0 {
            write!(f, "; a reader asked {} times for records and positions", self.asked_for_both)?;
        }
        for failure in &self.failures {
            write!(f, "\n  WRONG: {failure}")?;
        }
        Ok(())
    }
}

/// The sums over the rounds of one scenario, or over all rounds.
#[derive(Default)]
struct Sum {
    rounds: usize,
    runs: usize,
    kills: usize,
    bounces: usize,
    gave_up: usize,
    faults: usize,
    records: usize,
    source: Suffering,
    target: Suffering,
    anomalies: Anomalies,
    failures: usize,
}

impl Sum {
    fn of<'r>(rounds: impl Iterator<Item = &'r Round>) -> Sum {
        rounds.fold(Sum::default(), |mut sum, round| {
            sum.rounds += 1;
            sum.runs += round.runs;
            sum.kills += round.kills;
            sum.bounces += round.bounces;
            sum.gave_up += round.gave_up;
            sum.faults += round.faults - round.kills.min(round.faults);
            sum.records += round.records;
            round.source_cluster.iter().for_each(|suffered| sum.source.add(suffered));
            round.target_cluster.iter().for_each(|suffered| sum.target.add(suffered));
            sum.anomalies.add(&round.anomalies);
            sum.failures += round.failures.len();
            sum
        })
    }
}

impl Report {
    pub fn is_right(&self) -> bool {
        self.rounds.iter().all(Round::is_right)
    }

    /// Names the rounds that went wrong, for an error.
    pub fn wrong(&self) -> String {
        let wrong: Vec<String> = self
            .rounds
            .iter()
            .filter(|round| !round.is_right())
            .map(|round| format!("seed {} ({})", round.seed, round.scenario))
            .collect();
        format!(
            "the drill found faults of {} in {}",
            if self.command.is_none() { "the program" } else { "the command" },
            wrong.join(", ")
        )
    }
}

impl fmt::Display for Report {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rounds.is_empty() {
            return f.write_str("no round was finished");
        }
        writeln!(
            f,
            "| scenario | seeds | runs | kills | bounces | other faults | gave up | records | anomalies | other failures |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|---|--:|")?;
        let mut names: Vec<&str> = Vec::new();
        for round in &self.rounds {
            if !names.contains(&round.scenario) {
                names.push(round.scenario);
            }
        }
        let are_two = self.clusters > 1;
        let mut line = |name: &str, sum: Sum| {
            writeln!(
                f,
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                sum.rounds,
                sum.runs,
                sum.kills,
                // With two clusters, the source's first.
                match are_two {
                    true => format!("{} + {}", sum.source.bounces(), sum.target.bounces()),
                    false => sum.bounces.to_string(),
                },
                sum.faults - sum.bounces.min(sum.faults),
                sum.gave_up,
                sum.records,
                sum.anomalies,
                sum.failures
            )
        };
        for name in names {
            line(name, Sum::of(self.rounds.iter().filter(|round| round.scenario == name)))?;
        }
        line("**all**", Sum::of(self.rounds.iter()))?;
        if self.clusters > 1 {
            let sum = Sum::of(self.rounds.iter());
            write!(f, "\nsource cluster: {}\ntarget cluster: {}\n", sum.source, sum.target)?;
        }
        write!(
            f,
            "\n{}{} brokers ({}), {} s: {}",
            if self.clusters > 1 { "two clusters, " } else { "" },
            self.brokers,
            self.backend,
            self.elapsed_ms / 1000,
            if self.is_right() { "no anomaly, no run that hangs" } else { "WRONG, see above" }
        )
    }
}
