//! Asks brokers whether they are there.

use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};

/// The pause between two looks. A refused connection costs almost nothing.
const TICK: Duration = Duration::from_millis(50);

/// A client that keeps quiet: refused connections are expected here.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// The cluster's id, and the ids of the brokers that it counts as alive.
pub(super) fn brokers(bootstrap: &str, timeout: Duration) -> KafkaResult<(Option<String>, Vec<i32>)> {
    let client: BaseConsumer<Quiet> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "200")
        .create_with_context(Quiet)?;
    let metadata = client.fetch_metadata(Some("__consumer_offsets"), timeout)?;
    let id = client.client().fetch_cluster_id(timeout);
    Ok((id, metadata.brokers().iter().map(|b| b.id()).collect()))
}

/// Waits until a broker of `cluster` answers at `address` and lists all `expected` brokers. If `check` returns an error,
/// waiting is useless, and this returns that error.
pub(super) fn ready(
    address: &str,
    cluster: &str,
    expected: &[usize],
    timeout: Duration,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    let mut checked = begun;
    loop {
        // Try to connect first. That is quicker than a request, and it is what fails at first.
        if accepts(address)
            && brokers(address, Duration::from_secs(2)).is_ok_and(|(id, ids)| {
                id.as_deref() == Some(cluster) && expected.iter().all(|id| ids.contains(&(*id as i32)))
            })
        {
            return Ok(());
        }
        if begun.elapsed() > timeout {
            bail!(
                "the broker at {address} runs but does not answer as itself after {} s: the machine may be overloaded",
                timeout.as_secs()
            );
        }
        if checked.elapsed() > Duration::from_secs(1) {
            check()?;
            checked = Instant::now();
        }
        thread::sleep(TICK);
    }
}

fn accepts(address: &str) -> bool {
    let Ok(mut addresses) = address.to_socket_addrs() else {
        return false;
    };
    addresses.any(|a| TcpStream::connect_timeout(&a, Duration::from_secs(1)).is_ok())
}
