//! A PostgreSQL server of a test's own: over TCP, with passwords, with or without TLS, to be stopped and started.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use postgres::{Client, NoTls};
use tempfile::TempDir;

use crate::secure::broker::Authority;
use crate::stores::{Programs, spawn, wait_for};

/// With every character that ends a part of a URL.
pub(crate) const PASSWORD: &str = "p?ss/w@rd#1:&";
/// [`PASSWORD`] in a URL.
pub(crate) const ENCODED: &str = "p%3Fss%2Fw%40rd%231%3A%26";

pub(crate) struct Postgres {
    programs: Programs,
    dir: TempDir,
    pub port: u16,
    has_tls: bool,
    running: Option<Child>,
}

impl Postgres {
    /// `None`, and told, where it is not installed. With an authority, TLS under a certificate for `hosts`.
    pub(crate) fn start(tls: Option<(&Authority, &[&str])>) -> Option<Postgres> {
        let programs = Programs::find().map_err(|why| eprintln!("skipped: {why}")).ok()?;
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        fs::write(dir.path().join("password"), PASSWORD).expect("written");
        if let Some((authority, hosts)) = tls {
            let (certificate, key) = authority.sign("postgres", hosts);
            fs::write(dir.path().join("server.pem"), certificate.pem()).expect("written");
            fs::write(dir.path().join("server.key"), key.serialize_pem()).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(dir.path().join("server.key"), mode).expect("private");
        }
        let password = format!("--pwfile={}", dir.path().join("password").display());
        programs.init(dir.path(), &["-A", "scram-sha-256", &password]).expect("made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut server = Postgres { programs, dir, port, has_tls: tls.is_some(), running: None };
        server.go_on();
        Some(server)
    }

    pub(crate) fn go_on(&mut self) {
        let at = self.dir.path().display().to_string();
        let mut options = vec!["-D".to_owned(), format!("{at}/data"), "-k".to_owned(), at.clone()];
        let mut set = |what: String| options.extend(["-c".to_owned(), what]);
        set("fsync=off".to_owned());
        set("listen_addresses=127.0.0.1".to_owned());
        set(format!("port={}", self.port));
        if self.has_tls {
            set("ssl=on".to_owned());
            set(format!("ssl_cert_file={at}/server.pem"));
            set(format!("ssl_key_file={at}/server.key"));
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.running = Some(spawn(self.dir.path(), "INT", "", self.programs.command("postgres", &options)));
        wait_for("PostgreSQL", self.dir.path(), || self.connect().is_ok()).expect("starts");
    }

    /// Ends its connections, too.
    pub(crate) fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.stdin.take());
            running.wait().expect("ends");
        }
    }

    /// Over its socket.
    pub(crate) fn connect(&self) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(self.dir.path()).port(self.port).user("replicator").password(PASSWORD);
        config.dbname("postgres").connect(NoTls)
    }

    /// `parameters` with their question mark.
    pub(crate) fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgres://replicator:{ENCODED}@{host}:{}/postgres{parameters}", self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
