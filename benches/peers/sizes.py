"""Copies topics of other sizes and codecs by a few copiers, or measures what the parts of the work cost. `run` starts it.

Each cell has a topic of its own: generated events, padded with further ones or cut to the size, in batches of the codec. All copiers
write with the codec of the source; what stands in the target's batches is looked up on the wire.
"""

import os
import pathlib
import platform
import socket
import statistics
import struct
import subprocess
import sys
import tempfile

from shared import BUILT, HERE, PEERS, REPLICATOR, ROOT, brokers, build_go, build_java, built, java, peers, run, timed

SIZES = [100, 350, 1000, 10_000]
CODECS = ["none", "lz4", "zstd", "snappy", "gzip"]
LINES = 50_000
"""Generated events; a topic begins again with the first one after the last."""
WHOLE = "2021-04-14T10:00Z/2021-04-14T16:45Z"

PLAIN = "tuned plain copy"
FILL = "**replicator**"
FRANZ_GO = "franz-go transactions"
JAVA = "Java loop"
PARTS = ["floor", "scan", "gaps", "verify", "fill"]

SETTINGS = """\
- values: events of `replicator generate` of seed 7, one after the other and cut to the size; keys of 12 bytes or less; records are
  spread over time and partitions as in the main comparison. Source batches of at most 1 MB, written by librdkafka.
- each copier writes with the source's codec, at its library's usual level: `-X compression.type` of replicator, `compression.type` of
  librdkafka and Java, ProducerBatchCompression of franz-go. The other settings are those of the main comparison.
- batches: the codec that most batches of the copy have, and the bytes of a record in them; of at most 8 MiB of partition 0.
- ratios are medians over pairs of one round; wall, CPU and RSS are medians; the CPU is that of the copier, without the broker."""

PROFILE_SETTINGS = """\
- CPU seconds of the whole process, start and end included, for a million records of the source's window; medians.
- floor: a consumer reads the source. scan: a plan of the whole window, with a target that holds all of it. gaps and verify: the same two
  topics. So these three read two million records for each million. fill: into an empty topic, in the source's codec; it reads one
  million and writes one million."""


def copiers(bootstrap, source, records, codec):
    """Each copier's name, and its command for a target; those whose tools are there."""
    found = {
        PLAIN: lambda target: [PEERS, "copy", bootstrap, source, bootstrap, target, codec],
        FILL: lambda target: fill(bootstrap, source, target, codec),
    }
    if (BUILT / "go" / "transact").exists():
        found[FRANZ_GO] = lambda target: [BUILT / "go" / "transact", bootstrap, source, target, records, codec]
    if (BUILT / "classes" / "Loop.class").exists():
        found[JAVA] = lambda target: java("Loop", bootstrap, source, target, codec)
    return found


def fill(bootstrap, source, target, codec):
    topics = ["--source", source, "--target", target, "--window", WHOLE]
    return [REPLICATOR, "-q", "-b", bootstrap, "-X", f"compression.type={codec}", *topics]


def read_only(command, bootstrap, source, target):
    return [REPLICATOR, command, "-q", "-b", bootstrap, "--source", source, "--target", target, "--window", WHOLE]


