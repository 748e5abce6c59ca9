//! Everything that the brokers of both backends have in common: their addresses, their settings, and the script that
//! starts one.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};

use super::{BackDoor, Extras};

pub(super) const LOCALHOST: &str = "127.0.0.1";

/// The range in which to look for free ports. It is below the ports that the system gives to outgoing connections.
/// Otherwise an outgoing connection could take the port of a broker that is down.
const PORTS: Range<u16> = 20_000..32_000;

/// Starts a broker, and formats its storage the first time. The script is the same in a container and outside. The
/// image's own start script may refuse storage that is formatted already, and so a restart.
pub(super) const LAUNCH: &str = r#"
printf '%s' "$PROPERTIES" >server.properties || exit
# Kafka 3 logs by log4j 1, which knows no level by a system property.
printf '%s\n' log4j.rootLogger=INFO,A log4j.appender.A=org.apache.log4j.ConsoleAppender \
    log4j.appender.A.layout=org.apache.log4j.PatternLayout 'log4j.appender.A.layout.ConversionPattern=%d %p %m%n' \
    >log4j.properties
[ -e data/meta.properties ] || "$JAVA" $JVM ${FORMAT_OPTION:+"$FORMAT_OPTION"} -cp "$LIBS/*" \
    kafka.tools.StorageTool format --cluster-id="$CLUSTER" --config server.properties \
    >format.log 2>&1 || { cat format.log; exit 1; }
exec "$JAVA" $JVM $HEAP ${BROKER_OPTION:+"$BROKER_OPTION"} -cp "$LIBS/*" \
    -Dlog4j2.level=INFO -Dlog4j.configuration=file:log4j.properties kafka.Kafka server.properties
"#;

/// With these options, a broker takes half the time to start that it takes with the defaults. A broker for a test does
/// not live long enough for optimised code to pay off.
const JVM: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData";

/// The names, ports and settings of one or three brokers, before a backend runs them.
pub(super) struct Layout {
    /// A name that is unique on this machine, for directories and containers.
    pub name: String,
    pub id: String,
    pub ports: Vec<Ports>,
    pub extras: Extras,
}

/// A broker's ports on this machine.
pub(super) struct Ports {
    pub clients: u16,
    /// The port on which it listens for clients that come through a proxy, and the port that it tells these clients to
    /// connect to.
    pub proxied: u16,
    pub proxy: u16,
    /// The ports of the extra listeners.
    pub extra: Vec<u16>,
}

/// The address (`HOST:PORT`) on which a broker listens, and the address that it tells others to connect to.
pub(super) struct Endpoint {
    pub listen: String,
    pub advertise: String,
}

impl Endpoint {
    /// An endpoint that listens on and advertises the same address.
    pub(super) fn at(address: String) -> Endpoint {
        Endpoint { listen: address.clone(), advertise: address }
    }
}

/// The listeners of a broker.
pub(super) struct Node {
    pub clients: Endpoint,
    pub proxied: Endpoint,
    pub brokers: Endpoint,
    pub controllers: Endpoint,
    pub extra: Vec<Endpoint>,
}

impl Layout {
    pub(super) fn new(brokers: usize, extras: Extras) -> Result<Layout> {
        let each = 3 + extras.listeners.len();
        let ports = free_ports(each * brokers)?;
        Ok(Layout {
            name: format!("replicator-sandbox-{}", random_letters(8)?),
            id: random_letters(22)?,
            ports: ports
                .chunks_exact(each)
                .map(|p| Ports { clients: p[0], proxied: p[1], proxy: p[2], extra: p[3..].to_vec() })
                .collect(),
            extras,
        })
    }

    /// The address of each broker for clients, and its address for a proxy.
    pub(super) fn doors(&self, host: &str) -> (Vec<String>, Vec<BackDoor>) {
        let address = |port: u16| format!("{host}:{port}");
        let back_door = |p: &Ports| BackDoor { address: address(p.proxied), advertised: p.proxy };
        (self.ports.iter().map(|p| address(p.clients)).collect(), self.ports.iter().map(back_door).collect())
    }

    /// The addresses of the first broker's extra listeners.
    pub(super) fn extra_doors(&self, host: &str) -> Vec<(&'static str, String)> {
        let ports = self.ports.iter().take(1).flat_map(|ports| &ports.extra);
        let names = self.extras.listeners.iter().map(|(name, _)| *name);
        names.zip(ports).map(|(name, port)| (name, format!("{host}:{port}"))).collect()
    }

