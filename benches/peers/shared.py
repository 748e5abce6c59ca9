"""What the comparisons of copiers and of followers share: the programs, the brokers, MirrorMaker's settings, the clock."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "benches" / "peers"
BUILT = ROOT / "target" / "peers"
PEERS = ROOT / "target" / "release" / "examples" / "peers"
REPLICATOR = ROOT / "target" / "release" / "replicator"


def run(*command, **more):
    subprocess.run([str(part) for part in command], check=True, **more)


def peers(*arguments):
    """What the bench's own program prints."""
    done = subprocess.run([PEERS, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def built(name, needs, build):
    """Whether a peer is there: its tools are, and its build works."""
    missing = [tool for tool in needs if not shutil.which(tool)]
    if missing:
        print(f"left out: {name}; install {', '.join(missing)}", file=sys.stderr)
        return False
    try:
        build()
    except subprocess.CalledProcessError as error:
        print(f"left out: {name}: {error}", file=sys.stderr)
        return False
    return True


def build_go():
    run("go", "build", "-o", f"{BUILT}/go/", "./...", cwd=HERE / "franz-go")


def build_java():
    libs = BUILT / "java"
    if not libs.exists():
        run("mvn", "-q", "-B", "-f", HERE / "java" / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={libs}")
    run("javac", "-nowarn", "-cp", f"{libs}/*", "-d", BUILT / "classes", *(HERE / "java").glob("*.java"))


def java(*arguments):
    return ["java", "-Xmx1g", "-cp", f"{BUILT}/classes:{BUILT}/java/*", *map(str, arguments)]


def mirror_properties(clusters, source, alias, tasks, directory, more=""):
    """A file of MirrorMaker's settings. Of two lines for one setting, the last one counts; `more` has the last ones."""
    settings = (HERE / "mirror.properties").read_text()
    if clusters[0] == clusters[1]:
        settings += "replication.policy.class = org.apache.kafka.connect.mirror.DefaultReplicationPolicy\n"
    settings += more
    values = {"a": alias, "b": f"{alias}-to", "from": clusters[0], "to": clusters[1], "topic": source, "tasks": str(tasks)}
    for name, value in values.items():
        settings = settings.replace(f"{{{name}}}", value)
    file = pathlib.Path(directory) / f"{alias}.properties"
    file.write_text(settings)
    return file


@contextlib.contextmanager
def brokers(count, homes=(), properties=()):
    """The addresses of so many clusters of one broker each. Each has its files in its home, if homes are given."""
    environments = [{**os.environ, "TMPDIR": str(home)} for home in homes] or [None] * count
    started = [
        subprocess.Popen([PEERS, "broker", *properties], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for environment in environments
    ]
    try:
        yield [broker.stdout.readline().strip() for broker in started]
    finally:
        for broker in started:
            broker.stdin.close()
            broker.wait()


def timed(command):
    """Wall seconds, CPU seconds and peak memory in MB of a process and its children."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status != 0:
        sys.exit(f"failed: {command}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
