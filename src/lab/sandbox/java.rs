//! The Java that runs brokers on this machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

pub(super) const NOTHING_TO_RUN_IT: &str = "neither a Docker engine nor Java 17 and Maven: \
     install Docker, or `apt-get install openjdk-17-jre-headless maven`, \
     or name a cluster with --bootstrap-server (for tests, with REPLICATOR_TEST_BOOTSTRAP_SERVERS)";

/// A Java that Kafka runs on.
pub(super) struct Java {
    pub program: PathBuf,
    /// For example `17.0.15`.
    pub version: String,
}

impl Java {
    pub(super) fn find() -> Result<Java> {
        let program = match env::var_os("JAVA_HOME") {
            Some(home) if !home.is_empty() => Path::new(&home).join("bin/java"),
            _ => PathBuf::from("java"),
        };
        let output = Command::new(&program).arg("-version").stdin(Stdio::null()).output();
        let Some(version) = output.ok().and_then(|o| version(&String::from_utf8_lossy(&o.stderr))) else {
            bail!(NOTHING_TO_RUN_IT);
        };
        let major = version.split('.').next().and_then(|n| n.parse().ok());
        ensure!(
            major.is_some_and(|n: u32| n >= 17),
            "{NOTHING_TO_RUN_IT} (`{} -version` says {version})",
            program.display()
        );
        Ok(Java { program, version })
    }
}

/// Returns the part in quotes of a line such as `openjdk version "17.0.15" 2025-04-15`.
fn version(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains(" version \""))?;
    line.split('"').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_among_what_java_says() {
        let said = "Picked up JAVA_TOOL_OPTIONS: -Da=b\nopenjdk version \"17.0.15\" 2025-04-15\n";
        assert_eq!(version(said).as_deref(), Some("17.0.15"));
        assert_eq!(version("java: not found"), None);
    }
}
