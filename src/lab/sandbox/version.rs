//! The version of Apache Kafka that a sandbox runs.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

/// The version that both backends run, unless somebody chooses another one.
pub const KAFKA_VERSION: &str = "4.3.1";

/// The variable that chooses another version.
const VARIABLE: &str = "REPLICATOR_KAFKA_VERSION";

static CHOSEN: OnceLock<String> = OnceLock::new();

/// Chooses the version for this process, if no sandbox was started yet.
pub(crate) fn choose(version: &str) {
    let _ = CHOSEN.set(version.to_owned());
}

/// Whether the environment names a version.
pub(crate) fn is_named() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// # Errors
/// Says what is wrong with the version that the environment names.
pub(super) fn chosen() -> Result<&'static str> {
    if CHOSEN.get().is_none() {
        let named = std::env::var(VARIABLE).unwrap_or_else(|_| KAFKA_VERSION.to_owned());
        choose(&parse(&named).map_err(|why| anyhow!("the environment's {VARIABLE}: {why}"))?);
    }
    Ok(CHOSEN.get().map_or(KAFKA_VERSION, String::as_str))
}

/// # Errors
/// A sentence, if it is no version, or one that cannot run without ZooKeeper.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let number =
        |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
    match numbers.as_deref() {
        Some([major, minor, _]) if (*major, *minor) >= (3, 3) => Ok(text.to_owned()),
        Some([_, _, _]) => Err(format!("{text} needs ZooKeeper; choose 3.3.1 or newer")),
        _ => Err(format!("`{text}` is not a version; write {KAFKA_VERSION}")),
    }
}

/// Whether its classes log by log4j 2; older ones use log4j 1.
pub(super) fn has_log4j_2(version: &str) -> bool {
    !version.starts_with("3.")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("4.3.1", None)]
    #[case("3.3.1", None)]
    #[case("10.0.0", None)]
    #[case("3.2.3", Some("needs ZooKeeper"))]
    #[case("2.8.0", Some("needs ZooKeeper"))]
    #[case("latest", Some("is not a version"))]
    #[case("4.3", Some("is not a version"))]
    #[case("4.3.1/../..", Some("is not a version"))]
    #[case("+4.3.1", Some("is not a version"))]
    fn versions(#[case] text: &str, #[case] refused: Option<&str>) {
        match (parse(text), refused) {
            (Ok(version), None) => assert_eq!(version, text),
            (Err(why), Some(says)) => assert!(why.contains(says), "{why}"),
            (parsed, _) => panic!("{parsed:?}"),
        }
    }
}
