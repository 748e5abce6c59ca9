//! A PostgreSQL server of a test's own: over TCP, with passwords, with or without TLS, to be stopped and started.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use postgres::{Client, NoTls};
use tempfile::TempDir;

use crate::containers::{self, Contained};
use crate::kit::tell;
use crate::secure::broker::Authority;
use crate::stores::{Programs, spawn, wait_for};

/// With every character that ends a part of a URL.
pub(crate) const PASSWORD: &str = "p?ss/w@rd#1:&";
/// [`PASSWORD`] in a URL.
pub(crate) const ENCODED: &str = "p%3Fss%2Fw%40rd%231%3A%26";

pub(crate) struct Postgres {
    dir: TempDir,
    pub port: u16,
    server: Server,
}

enum Server {
    Contained(Box<Contained<testcontainers_modules::postgres::Postgres>>),
    Here { programs: Programs, running: Option<Child> },
}

impl Postgres {
    /// `None`, and told, where nothing runs it. With an authority, TLS under a certificate for `hosts`.
    pub(crate) fn start(tls: Option<(&Authority, &[&str])>) -> Option<Postgres> {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        if let Some((authority, hosts)) = tls {
            let (certificate, key) = authority.sign("postgres", hosts);
            fs::write(dir.path().join("server.pem"), certificate.pem()).expect("written");
            fs::write(dir.path().join("server.key"), key.serialize_pem()).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(dir.path().join("server.key"), mode).expect("private");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        if containers::can_run() {
            match containers::postgres_at(port, PASSWORD, dir.path()) {
                Ok(contained) => {
                    let server = Server::Contained(Box::new(contained));
                    return Some(Postgres { dir, port, server });
                }
                Err(why) => tell(&format!("no PostgreSQL in a container: {why}")),
            }
        }
        let programs = Programs::find().map_err(|why| eprintln!("skipped: {why}")).ok()?;
        fs::write(dir.path().join("password"), PASSWORD).expect("written");
        let password = format!("--pwfile={}", dir.path().join("password").display());
        programs.init(dir.path(), &["-A", "scram-sha-256", &password]).expect("made");
        let mut server = Postgres { dir, port, server: Server::Here { programs, running: None } };
        server.go_on();
        Some(server)
    }

    pub(crate) fn go_on(&mut self) {
        let dir = self.dir.path();
        match &mut self.server {
            Server::Contained(contained) => contained.container.start().expect("starts"),
            Server::Here { programs, running } => {
                let options = options(dir, self.port);
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                let command = programs.command("postgres", &options);
                *running = Some(spawn(dir, "INT", "", command));
            }
        }
        wait_for("PostgreSQL", dir, || self.connect().is_ok()).expect("starts");
    }

    /// Ends its connections, too.
    pub(crate) fn stop(&mut self) {
        match &mut self.server {
            Server::Contained(contained) => contained.container.stop().expect("stops"),
            Server::Here { running, .. } => {
                if let Some(mut running) = running.take() {
                    drop(running.stdin.take());
                    running.wait().expect("ends");
                }
            }
        }
    }

    pub(crate) fn connect(&self) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("replicator").password(PASSWORD);
        config.dbname("postgres").connect(NoTls)
    }

    /// `parameters` with their question mark.
    pub(crate) fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgres://replicator:{ENCODED}@{host}:{}/postgres{parameters}", self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of its socket, as a host in a URL; a container's is not on this machine.
    pub(crate) fn socket(&self) -> Option<String> {
        let is_here = matches!(self.server, Server::Here { .. });
        is_here.then(|| self.dir.path().display().to_string().replace('/', "%2F"))
    }
}

fn options(dir: &Path, port: u16) -> Vec<String> {
    let at = dir.display().to_string();
    let mut options = vec!["-D".to_owned(), format!("{at}/data"), "-k".to_owned(), at.clone()];
    let mut set = |what: String| options.extend(["-c".to_owned(), what]);
    set("fsync=off".to_owned());
    set("listen_addresses=127.0.0.1".to_owned());
    set(format!("port={port}"));
    if dir.join("server.key").exists() {
        set("ssl=on".to_owned());
        set(format!("ssl_cert_file={at}/server.pem"));
        set(format!("ssl_key_file={at}/server.key"));
    }
    options
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Server::Here { .. } = self.server {
            self.stop();
        }
    }
}
