//! Servers in containers, by testcontainers' modules. Tests use them if a Docker engine answers on this machine.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use replicator::{KAFKA_VERSION, Sandbox};
use testcontainers::core::{ContainerPort, IntoContainerPort, Mount};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, ContainerRequest, Image, ImageExt, TestcontainersError};
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;

type Result<T> = std::result::Result<T, TestcontainersError>;

/// A container that a shell removes when this process ends, even by SIGKILL. Rust does not drop statics, and SIGKILL runs
/// no handler, but the system always closes the pipe from which the shell reads.
pub(crate) struct Contained<I: Image> {
    /// Where it listens on this machine.
    pub address: String,
    pub container: Container<I>,
    _pipe: ChildStdin,
}

/// The engine must be on this machine, because the module has Kafka advertise 127.0.0.1.
pub(crate) fn can_run() -> bool {
    let is_here = std::env::var("DOCKER_HOST").map_or(true, |url| url.is_empty() || url.starts_with("unix:"));
    is_here && Sandbox::docker_answers()
}

/// One broker with the sandbox's settings.
pub(crate) fn kafka() -> Result<Contained<Kafka>> {
    let image = Kafka::default().with_jvm_image().with_tag(KAFKA_VERSION);
    let settings = Sandbox::settings(1).into_iter().fold(image, |image, (key, value)| {
        image.with_env_var(format!("KAFKA_{}", key.replace('.', "_").to_uppercase()), value)
    });
    start(settings.with_env_var("KAFKA_HEAP_OPTS", "-Xmx512m"), KAFKA_PORT, 0)
}

/// PostgreSQL with a user `replicator`, who needs no password.
pub(crate) fn postgres() -> Result<Contained<Postgres>> {
    start_postgres(Postgres::default().with_host_auth().into(), 0)
}

/// PostgreSQL on a fixed port, with a password. It uses TLS if `dir` has a certificate and a key, and takes them anew at
/// each start.
pub(crate) fn postgres_at(port: u16, password: &str, dir: &Path) -> Result<Contained<Postgres>> {
    let dir = dir.display().to_string();
    let mut script = "exec docker-entrypoint.sh -c fsync=off".to_owned();
    if Path::new(&dir).join("server.key").exists() {
        // PostgreSQL must own its key, and its user cannot read the directory.
        script = format!(
            "install -o postgres -m 600 {dir}/server.* /tmp; {script} -c ssl=on \
             -c ssl_cert_file=/tmp/server.pem -c ssl_key_file=/tmp/server.key"
        );
    }
    let image = Postgres::default().with_password(password).with_mount(Mount::bind_mount(&dir, &dir));
    start_postgres(image.with_cmd(["sh", "-c", &script]), port)
}

fn start_postgres(image: ContainerRequest<Postgres>, port: u16) -> Result<Contained<Postgres>> {
    let image = image.with_tag("17-bookworm").with_env_var("POSTGRES_USER", "replicator");
    let options = "-E UTF8 --locale=C.UTF-8 --no-sync";
    start(image.with_env_var("POSTGRES_INITDB_ARGS", options), 5432.tcp(), port)
}

/// `outer` is the port on this machine; 0 means any free one.
fn start<I: Image>(image: ContainerRequest<I>, inner: ContainerPort, outer: u16) -> Result<Contained<I>> {
    let name = format!("replicator-tests-{:016x}", RandomState::new().build_hasher().finish());
    let pipe = remove_at_the_end(&name);
    let container = image
        .with_container_name(&name)
        .with_mapped_port(outer, inner)
        .with_host_config_modifier(|host| {
            for binding in host.port_bindings.iter_mut().flat_map(|p| p.values_mut()).flatten().flatten() {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        })
        .with_startup_timeout(Duration::from_secs(90))
        .start()?;
    let address = format!("127.0.0.1:{}", container.get_host_port_ipv4(inner)?);
    Ok(Contained { address, container, _pipe: pipe })
}

/// Removes twice, because the engine may still be creating what a killed process asked for.
fn remove_at_the_end(name: &str) -> ChildStdin {
    let script = "read -r line; docker rm -f -v \"$1\"; sleep 3; docker rm -f -v \"$1\"";
    let mut shell = Command::new("sh");
    // Ctrl-C goes to the terminal's whole process group.
    shell.args(["-c", script, "guard", name]).process_group(0);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    shell.expect("a shell").stdin.take().expect("a pipe")
}