def cells(arguments):
    """Sizes, codecs, and numbers of records: those given are of 350 bytes, other sizes have as many bytes, but at most twice the records."""
    for size in arguments.sizes:
        for codec in arguments.codecs:
            yield size, codec, min(arguments.records * 350 // size, arguments.records * 2)


def build(arguments):
    for what in ["--examples", "--bins"]:  # apart: examples turn the failpoints of the tests on
        run("cargo", "build", "--release", what, cwd=ROOT)
    BUILT.mkdir(parents=True, exist_ok=True)
    if not arguments.profile:
        built("franz-go", ["go"], build_go)
        built("Java", ["mvn", "javac", "java"], build_java)


def main(arguments):
    arguments.sizes = arguments.sizes or ([350] if arguments.codecs is not None and arguments.sizes is None else SIZES)
    arguments.codecs = arguments.codecs or (["none"] if arguments.codecs is None and not arguments.profile else CODECS)
    build(arguments)
    with tempfile.TemporaryDirectory() as directory, brokers(1) as named:
        events = pathlib.Path(directory) / "events.jsonl"
        run(REPLICATOR, "generate", "-q", "--records", LINES, "--seed", 7, "--out", events, stdout=subprocess.DEVNULL)
        measure = profile if arguments.profile else compare
        measure(named[0], events, arguments)
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    print(f"\n{arguments.records} records of 350 bytes, other sizes as many bytes but at most twice the records; {arguments.partitions} partitions; rounds: {arguments.rounds}; {model}, {os.cpu_count()} cores, shared with the broker; temporary files in {tempfile.gettempdir()}; Linux {platform.release()}\n")
    print(PROFILE_SETTINGS if arguments.profile else SETTINGS)


def compare(bootstrap, events, arguments):
    print("| value | codec | copier | x plain copy | wall s | CPU s | RSS MB | batches |")
    print("|--:|---|---|--:|--:|--:|--:|---|")
    for number, (size, codec, records) in enumerate(cells(arguments)):
        source = f"source-{number}"
        peers("payloads", bootstrap, source, arguments.partitions, records, size, codec, events)
        right = peers("sum", bootstrap, source)
        commands, taken, wrote = copiers(bootstrap, source, records, codec), {}, {}
        for turn in range(arguments.warm_up + arguments.rounds):
            for place, (name, command) in enumerate(commands.items()):
                target = f"copy-{number}-{turn}-{place}"
                peers("create", bootstrap, target, arguments.partitions)
                figures = timed(command(target))
                found = peers("sum", bootstrap, target)
                if found != right:
                    sys.exit(f"{name}: the copy differs from the source: {found}, not {right}")
                wrote[name] = batches(bootstrap, target)
                peers("delete", bootstrap, target)
                if turn >= arguments.warm_up:
                    taken.setdefault(name, []).append(figures)
        peers("delete", bootstrap, source)
        for name, figures in taken.items():
            ratio = statistics.median(wall / base for (wall, _, _), (base, _, _) in zip(figures, taken[PLAIN]))
            wall, cpu, memory = map(statistics.median, zip(*figures))
            print(f"| {size} | {codec} | {name} | {ratio:.2f} | {wall:.2f} | {cpu:.2f} | {memory:.0f} | {wrote[name]} |", flush=True)


def profile(bootstrap, events, arguments):
    rows = []
    for number, (size, codec, records) in enumerate(cells(arguments)):
        source, whole = f"source-{number}", f"whole-{number}"
        for topic in [source, whole]:
            peers("payloads", bootstrap, topic, arguments.partitions, records, size, codec, events)
        commands = {
            "floor": [PEERS, "consume", bootstrap, source],
            "scan": read_only("plan", bootstrap, source, whole),
            "gaps": read_only("gaps", bootstrap, source, whole),
            "verify": read_only("verify", bootstrap, source, whole),
        }
        taken = {}
        for turn in range(arguments.warm_up + arguments.rounds):
            target = f"copy-{number}-{turn}"
            peers("create", bootstrap, target, arguments.partitions)
            for part in PARTS:
                figures = timed(commands.get(part) or fill(bootstrap, source, target, codec))
                if turn >= arguments.warm_up:
                    taken.setdefault(part, []).append(figures)
            peers("delete", bootstrap, target)
        for topic in [source, whole]:
            peers("delete", bootstrap, topic)
        rows.append((size, codec, records, taken))
        print(f"{size} bytes, {codec}: done", file=sys.stderr)
    for column, title, scale in [(1, "CPU s a million", 1e6), (0, "wall s a million", 1e6), (2, "RSS MB", None)]:
        print(f"\n{title}:\n\n| value | codec | {' | '.join(PARTS)} |\n|--:|---|{'--:|' * len(PARTS)}")
        for size, codec, records, taken in rows:
            each = [statistics.median(figures[column] for figures in taken[part]) for part in PARTS]
            shown = [f"{figure * scale / records:.2f}" if scale else f"{figure:.0f}" for figure in each]
            print(f"| {size} | {codec} | {' | '.join(shown)} |")


def batches(bootstrap, topic):
    """The codec of the batches in partition 0, and the bytes of a record in them."""
    data = fetched(bootstrap, topic)
    codecs, size, records, place = {}, 0, 0, 0
    while place + 61 <= len(data):
        length, attributes = struct.unpack_from(">i", data, place + 8)[0] + 12, struct.unpack_from(">h", data, place + 21)[0]
        if place + length > len(data):
            break
        if not attributes & 0x20:  # a marker of a transaction
            count = struct.unpack_from(">i", data, place + 57)[0]
            codec = ["none", "gzip", "snappy", "lz4", "zstd"][attributes & 7]
            codecs[codec] = codecs.get(codec, 0) + count
            size, records = size + length, records + count
        place += length
    if not records:
        return "?"
    return f"{max(codecs, key=codecs.get)}, {size / records:.0f} B"


def fetched(bootstrap, topic):
    """At most 8 MiB of the partition 0, from offset 0: the answer to a Fetch of version 4."""
    text = lambda name: struct.pack(">h", len(name)) + name.encode()
    head = struct.pack(">hhi", 1, 4, 1) + text("bench")
    body = struct.pack(">iiiib", -1, 100, 1, 8 << 20, 0) + struct.pack(">i", 1) + text(topic)
    request = head + body + struct.pack(">iiqi", 1, 0, 0, 8 << 20)
    host, port = bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer.read(4 + 4 + 4 + 4)  # length, number, throttle, topics
        answer.read(struct.unpack(">h", answer.read(2))[0])
        _, _, error, _, _, aborted = struct.unpack(">iihqqi", answer.read(30))
        if error:
            sys.exit(f"{topic}: error {error}")
        answer.read(16 * max(aborted, 0))
        return answer.read(max(struct.unpack(">i", answer.read(4))[0], 0))
