//! Reads client properties from the environment: `REPLICATOR_SASL_PASSWORD` stands for `sasl.password`, and
//! `REPLICATOR_SOURCE_SASL_PASSWORD` for that of the source cluster alone.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::given::split;
use super::rules::is_property;
use super::sides::{Side, Sides};
use crate::base::error::{Error, Result};

/// Variables of ours that are not properties: for options, and for the clusters of demos, drills and tests.
const NO_PROPERTY: &[&str] = &["STORE", "SCHEMA_REGISTRY", "KAFKA_VERSION", "TEST_BOOTSTRAP_SERVERS"];

/// The brokers and the properties that the environment names.
pub(super) struct Environment {
    pub brokers: Option<String>,
    pub of_sides: Sides<Option<String>>,
    pub properties: BTreeMap<String, String>,
    /// Variables that begin with `REPLICATOR_` but name no property.
    ignored: Vec<String>,
}

impl Environment {
    pub(super) fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment> {
        let mut read = Environment {
            brokers: None,
            of_sides: Sides { source: None, target: None },
            properties: BTreeMap::new(),
            ignored: Vec::new(),
        };
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let text = || {
                let text = value.to_str().map(str::to_owned);
                text.ok_or_else(|| Error::usage(format!("the environment's {name} is not UTF-8")))
            };
            let brokers = match name {
                "KAFKA_BOOTSTRAP_SERVERS" => Some(&mut read.brokers),
                "KAFKA_SOURCE_BOOTSTRAP_SERVERS" => Some(&mut read.of_sides.source),
                "KAFKA_TARGET_BOOTSTRAP_SERVERS" => Some(&mut read.of_sides.target),
                _ => None,
            };
            if let Some(brokers) = brokers {
                *brokers = Some(text()?);
                continue;
            }
            let Some(rest) = name.strip_prefix("REPLICATOR_").filter(|rest| !NO_PROPERTY.contains(rest))
            else {
                continue;
            };
            // A few names have an underscore, such as log_level.
            let lower = rest.to_lowercase();
            let prefixed = Side::BOTH
                .into_iter()
                .map(Side::word)
                .find_map(|side| Some(format!("{side}.{}", lower.strip_prefix(side)?.strip_prefix('_')?)));
            let names = [lower.replace('_', "."), prefixed.unwrap_or(lower)];
            match names.into_iter().find(|name| is_property(split(name).1)) {
                Some(property) => drop(read.properties.insert(property, text()?)),
                None if is_service_link(rest) => {}
                None => read.ignored.push(name.to_owned()),
            }
        }
        Ok(read)
    }

    pub(super) fn warning(&self) -> Option<String> {
        let names = self.ignored.join(", ");
        (!names.is_empty()).then(|| {
            format!(
                "the environment's {names} is ignored: no client property has this name; for example, \
                 REPLICATOR_SASL_PASSWORD stands for sasl.password"
            )
        })
    }
}

/// The variable that stands for a property.
pub(super) fn variable_name(property: &str) -> String {
    format!("REPLICATOR_{}", property.to_uppercase().replace('.', "_"))
}

/// Whether the variable is one that Kubernetes gives to every pod beside a service whose name begins with `replicator`,
/// such as `…SERVICE_HOST`, `…SERVICE_PORT_HTTP`, `…PORT` or `…PORT_9090_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let has = |word: &str| rest.starts_with(word) || rest.contains(&format!("_{word}"));
    has("SERVICE_HOST") || has("SERVICE_PORT") || has("PORT_") || rest == "PORT" || rest.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(k, v)| (OsString::from(*k), OsString::from(*v)));
        Environment::read(variables).expect("read")
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let found = environment(&[("REPLICATOR_SASL_PASWORD", "hunter2"), ("REPLICATOR_LINGER_MS", "7")]);
        assert_eq!(found.properties.len(), 1);
        let warning = found.warning().expect("a warning");
        assert!(warning.contains("REPLICATOR_SASL_PASWORD") && !warning.contains("hunter2"), "{warning}");
        assert!(!warning.contains("LINGER"), "{warning}");
    }

    #[rstest]
    #[case("REPLICATOR_SASL_KERBEROS_SERVICE_NAME", "sasl.kerberos.service.name")]
    #[case("REPLICATOR_LOG_LEVEL", "log_level")]
    #[case::of_a_side("REPLICATOR_SOURCE_SASL_PASSWORD", "source.sasl.password")]
    #[case::of_a_side("REPLICATOR_TARGET_LOG_LEVEL", "target.log_level")]
    #[case::of_topics("REPLICATOR_COMPRESSION_TYPE", "compression.type")]
    #[case::of_topics_alone("REPLICATOR_REQUEST_TIMEOUT_MS", "request.timeout.ms")]
    #[case::refused_later("REPLICATOR_ISOLATION_LEVEL", "isolation.level")]
    #[case::not_librdkafkas("REPLICATOR_SASL_JAAS_CONFIG", "sasl.jaas.config")]
    fn a_variable_for_a_property(#[case] variable: &str, #[case] property: &str) {
        let found = environment(&[(variable, "5")]);
        assert_eq!(found.properties.keys().collect::<Vec<_>>(), [property]);
    }

    #[test]
    fn links_to_services_are_no_properties() {
        let found = environment(&[
            ("REPLICATOR_SERVICE_HOST", "10.0.0.1"),
            ("REPLICATOR_PORT", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_SERVICE_HOST", "10.0.0.1"),
            ("REPLICATOR_METRICS_SERVICE_PORT", "9090"),
            ("REPLICATOR_METRICS_SERVICE_PORT_HTTP", "9090"),
            ("REPLICATOR_METRICS_PORT", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_PORT_9090_TCP_PROTO", "tcp"),
            ("REPLICATOR_METRICS_PORT_9090_TCP_ADDR", "10.0.0.1"),
            ("REPLICATOR_STORE", "sqlite:x.db"),
            ("REPLICATOR_SCHEMA_REGISTRY", "http://x"),
            ("REPLICATOR_TEST_BOOTSTRAP_SERVERS", "x:1"),
        ]);
        assert!(found.properties.is_empty() && found.ignored.is_empty());
    }
}
