//! What the brokers of both backends have in common: addresses, settings, and how one is started.

use std::net::TcpListener;
use std::ops::Range;

use anyhow::{Result, anyhow, ensure};

use super::{BackDoor, Extras};

pub(super) const LOCALHOST: &str = "127.0.0.1";

/// Where free ports are looked for: below those that the system gives to outgoing connections, or
/// one of these could take the port of a broker that is down.
const PORTS: Range<u16> = 20_000..32_000;

/// Starts a broker, formatting its storage the first time; the same in a container and outside. An
/// image's own start script may refuse storage that is formatted already, that is, a restart.
pub(super) const LAUNCH: &str = r#"
printf '%s' "$PROPERTIES" >server.properties || exit
[ -e data/meta.properties ] || "$JAVA" $JVM ${FORMAT_OPTION:+"$FORMAT_OPTION"} -cp "$LIBS/*" \
    kafka.tools.StorageTool format --cluster-id="$CLUSTER" --config server.properties \
    >format.log 2>&1 || { cat format.log; exit 1; }
exec "$JAVA" $JVM $HEAP ${BROKER_OPTION:+"$BROKER_OPTION"} -cp "$LIBS/*" \
    -Dlog4j2.level=INFO kafka.Kafka server.properties
"#;

/// Half the start-up time of the defaults: a broker for a test is too short-lived to be optimised.
const JVM: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData";

/// One or three brokers, before they have a machine to run on.
pub(super) struct Layout {
    /// Unique on this machine: for names of directories and containers.
    pub name: String,
    id: String,
    pub ports: Vec<Ports>,
    extras: Extras,
}

/// A broker's ports on this machine.
pub(super) struct Ports {
    pub clients: u16,
    /// Where it listens for clients that come through a proxy, and what it tells them to connect to.
    pub proxied: u16,
    pub proxy: u16,
    /// Of the extra listeners.
    pub extra: Vec<u16>,
}

/// Where a broker listens (`HOST:PORT`) and what it tells others to connect to.
pub(super) struct Endpoint {
    pub listen: String,
    pub advertise: String,
}

impl Endpoint {
    /// The same for both.
    pub(super) fn at(address: String) -> Endpoint {
        Endpoint { listen: address.clone(), advertise: address }
    }
}

/// The doors of a broker.
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

    /// Where clients find each broker, and where a proxy does.
    pub(super) fn doors(&self, host: &str) -> (Vec<String>, Vec<BackDoor>) {
        let address = |port: u16| format!("{host}:{port}");
        let back_door = |p: &Ports| BackDoor { address: address(p.proxied), advertised: p.proxy };
        (self.ports.iter().map(|p| address(p.clients)).collect(), self.ports.iter().map(back_door).collect())
    }

    /// Where clients find the extra listeners of the first broker.
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

/// In the order of the file, in which the last one of a name counts.
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

/// What a cluster of so many brokers sets beside the addresses and roles of its nodes.
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

/// All is allowed until a test denies something. Not with three: a quorum whose controllers are no super
/// users waits for its authorizer, which waits for the quorum.
const AUTHORIZER: [(&str, &str); 2] = [
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("allow.everyone.if.no.acl.found", "true"),
];

/// The settings that are the same for every broker.
const FIXED: [(&str, &str); 16] = [
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    // Internal topics are created on first use, which waits for all their partitions.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "4"),
    // A transaction that timed out, of a client that was killed, is to end soon after.
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    // A killed broker may come back only when its former self has been given up.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    // A frozen controller keeps its connections: the others are not to wait half a minute for it.
    ("controller.socket.timeout.ms", "3000"),
    ("replica.socket.timeout.ms", "3000"),
    // A broker that came back gets its partitions again soon: their leaders move once more.
    ("leader.imbalance.check.interval.seconds", "2"),
    ("leader.imbalance.per.broker.percentage", "0"),
    // The default takes 128 MB of the heap at once.
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    // The defaults are for machines that do nothing else.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "4"),
];

/// Ports on which nothing listens now.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..1000 {
        if held.len() == count {
            break;
        }
        let port = PORTS.start + (random_u32()? % PORTS.len() as u32) as u16;
        // Held until all are found: they are to differ.
        held.extend(TcpListener::bind((LOCALHOST, port)).map(|listener| (port, listener)));
    }
    ensure!(
        held.len() == count,
        "no free ports between {} and {} on this machine: end what listens there",
        PORTS.start,
        PORTS.end
    );
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

fn random_u32() -> Result<u32> {
    getrandom::u32().map_err(|err| anyhow!("this system has no source of randomness: {err}"))
}

/// Lower-case, as names of containers are; a cluster's id is any 16 bytes in base64, so 22 of them
/// do, with a last one that has no surplus bits.
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

    #[test]
    fn ports_differ_and_are_free() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
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
