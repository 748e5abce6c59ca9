//! Fetches Apache Kafka's jars with Maven, once for each user.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use super::java::NOTHING_TO_RUN_IT;
use super::{NAME_ONE, version};

/// The directory of this Kafka's jars in the user's cache. The first call fetches them.
pub(super) fn libs(version: &str) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let home = cache()?.join(format!("kafka-{version}"));
    let libs = home.join("libs");
    if libs.is_dir() {
        return Ok(libs);
    }
    fs::create_dir_all(&home).with_context(|| {
        format!("cannot create {}: set XDG_CACHE_HOME to a directory that can be written", home.display())
    })?;
    // Move the jars into place when they are complete. If two processes do this at once, the result of either one is
    // right.
    let part = tempfile::Builder::new()
        .prefix("part-")
        .tempdir_in(&home)
        .with_context(|| format!("cannot write to {}", home.display()))?;
    fetch(version, part.path())?;
    match fs::rename(part.path().join("libs"), &libs) {
        Err(err) if !libs.is_dir() => Err(err).with_context(|| format!("cannot create {}", libs.display())),
        _ => Ok(libs),
    }
}

fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache.context("no place for Kafka's jars: set HOME or XDG_CACHE_HOME")?.join("replicator"))
}

fn fetch(version: &str, dir: &Path) -> Result<()> {
    tracing::info!("Maven fetches Apache Kafka {version}; this happens only once");
    let pom = dir.join("pom.xml");
    let logger = if version::has_log4j_2(version) { LOG4J_2 } else { LOG4J_1 };
    fs::write(&pom, POM.replace("{version}", version).replace("{logger}", logger))
        .with_context(|| format!("cannot write {}", pom.display()))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", dir.join("libs").display()))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { bail!(NOTHING_TO_RUN_IT) };
    // Maven writes its errors to stdout.
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "Maven could not fetch Apache Kafka {version}: let this machine reach Maven Central, \
         once, or {NAME_ONE} ({})",
        said.lines()
            .filter_map(|line| Some(line.split_once("[ERROR]")?.1.trim()))
            .find(|line| !line.is_empty())
            .unwrap_or("it did not say why")
    );
    Ok(())
}

const LOG4J_1: &str = "<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId>\
    <version>1.7.36</version></dependency>";

const LOG4J_2: &str = "<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>\
    <version>2.25.4</version></dependency>";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>replicator</groupId>
  <artifactId>sandbox</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{version}</version>
    </dependency>
    {logger}
  </dependencies>
  <build>
    <pluginManagement>
      <plugins>
        <plugin>
          <artifactId>maven-dependency-plugin</artifactId>
          <version>3.8.1</version>
        </plugin>
      </plugins>
    </pluginManagement>
  </build>
</project>
"#;
