//! `demo` and `drill`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::common::{Common, Output};
use super::load::FieldArgs;
use crate::base::error::{Error, Result};
use crate::job::identity::Identity;
use crate::job::window::WindowSpec;
use crate::lab::demo::Showing;
use crate::lab::drill::Drilling;
use crate::lab::drill::schedule::Fault;

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Events to show it on; generated where none is given
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub fields: FieldArgs,
    #[arg(long, default_value = "11:00-13:00", value_name = "WINDOW", allow_hyphen_values = true)]
    pub window: WindowSpec,
    /// What makes two records the same one: key, key+value, value or field:/pointer; or record, which counts equal
    /// records (key, value, headers and timestamp), and fits where keys are user or device ids
    #[arg(long, default_value = "key")]
    pub identity: Identity,
    /// Leave the broker up at the end, and print what to try on it
    #[arg(long)]
    pub keep: bool,
    /// Open the page with both topics in a browser; it is served until Ctrl-C
    #[arg(long)]
    pub open: bool,
}

impl DemoArgs {
    /// # Errors
    /// [`Error::Usage`] names the property that is refused.
    pub fn showing(&self, common: &Common) -> Result<Showing> {
        Ok(Showing {
            cluster: common.cluster().map(str::to_owned),
            properties: common.properties()?,
            data: self.data.clone(),
            given: self.fields.given(),
            window: self.window,
            identity: self.identity.clone(),
            keep: self.keep,
            open: self.open,
            on_stderr: common.output == Output::Json,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    // Stands for the global option of the same name, whose alias `--brokers` means something else here.
    /// A cluster to drill on, without faults of brokers; by default one is started
    #[arg(short, long, value_name = "HOSTS")]
    bootstrap_server: Option<String>,
    /// Brokers of the cluster that is started: 1 or 3
    #[arg(long, default_value = "3", value_parser = brokers())]
    pub brokers: usize,
    /// Records of the source
    #[arg(long, default_value = "10000", value_name = "N")]
    pub records: usize,
    /// The faults to cause; by default all, in scenarios that take turns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS")]
    pub faults: Vec<Fault>,
    /// Of the first round; the next round's is one more. The same seed gives the same schedule
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// How long to begin new rounds, as in 90s, 2m or 1h; one round is always played
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

impl DrillArgs {
    /// # Errors
    /// [`Error::Usage`] where client properties are given.
    pub fn drilling(&self, common: &Common) -> Result<Drilling> {
        if !common.property.is_empty() || common.command_config.is_some() {
            return Err(Error::usage(
                "a drill takes no client properties: leave out -X and -F, and name a plaintext cluster",
            ));
        }
        Ok(Drilling {
            cluster: common.cluster().map(str::to_owned),
            brokers: self.brokers,
            records: self.records,
            faults: self.faults.clone(),
            seed: self.seed,
            duration: self.duration,
            tells_rounds: common.output == Output::Text,
        })
    }
}

fn brokers() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", "3"]).map(|number| if number == "1" { 1 } else { 3 })
}
