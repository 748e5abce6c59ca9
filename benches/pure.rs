//! Measures the cost of each record without Kafka: event time, window, identity, index, partition.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use replicator::{Fingers, Identity, Judge, Pointer, Rules, Signature, Window, of_json, partition::of_key};

/// A record's value, about 350 bytes.
fn value() -> Vec<u8> {
    format!(
        "{{\"event_id\":\"0af51c3e-77d1-4a52-9d0c-1f6a7ce1b2d3\",\"user\":{{\"id\":123456,\"plan\":\"free\"}},\"action\":\"play\",\
         \"pad\":\"{:x<190}\",\"at\":\"2021-04-14T11:30:00.123Z\"}}",
        ""
    )
    .into_bytes()
}

fn per_record(c: &mut Criterion) {
    let mut group = c.benchmark_group("a record");
    group.throughput(Throughput::Elements(1));
    let value = value();
    let key = b"user-123456";

    let window = Window::new(Some(1_618_398_000_000), Some(1_618_405_200_000)).expect("a window");
    group.bench_function("window", |b| b.iter(|| window.contains(black_box(1_618_400_000_000))));

    let at: Pointer = "/at".parse().expect("a pointer");
    group.bench_function("time field of 350 bytes of JSON", |b| {
        b.iter(|| at.find(black_box(&value)).ok().flatten().and_then(of_json));
    });

    let fingers = Fingers::new().expect("randomness");
    for identity in [Identity::Key, Identity::Value, Identity::Field("/event_id".parse().expect("a pointer"))]
    {
        group.bench_function(format!("identity {identity}"), |b| {
            b.iter(|| fingers.identity_of(&identity, black_box(Some(key)), black_box(Some(&value))));
        });
    }

    group.bench_function("murmur2 partition", |b| b.iter(|| of_key(black_box(key), 6)));
    group.finish();
}

fn index(c: &mut Criterion) {
    const RECORDS: u64 = 1_000_000;
    // Spread the signatures as hashes are.
    let signature = |n: u64| {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Signature { identity: [spread, n], exact: spread, loose: !spread }
    };
    let filled = |identity: Identity| {
        let mut judge = Judge::new(&Rules::by(identity), 1 << 30);
        for n in 0..RECORDS {
            judge.target(signature(n)).expect("room");
        }
        judge
    };
    let mut group = c.benchmark_group("a million identities");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10);
    for identity in [Identity::Key, Identity::Record] {
        group.bench_function(format!("taken in by {identity}"), |b| b.iter(|| filled(identity.clone())));
        group.bench_function(format!("judged by {identity}"), |b| {
            let mut judge = filled(identity.clone());
            b.iter(|| (0..RECORDS).map(|n| judge.source(signature(n))).filter(Result::is_ok).count());
        });
    }
    group.finish();
}

criterion_group!(benches, per_record, index);
criterion_main!(benches);
