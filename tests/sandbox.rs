//! The sandbox starts a real broker, breaks it and starts it again.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use replicator::Sandbox;
use replicator::proxy::Proxy;

const TOPIC: &str = "things";

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "0");
    config
}

fn create_topic(bootstrap: &str, replicas: i32) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().unwrap();
    let topic = NewTopic::new(TOPIC, 3, TopicReplication::Fixed(replicas));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let results = block_on(admin.create_topics([&topic], &options)).unwrap();
    results[0].as_ref().unwrap();
}

/// Sends one record to each partition. Enough replicas acknowledge each of them.
fn produce(bootstrap: &str, value: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = config(bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // A frozen broker keeps its connections. These settings make the client turn to another broker soon.
        .set("api.version.request.timeout.ms", "1000")
        .set("request.timeout.ms", "1000")
        .set("socket.timeout.ms", "1000")
        .set("message.timeout.ms", "20000")
        .create()
        .unwrap();
    for partition in 0..3 {
        let record = BaseRecord::<str, str>::to(TOPIC).partition(partition).payload(value);
        producer.send(record).map_err(|(err, _)| err).unwrap();
    }
    producer.flush(Duration::from_secs(25)).unwrap();
}

/// The values of all records in the order of their partitions; waits for `count` of them.
fn consume(bootstrap: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer =
        config(bootstrap).set("group.id", "none").set("enable.auto.commit", "false").create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..3 {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let begun = Instant::now();
    let mut values = Vec::new();
    while values.len() < count {
        assert!(begun.elapsed() < Duration::from_secs(30), "only {values:?}");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let value = message.payload_view::<str>().unwrap().unwrap();
            values.push((message.partition(), message.offset(), value.to_owned()));
        }
    }
    values.sort();
    values.into_iter().map(|(_, _, value)| value).collect()
}

#[test]
fn a_killed_broker_comes_back_with_its_records() {
    let begun = Instant::now();
    let mut sandbox = Sandbox::start_own(1).unwrap();
    println!("{}: started in {:?}", sandbox.backend(), begun.elapsed());
    let bootstrap = sandbox.bootstrap().to_owned();
    create_topic(&bootstrap, 1);
    produce(&bootstrap, "before");

    sandbox.kill(0).unwrap();
    assert!(TcpStream::connect(&bootstrap).is_err());
    assert!(sandbox.kill(0).is_err(), "it is dead already");

    let begun = Instant::now();
    sandbox.restart(0).unwrap();
    println!("restarted in {:?}", begun.elapsed());
    assert_eq!(sandbox.bootstrap(), bootstrap);
    assert_eq!(consume(&bootstrap, 3), ["before"; 3]);

    let begun = Instant::now();
    sandbox.stop(0).unwrap();
    println!("stopped in {:?}", begun.elapsed());
    let begun = Instant::now();
    sandbox.restart(0).unwrap();
    println!("restarted in {:?}", begun.elapsed());
    assert!(sandbox.restart(0).is_err(), "it is running");
    produce(&bootstrap, "after");
    assert_eq!(consume(&bootstrap, 6).len(), 6);

    let begun = Instant::now();
    drop(sandbox);
    println!("ended in {:?}", begun.elapsed());
    assert!(TcpStream::connect(&bootstrap).is_err());
}

#[test]
fn three_brokers_do_without_any_one() {
    let begun = Instant::now();
    let mut sandbox = Sandbox::start_own(3).unwrap();
    println!("{}: started in {:?}", sandbox.backend(), begun.elapsed());
    assert_eq!(sandbox.brokers(), 3);
    let bootstrap = sandbox.bootstrap().to_owned();
    create_topic(&bootstrap, 3);
    produce(&bootstrap, "a");

    sandbox.kill(1).unwrap();
    let begun = Instant::now();
    produce(&bootstrap, "b");
    println!("produced without one in {:?}", begun.elapsed());
    let begun = Instant::now();
    sandbox.restart(1).unwrap();
    println!("restarted in {:?}", begun.elapsed());

    sandbox.pause(2).unwrap();
    let begun = Instant::now();
    produce(&bootstrap, "c");
    println!("produced with one frozen in {:?}", begun.elapsed());
    sandbox.resume(2).unwrap();
    assert_eq!(consume(&bootstrap, 9), ["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
}

/// Not a test of its own: [`brokers_end_with_a_process_that_is_killed`] runs it, and kills it.
#[test]
#[ignore = "waits to be killed"]
fn owner() {
    let sandbox = Sandbox::start_own(1).unwrap();
    println!("\nbootstrap {}", sandbox.bootstrap());
    thread::sleep(Duration::from_secs(3600));
}

#[test]
fn brokers_end_with_a_process_that_is_killed() {
    let files = tempfile::tempdir().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["owner", "--exact", "--ignored", "--nocapture"])
        .env("TMPDIR", files.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(owner.stdout.take().unwrap());
    let bootstrap = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("bootstrap ").map(str::to_owned))
        .expect("the owner has started a broker");
    assert!(TcpStream::connect(&bootstrap).is_ok());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let begun = Instant::now();
    let gone =
        || TcpStream::connect(&bootstrap).is_err() && files.path().read_dir().unwrap().next().is_none();
    while !gone() {
        assert!(begun.elapsed() < Duration::from_secs(15), "{bootstrap} is still up");
        thread::sleep(Duration::from_millis(50));
    }
    println!("ended in {:?}", begun.elapsed());
}

/// Two clusters stand side by side, and what is in one is not in the other.
#[test]
fn two_clusters_share_nothing() {
    let begun = Instant::now();
    let [mut a, b] = Sandbox::start_two(1, 3).unwrap();
    println!("{}: two clusters started in {:?}", a.backend(), begun.elapsed());
    assert_eq!((a.brokers(), b.brokers()), (1, 3));
    let id = |sandbox: &Sandbox| {
        let client: BaseConsumer = config(sandbox.bootstrap()).create().unwrap();
        client.client().fetch_cluster_id(Duration::from_secs(20)).expect("a cluster id")
    };
    let ids = (id(&a), id(&b));
    println!("cluster ids {ids:?}");
    assert_ne!(ids.0, ids.1);

    create_topic(a.bootstrap(), 1);
    create_topic(b.bootstrap(), 3);
    produce(a.bootstrap(), "a");
    produce(b.bootstrap(), "b");
    a.kill(0).unwrap();
    assert_eq!(consume(b.bootstrap(), 3), ["b"; 3]);

    // A broker of another cluster that answers at the address is not the broker that should.
    let mut door = b.back_doors()[0].clone();
    door.address = b.bootstrap().split(',').next().unwrap().to_owned();
    door.advertised = a.bootstrap().rsplit_once(':').unwrap().1.parse().unwrap();
    let another = Proxy::start(&door).unwrap();
    let refused = a.restart(0).unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("address already in use"), "{refused}");
    drop(another);
    a.restart(0).unwrap();
    assert_eq!(consume(a.bootstrap(), 3), ["a"; 3]);
}

/// The story on two clusters. The environment may name production's, so the demo starts its own.
#[test]
fn the_demo_fills_from_one_cluster_into_another() {
    let demo = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_replicator"))
            .args(["demo", "--two-clusters", "-q", "--output", "json"])
            .args(arguments)
            .env("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .env("KAFKA_TARGET_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .output()
            .unwrap()
    };
    let output = demo(&[]);
    let story = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{story}");
    for told in ["into the source cluster", "into the target cluster", "the second run wrote 0"] {
        assert!(story.contains(told), "{told}: {story}");
    }
    let refused = demo(&["--bootstrap-server", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}
