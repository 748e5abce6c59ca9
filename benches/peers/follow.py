"""Measures what copies a live topic for good, between two clusters: replicator with --follow, and MirrorMaker 2.

Prints one table. The number in brackets behind each figure is the machine's load average at that time. `run --follow` starts
it; with --soak, it measures the memory and the files of one follow instead, and compares its copy with the source.
"""

import contextlib
import os
import pathlib
import platform
import queue
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from shared import PEERS, REPLICATOR, ROOT, brokers, build_java, built, java, mirror_properties, peers, run

WINDOW = "2021-04-14T10:00Z/"
"""From before the first record of the million."""

RATE, WARM_UP, SECONDS = 2000, 10, 30
PATIENCE = 200
"""Seconds that one copier may take to copy a record."""

# For records that come one by one. The tuned settings are for a copy of many records at once.
PROMPT = """\
{a}.consumer.fetch.min.bytes = 1
{b}.producer.linger.ms = 5
"""
POLL = PROMPT + "{a}->{b}.transaction.boundary = poll\n"
INTERVAL = PROMPT + "{a}->{b}.transaction.boundary.interval.ms = 200\n"

LET_GO = re.compile(r"has failed|session expired|session has expired|session timed out", re.IGNORECASE)
"""What a broker logs when a group gives up a member."""

SETTINGS = """\
- Source and target: one broker each, six partitions. The writer appends 2,000 records of 500 bytes a second, evenly, without
  transactions: acks=all, linger.ms 5. Each record carries its time, which the same process reads when a read_committed reader of
  the target gives it the copy (fetch.wait.max.ms 10). It checks that each record comes once and in order. 10 s of warm-up after the first
  copy, then 30 s. The floor is a reader of the source itself.
- catching up: from the start of the process until read_committed readers have the last record of each partition; medians.
- idle: a minute, five seconds after the copy is whole.
- kill -9: 200 records a second come all the time. Then one record to each partition, a new process at once, and the time until
  read_committed readers have all of them. The group lets go when the broker logs that the dead member is out.
- stop: SIGTERM, then one record to each partition, and a new process.
- MirrorMaker 2: dedicated mode, a task for each partition, the settings of `benches/peers/mirror.properties`, but fetch.min.bytes 1,
  linger.ms 5, and the boundary as named. The transactions a second are counted by their markers in the target."""