    /// The variables that [`LAUNCH`] reads.
    pub(super) fn variables(&self, nodes: &[Node], broker: usize) -> [(&'static str, String); 4] {
        let heap = if nodes.len() == 1 { "-Xmx512m" } else { "-Xmx384m" };
        let (jvm, heap) = self.extras.jvm.map_or((JVM, heap), |options| (options, ""));
        let properties: String =
            properties(nodes, broker, &self.extras).map(|(key, value)| format!("{key}={value}\n")).collect();
        [
            ("CLUSTER", self.id.clone()),
            ("HEAP", heap.to_owned()),
            ("JVM", jvm.to_owned()),
            ("PROPERTIES", properties),
        ]
    }
}

/// The broker's properties, in the order of the file. If a name occurs twice, the last one counts.
fn properties(
    nodes: &[Node],
    broker: usize,
    extras: &Extras,
) -> impl Iterator<Item = (&'static str, String)> {
    let node = &nodes[broker];
    let each = |entry: &dyn Fn(&'static str, &'static str, &Endpoint) -> String| -> String {
        let listeners = extras.listeners.iter().zip(&node.extra);
        listeners.map(|((name, protocol), endpoint)| entry(name, protocol, endpoint)).collect()
    };
    let voters: Vec<String> =
        nodes.iter().enumerate().map(|(id, node)| format!("{id}@{}", node.controllers.advertise)).collect();

    let mut all = vec![
        ("node.id", broker.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        (
            "listeners",
            format!(
                "CLIENTS://{},PROXIED://{},BROKERS://{},CONTROLLERS://{}{}",
                node.clients.listen,
                node.proxied.listen,
                node.brokers.listen,
                node.controllers.listen,
                each(&|name, _, endpoint| format!(",{name}://{}", endpoint.listen))
            ),
        ),
        (
            "advertised.listeners",
            format!(
                "CLIENTS://{},PROXIED://{},BROKERS://{}{}",
                node.clients.advertise,
                node.proxied.advertise,
                node.brokers.advertise,
                each(&|name, _, endpoint| format!(",{name}://{}", endpoint.advertise))
            ),
        ),
        (
            "listener.security.protocol.map",
            format!(
                "CLIENTS:PLAINTEXT,PROXIED:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLERS:PLAINTEXT{}",
                each(&|name, protocol, _| format!(",{name}:{protocol}"))
            ),
        ),
    ];
    all.extend(ROLES.map(|(key, value)| (key, value.to_owned())));
    all.extend(settings(nodes.len()));
    all.into_iter().chain(extras.properties.clone())
}

/// The settings of a cluster of this many brokers, besides the addresses and roles of its nodes.
pub(super) fn settings(brokers: usize) -> Vec<(&'static str, String)> {
    let replicas = brokers.min(3).to_string();
    let min_isr = if brokers < 3 { "1" } else { "2" };
    let mut all = [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ]
    .map(|key| (key, replicas.clone()))
    .to_vec();
    all.extend(
        ["min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"]
            .map(|key| (key, min_isr.to_owned())),
    );
    if brokers == 1 {
        all.extend(AUTHORIZER.map(|(key, value)| (key, value.to_owned())));
    }
    all.extend(FIXED.map(|(key, value)| (key, value.to_owned())));
    all
}

const ROLES: [(&str, &str); 4] = [
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLERS"),
    ("inter.broker.listener.name", "BROKERS"),
    ("log.dirs", "data"),
];

/// Everything is allowed until a test denies something. Three brokers have no authorizer: if the controllers of a
/// quorum are not super users, the quorum waits for its authorizer, and the authorizer waits for the quorum.
const AUTHORIZER: [(&str, &str); 2] = [
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("allow.everyone.if.no.acl.found", "true"),
];

/// The settings that are the same for every broker.
const FIXED: [(&str, &str); 20] = [
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    // By default, a group of the consumer protocol (KIP-848) waits for 45 s until it gives up a silent member.
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "10000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "2000"),
    // Internal topics are created on first use, and the first use waits for all their partitions.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "4"),
    // If a client was killed and its transaction has timed out, the transaction should end soon after that.
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    // A killed broker may come back only after the cluster has given up its former session.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    // A frozen controller keeps its connections, and the others should not wait half a minute for it.
    ("controller.socket.timeout.ms", "3000"),
    ("replica.socket.timeout.ms", "3000"),
    // A broker that came back leads its partitions again soon, so leaders move one more time.
    ("leader.imbalance.check.interval.seconds", "2"),
    ("leader.imbalance.per.broker.percentage", "0"),
    // The default takes 128 MB of the heap at once.
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    // The defaults are for machines that do nothing else.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "4"),
];

/// Ports on which nothing listens now. No port is given twice, not even to two processes: a broker that is down must find its
/// port free.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    static OURS: Mutex<Blocks> = Mutex::new(Blocks::new());
    OURS.lock().unwrap_or_else(PoisonError::into_inner).take(count)
}

/// The ports of this process: blocks of [`PORTS`]. Who listens on the first port of a block owns the block. So the system
/// gives it back when the process ends.
struct Blocks {
    owned: Vec<TcpListener>,
    left: Range<u16>,
}

const BLOCK: u16 = 100;

impl Blocks {
    const fn new() -> Blocks {
        Blocks { owned: Vec::new(), left: 0..0 }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u16>> {
        let mut ports = Vec::new();
        while ports.len() < count {
            match self.left.next() {
                Some(port) if TcpListener::bind((LOCALHOST, port)).is_ok() => ports.push(port),
                Some(_) => {}
                None => self.left = self.own_another()?,
            }
        }
        Ok(ports)
    }

    fn own_another(&mut self) -> Result<Range<u16>> {
        let blocks = PORTS.len() as u32 / u32::from(BLOCK);
        let from = random_u32()? % blocks;
        for block in (from..blocks).chain(0..from) {
            let first = PORTS.start + block as u16 * BLOCK;
            if let Ok(listener) = TcpListener::bind((LOCALHOST, first)) {
                self.owned.push(listener);
                return Ok(first + 1..first + BLOCK);
            }
        }
        bail!(
            "no free ports between {} and {} on this machine: end the programs that listen there",
            PORTS.start,
            PORTS.end
        )
    }
}

fn random_u32() -> Result<u32> {
    getrandom::u32().map_err(|err| anyhow!("this system has no source of randomness: {err}"))
}

/// Lower-case letters, because names of containers are in lower case. A cluster's id is 16 bytes in base64, so 22 such
/// letters are an id if the last one has no surplus bits.
fn random_letters(count: usize) -> Result<String> {
    let mut text = String::with_capacity(count);
    for _ in 1..count {
        text.push(char::from(b'a' + (random_u32()? % 26) as u8));
    }
    text.push('w');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two owners are like two processes, for the system too.
    #[test]
    fn no_port_is_given_twice() {
        let (mut ours, mut theirs) = (Blocks::new(), Blocks::new());
        let mut all = Vec::new();
        for count in [20, 250, 0, 1] {
            let (a, b) = (ours.take(count).unwrap(), theirs.take(count).unwrap());
            assert_eq!((a.len(), b.len()), (count, count));
            all.extend([a, b].concat());
        }
        assert!(all.iter().all(|port| PORTS.contains(port) && TcpListener::bind((LOCALHOST, *port)).is_ok()));
        let given = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), given);
    }

    #[test]
    fn three_brokers_survive_the_loss_of_one() {
        let nodes: Vec<Node> = (0..3)
            .map(|i| Node {
                clients: Endpoint::at(format!("c{i}:1")),
                proxied: Endpoint::at(format!("p{i}:4")),
                brokers: Endpoint::at(format!("b{i}:2")),
                controllers: Endpoint::at(format!("q{i}:3")),
                extra: vec![],
            })
            .collect();
        let properties: Vec<_> = properties(&nodes, 1, &Extras::default()).collect();
        let get = |key| {
            let mut found = properties.iter().filter(|(k, _)| *k == key);
            let value = found.next().map(|(_, v)| v.as_str());
            assert!(found.next().is_none(), "{key} twice");
            value
        };
        assert_eq!(get("node.id"), Some("1"));
        assert_eq!(get("controller.quorum.voters"), Some("0@q0:3,1@q1:3,2@q2:3"));
        assert_eq!(get("transaction.state.log.replication.factor"), Some("3"));
        assert_eq!(get("min.insync.replicas"), Some("2"));
    }
}