class Copier:
    """A process that copies one topic until it is ended."""

    def __init__(self, bench, name, source, target, options=()):
        self.name, self.clusters, self.source, self.target = name, bench.clusters, source, target
        self.directory, self.options, self.process = bench.directory, options, None
        self.is_mirror = isinstance(options, str)
        if self.is_mirror:
            tasks = bench.arguments.partitions
            alias = f"mirror{bench.count}"
            self.properties = mirror_properties(self.clusters, source, alias, tasks, self.directory, options)

    def command(self):
        if self.is_mirror:
            return java("org.apache.kafka.connect.mirror.MirrorMaker", self.properties)
        named = ["--source-bootstrap-server", self.clusters[0], "--target-bootstrap-server", self.clusters[1]]
        topics = ["--source", self.source, "--target", self.target]
        return [str(REPLICATOR), "-v", *named, *topics, "--window", WINDOW, "--follow", *self.options]

    def start(self):
        self.log = open(pathlib.Path(self.directory) / f"{self.target}.log", "a+")
        to = subprocess.DEVNULL if self.is_mirror else self.log
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=to)
        return self

    def follows(self):
        """Waits until the joint is committed. MirrorMaker has none."""
        begun = time.monotonic()
        while not self.is_mirror and "following" not in pathlib.Path(self.log.name).read_text():
            if self.process.poll() is not None or time.monotonic() - begun > PATIENCE:
                sys.exit(f"{self.name} does not follow: {pathlib.Path(self.log.name).read_text()}")
            time.sleep(0.05)
        return self

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        status = self.process.wait()
        if how == signal.SIGTERM and not self.is_mirror and status != 0:
            sys.exit(f"{self.name} failed: {pathlib.Path(self.log.name).read_text()}")

    def cpu(self):
        """Seconds of user and system time."""
        words = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")")[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """MB in RAM."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextlib.contextmanager
def at_work(copier):
    """Ends the copier in any case."""
    try:
        yield copier
    finally:
        if copier.process and copier.process.poll() is None:
            copier.process.kill()
            copier.process.wait()


class Talk:
    """A program of the bench that answers in lines."""

    def __init__(self, *arguments):
        command = [str(PEERS), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put((time.monotonic(), line.strip()))

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self, word):
        """When the program said so; `None` if it took too long."""
        try:
            at, line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            return None
        if line != word:
            sys.exit(f"{line}, not {word}")
        return at

    def mark(self):
        """Appends the next mark."""
        self.ask()
        self.hear("written")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LetGo:
    """Notes when the broker's log says that a group gave up a member."""

    def __init__(self, home):
        self.logs, self.at, self.is_ended = list(pathlib.Path(home).glob("*/0/log")), None, False
        self.began = [log.stat().st_size for log in self.logs]
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.is_ended and self.at is None:
            for log, began in zip(self.logs, self.began):
                with open(log, "rb") as file:
                    file.seek(began)
                    if LET_GO.search(file.read().decode(errors="replace")):
                        self.at = time.monotonic()
            time.sleep(0.01)

    def end(self):
        self.is_ended = True
        self.thread.join()
        return self.at


class Table:
    """Figures by row and column, each with the load at its time."""

    def __init__(self):
        self.rows, self.columns = {}, []

    def put(self, row, column, figure):
        cell = f"{figure} ({os.getloadavg()[0]:.0f})"
        if column not in self.columns:
            self.columns.append(column)
        self.rows.setdefault(row, {})[column] = cell
        print(f"{time.strftime('%H:%M:%S')} {column}: {row}: {cell}", file=sys.stderr, flush=True)

    def show(self):
        print(f"| | {' | '.join(self.columns)} |")
        print(f"|---|{'--:|' * len(self.columns)}")
        for row, cells in self.rows.items():
            print(f"| {row} | {' | '.join(cells.get(column, '') for column in self.columns)} |")


class Bench:
    def __init__(self, clusters, homes, directory, arguments, table):
        self.clusters, self.homes, self.directory = clusters, homes, directory
        self.arguments, self.table, self.count = arguments, table, 0

    def copier(self, name, options, source=None):
        """A copier of a fresh pair of topics, or of a source to a fresh target."""
        self.count += 1
        # MirrorMaker keeps the name.
        is_mirror, fresh = isinstance(options, str), f"t{self.count}"
        target = (source or fresh) if is_mirror else fresh
        if source is None:
            peers("create", self.clusters[0], fresh, self.arguments.partitions)
        peers("create", self.clusters[1], target, self.arguments.partitions)
        return Copier(self, name, source or fresh, target, options)

    def topics(self, copier):
        return copier.clusters[0], copier.source, copier.clusters[1], copier.target

    def latency(self, column, copier):
        if copier:
            copier.start().follows()
            topics = self.topics(copier)
        else:
            peers("create", self.clusters[0], "floor", self.arguments.partitions)
            topics = (self.clusters[0], "floor") * 2
        p50, p99, most, _, transactions = peers("latency", *topics, RATE, WARM_UP, SECONDS).split()
        for row, figure in (("p50 ms", p50), ("p99 ms", p99), ("max ms", most)):
            self.table.put(f"append to readable, {row}", column, figure)
        if copier:
            self.table.put("transactions/s in each partition", column, transactions)
            copier.end()

    def whole(self, copier):
        """Seconds from now until the first record is written, and until the copy is whole."""
        begun, marks = time.monotonic(), []
        watch = [str(PEERS), "await", *self.topics(copier)]
        with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watcher:
            for _ in watcher.stdout:
                marks.append(time.monotonic() - begun)
        if len(marks) != 2:
            sys.exit(f"{copier.name}: its copy is not whole")
        return marks

    def catch_up(self, candidates):
        """Each copies the same million records; the follows begin behind, with a joint at 0."""
        source, records = "million", self.arguments.records
        peers("create", self.clusters[0], source, self.arguments.partitions)
        follows = []
        rounds = self.arguments.rounds
        for name, options in candidates:
            if not isinstance(options, str):
                for _ in range(rounds):
                    copier = self.copier(name, options, source)
                    with at_work(copier.start().follows()):
                        copier.end()
                    follows.append(copier)
        peers("append", self.clusters[0], source, self.arguments.partitions, records)
        right = peers("sum", self.clusters[0], source)
        taken = {}
        for number in range(rounds):
            is_last = number + 1 == rounds
            self.fill(source, right, taken)
            for name, options in candidates:
                is_mirror = isinstance(options, str)
                if is_mirror and not is_last:
                    continue
                if is_mirror:
                    copier = self.copier(name, options, source)
                else:
                    copier = next(f for f in follows if f.name == name)
                    follows.remove(copier)
                with at_work(copier):
                    copier.start()
                    first, whole = self.whole(copier)
                    taken.setdefault(name, []).append(whole)
                    if is_mirror:
                        taken.setdefault(f"{name} running", []).append(whole - first)
                    self.same(copier, right)
                    if is_last:
                        self.idle(copier)
                    copier.end()
                peers("delete", self.clusters[1], copier.target)
        for name, seconds in taken.items():
            row = "a million records behind, records/s"
            if name.endswith(" running"):
                name, row = name.removesuffix(" running"), f"{row} from its first record on"
            self.table.put(row, name, f"{records / statistics.median(seconds):.0f}")

    def fill(self, source, right, taken):
        self.count += 1
        target = f"t{self.count}"
        peers("create", self.clusters[1], target, self.arguments.partitions)
        copier = Copier(self, "fill", source, target)
        copier.command = lambda: [part for part in Copier.command(copier) if part != "--follow"]
        with at_work(copier.start()):
            taken.setdefault("fill", []).append(self.whole(copier)[1])
            copier.process.wait()
        self.same(copier, right)
        peers("delete", self.clusters[1], target)

    def same(self, copier, right):
        found = peers("sum", self.clusters[1], copier.target)
        if found != right:
            sys.exit(f"{copier.name}: the copy differs from the source: {found}, not {right}")

    def idle(self, copier):
        time.sleep(5)
        before = copier.cpu()
        time.sleep(60)
        self.table.put("idle, CPU s in a minute", copier.name, f"{copier.cpu() - before:.2f}")
        self.table.put("idle, RSS MB", copier.name, f"{copier.memory():.0f}")

    def comes_back(self, row, copier, how, rounds):
        """Ends the copier, and starts it anew at once, again and again."""
        is_kill, taken = how == signal.SIGKILL, []
        with at_work(copier.start().follows()), contextlib.ExitStack() as talks:
            if is_kill:
                talks.enter_context(Talk("load", self.clusters[0], copier.source, 200))
            marks = talks.enter_context(Talk("marks", *self.topics(copier)))
            marks.hear("ready")
            marks.mark()
            marks.hear("readable")
            while len(taken) < rounds:
                time.sleep(2)
                watch, at = LetGo(self.homes[1]), time.monotonic()
                copier.end(how)
                if not is_kill:
                    marks.mark()
                    at = time.monotonic()
                copier.start()
                if is_kill:
                    marks.mark()
                readable, gone = marks.hear("readable"), watch.end()
                if readable is None:
                    break
                taken.append((readable - at, gone - at if gone else None))
        if not taken:
            return self.table.put(f"{row}, s", copier.name, f"> {PATIENCE}")
        of = lambda values: f"{statistics.median(values):.2f} (max {max(values):.2f})" if values else "?"
        self.table.put(f"{row}, s", copier.name, of([total for total, _ in taken]))
        if is_kill:
            holding = [gone for _, gone in taken if gone]
            self.table.put(f"{row}: the group lets go after, s", copier.name, of(holding))
            after = [total - gone for total, gone in taken if gone]
            self.table.put(f"{row}: readable after that, s", copier.name, of(after))

    def with_settings(self, row, settings, name, options, how, rounds):
        """The same with other settings of the target's broker than those of the sandbox."""
        home = pathlib.Path(self.directory) / f"home{self.count}"
        home.mkdir()
        with brokers(1, [home], settings) as (target,):
            bench = Bench((self.clusters[0], target), [self.homes[0], home], self.directory, self.arguments, self.table)
            bench.count = 1000 * (1 + self.count)
            bench.comes_back(f"{row}, {settings[0]}", bench.copier(name, options), how, rounds)

    def soak(self, minutes):
        """One follow under a small load: its memory and its files, and at the end whether the copy is right."""
        copier = self.copier("replicator", ["--commit-interval", "200ms"])
        until, samples = time.monotonic() + minutes * 60, []
        with at_work(copier.start().follows()):
            with Talk("load", self.clusters[0], copier.source, 200) as load:
                while time.monotonic() < until and copier.process.poll() is None:
                    samples.append((copier.memory(), copier.files(), copier.cpu()))
                    print(f"{time.strftime('%H:%M:%S')} RSS {samples[-1][0]:.1f} MB, {samples[-1][1]} files, "
                          f"CPU {samples[-1][2]:.1f} s, load {os.getloadavg()[0]:.0f}", flush=True)
                    time.sleep(10)
                load.process.stdin.close()
                count = load.lines.get(timeout=PATIENCE)[1]
            time.sleep(3)
            copier.end()
        sides = [peers("digest", *side) for side in ((self.clusters[0], copier.source), (self.clusters[1], copier.target))]
        print(f"{count} records in {len(samples) * 10} s; both sides {'are equal' if sides[0] == sides[1] else 'DIFFER'}:")
        print("\n".join(sides))
        for what, column in (("RSS MB", 0), ("open files", 1)):
            values = [sample[column] for sample in samples]
            settled = values[min(6, len(values) - 1)]
            print(f"{what}: first {values[0]:.1f}, after a minute {settled:.1f}, last {values[-1]:.1f}, max {max(values):.1f}")


def measure(bench, only):
    """Fills the table. The order puts those that are compared near each other."""
    wanted = lambda name: not only or any(part in name for part in only)
    follow = lambda interval: ["--commit-interval", interval]
    default = ("**replicator**, 200ms", follow("200ms"))
    mirrors = [("MirrorMaker 2, interval 200 ms", INTERVAL), ("MirrorMaker 2, poll", POLL)]
    if not built("MirrorMaker 2", ["mvn", "javac", "java"], build_java):
        mirrors = []
    others = [("replicator, 50ms", follow("50ms")), ("replicator, 1s", follow("1s"))]
    if wanted("latency"):
        bench.latency("floor", None)
        for name, options in (default, *mirrors, *others):
            with at_work(bench.copier(name, options)) as copier:
                bench.latency(name, copier)
    if wanted("behind"):
        bench.catch_up([default, *mirrors])
    if wanted("stop"):
        row = "stopped and started: first record readable"
        bench.comes_back(row, bench.copier(*default), signal.SIGTERM, 5)
        for mirror in mirrors[:1]:
            bench.comes_back(row, bench.copier(*mirror), signal.SIGTERM, 1)
        # Kafka's own delay of the first member of a group, which the sandbox turns off.
        bench.with_settings(row, ["group.initial.rebalance.delay.ms=3000"], *default, signal.SIGTERM, 2)
    if wanted("kill"):
        bench.comes_back("kill -9", bench.copier(*default), signal.SIGKILL, 3)
        newer = (default[0], [*default[1], "-X", "group.protocol=consumer"])
        row = "kill -9, group.protocol=consumer"
        bench.comes_back(row, bench.copier(*newer), signal.SIGKILL, 2)
        # A member hears of its new partitions by its next heartbeat, and the broker says how often it sends one.
        quick = ["group.consumer.heartbeat.interval.ms=500", "group.consumer.min.heartbeat.interval.ms=500"]
        bench.with_settings(row, quick, *newer, signal.SIGKILL, 2)
        for mirror in mirrors[:1]:
            bench.comes_back("kill -9", bench.copier(*mirror), signal.SIGKILL, 1)


def main(arguments):
    for what in ["--examples", "--bins"]:  # apart: examples turn the failpoints of the tests on
        run("cargo", "build", "--release", what, cwd=ROOT)
    with tempfile.TemporaryDirectory() as directory:
        homes = [pathlib.Path(directory) / side for side in ("a", "b")]
        for home in homes:
            home.mkdir()
        table = Table()
        with brokers(2, homes) as clusters:
            bench = Bench(clusters, homes, directory, arguments, table)
            if arguments.soak:
                return bench.soak(arguments.soak)
            try:
                measure(bench, arguments.only)
            finally:
                table.show()
    print(f"\n{arguments.records} records; {os.cpu_count()} cores, shared with two brokers and the bench; temporary files in "
          f"{tempfile.gettempdir()}; Linux {platform.release()}\n")
    print(SETTINGS)
