//! Profiles: what a user keeps about clusters in `replicator/config.toml`, in the folder for configurations.
//!
//! ```toml
//! [prod]
//! bootstrap-server = "kafka-1:9092,kafka-2:9092"
//! source = "orders"
//! [prod.properties]
//! security.protocol = "SASL_SSL"
//! sasl.password = { command = "pass show kafka" }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::given::split;
use super::rules::SECRET;
use super::secret::printed_by;
use super::sides::Sides;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;

/// A profile, with the values of its secrets.
#[derive(Clone)]
pub(crate) struct Profile {
    pub name: String,
    pub bootstrap: Option<String>,
    pub of_sides: Sides<Option<String>>,
    pub topics: Sides<Option<String>>,
    pub properties: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    bootstrap_server: Option<String>,
    source_bootstrap_server: Option<String>,
    target_bootstrap_server: Option<String>,
    source: Option<String>,
    target: Option<String>,
    #[serde(default)]
    properties: Table,
}

impl Profile {
    /// Reads the profile `name` of the user's file, and asks for its secrets.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such profile, or if it has an unknown key or a secret in clear; [`Error::Failed`] if
    /// the command for a secret fails; [`Error::Interrupted`] if a signal came while one ran.
    pub(crate) fn read(name: &str, interrupt: &Interrupt) -> Result<Profile> {
        let path = path().ok_or_else(|| {
            Error::usage("--profile: neither XDG_CONFIG_HOME nor HOME says where the profiles are")
        })?;
        Profile::of_file(name, &path, interrupt)
    }

    fn of_file(name: &str, path: &Path, interrupt: &Interrupt) -> Result<Profile> {
        let place = format!("--profile {name}: {}", path.display());
        let usage = |told: String| Error::usage(told).within(&place);
        let text = std::fs::read_to_string(path).map_err(|err| usage(err.to_string()))?;
        // The error's own text would show the line, which may hold a secret.
        let at = |err: &toml::de::Error| {
            let line = err.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            line.map_or_else(String::new, |line| format!(" in line {line}"))
        };
        let mut all: Table = text
            .parse()
            .map_err(|err: toml::de::Error| usage(format!("not TOML{}: {}", at(&err), err.message())))?;
        let Some(entry) = all.remove(name) else {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(usage(match names.as_slice() {
                [] => "it has no profiles".to_owned(),
                names => format!("it has no such profile; it has {}", names.join(", ")),
            }));
        };
        let entry: Entry =
            entry.try_into().map_err(|err: toml::de::Error| usage(without_values(err.message())))?;
        let mut properties = BTreeMap::new();
        flatten(String::new(), entry.properties, &mut properties, interrupt)
            .map_err(|err| err.within(&place))?;
        Ok(Profile {
            name: name.to_owned(),
            bootstrap: entry.bootstrap_server,
            of_sides: Sides { source: entry.source_bootstrap_server, target: entry.target_bootstrap_server },
            topics: Sides { source: entry.source, target: entry.target },
            properties,
        })
    }
}

/// What the parser says about a key of the wrong type shows the value, which may hold a secret.
fn without_values(told: &str) -> String {
    match told.strip_prefix("invalid type: ").and_then(|told| told.split_once(", expected ")) {
        Some((_, expected)) => format!("a key has a value of the wrong type: expected {expected}"),
        None => told.to_owned(),
    }
}

/// The file of the profiles.
fn path() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = given.or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    Some(folder.join("replicator").join("config.toml"))
}

/// Puts the properties of `table` into `found`. In TOML, the dots of a key without quotes make tables.
fn flatten(
    prefix: String,
    table: Table,
    found: &mut BTreeMap<String, String>,
    interrupt: &Interrupt,
) -> Result<()> {
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let plain = match value {
            Value::Table(table) => {
                match asked(&key, &table, interrupt)? {
                    Some(value) => drop(found.insert(key, value)),
                    None => flatten(key, table, found, interrupt)?,
                }
                continue;
            }
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Boolean(is_so) => is_so.to_string(),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) => {
                return Err(Error::usage(format!(
                    "the value of {key} is neither text nor a whole number, true or false"
                )));
            }
        };
        if SECRET.contains(&split(&key).1) {
            return Err(Error::usage(format!(
                "{key} is a secret, so it may not stand here in clear: write {{ env = \"NAME\" }} or \
                 {{ command = \"pass show kafka\" }}"
            )));
        }
        found.insert(key, plain);
    }
    Ok(())
}

/// The value that `{ env = "NAME" }` or `{ command = "…" }` stands for; `None` for another table.
fn asked(key: &str, table: &Table, interrupt: &Interrupt) -> Result<Option<String>> {
    let mut entries = table.iter();
    match (entries.next(), entries.next()) {
        (Some((how, Value::String(name))), None) if how == "env" => match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(err) => {
                let why = if err == std::env::VarError::NotPresent { "not set" } else { "not UTF-8" };
                Err(Error::usage(format!("{key} is the environment variable {name}, which is {why}")))
            }
        },
        (Some((how, Value::String(command))), None) if how == "command" => {
            printed_by(key, command, interrupt).map(Some)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::base::error::Reason;

    const FILE: &str = r#"
        [prod]
        bootstrap-server = "prod:1"
        source = "orders"
        [prod.properties]
        security.protocol = "SASL_SSL"
        "sasl.username" = "me"
        linger.ms = 5
        enable.ssl.certificate.verification = false
        sasl.password = { command = "printf 'se\\ncret\\n'" }
        source.sasl.username = { env = "PATH" }

        [both]
        source-bootstrap-server = "a:1"
        target-bootstrap-server = "b:1"
    "#;

    fn read(name: &str, text: &str) -> Result<Profile> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Profile::of_file(name, file.path(), &Interrupt::default())
    }

    #[test]
    fn what_a_profile_says() {
        let prod = read("prod", FILE).expect("a profile");
        assert_eq!(
            (prod.bootstrap.as_deref(), prod.topics.source.as_deref()),
            (Some("prod:1"), Some("orders"))
        );
        let path = std::env::var("PATH").expect("set");
        let wanted = [
            ("enable.ssl.certificate.verification", "false"),
            ("linger.ms", "5"),
            ("sasl.password", "se\ncret"),
            ("sasl.username", "me"),
            ("security.protocol", "SASL_SSL"),
            ("source.sasl.username", path.as_str()),
        ];
        let found: Vec<_> = prod.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, wanted);
        let both = read("both", FILE).expect("a profile").of_sides;
        assert_eq!((both.source.as_deref(), both.target.as_deref()), (Some("a:1"), Some("b:1")));
    }

    #[rstest]
    #[case::unknown("staging", FILE, "it has both, prod")]
    #[case::empty("p", "", "it has no profiles")]
    #[case::another_key("p", "[p]\nbrokers = 'x:1'", "unknown field `brokers`")]
    #[case::no_toml("p", "[p]\nx = \"hunter2", "not TOML in line 2")]
    #[case::secret("p", "[p.properties]\nsasl.password = 'hunter2'", "sasl.password is a secret")]
    #[case::secret_in_quotes("p", "[p.properties]\n'sasl.password' = 'hunter2'", "sasl.password is a secret")]
    #[case::secret_of_a_side(
        "p",
        "[p.properties]\ntarget.ssl.key.pem = 'hunter2'",
        "target.ssl.key.pem is a secret"
    )]
    #[case::secret_number("p", "[p.properties]\nsasl.password = 12345", "sasl.password is a secret")]
    #[case::no_variable(
        "p",
        "[p.properties]\na.b = { env = 'NO_SUCH_NAME' }",
        "NO_SUCH_NAME, which is not set"
    )]
    #[case::list("p", "[p.properties]\na.b = ['hunter2']", "neither text nor")]
    fn refused(#[case] name: &str, #[case] text: &str, #[case] says: &str) {
        let error = read(name, text).err().expect("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("12345"), "{error}");
    }

    /// What the command's text says after its first word may be a secret.
    #[rstest]
    #[case("echo hunter2; echo closed >&2; exit 3", "`echo …`", "failed (exit status: 3): closed")]
    #[case("TOKEN=hunter2 false", "the command, which gives a.b", "failed (exit status: 1)")]
    #[case("true", "`true …`", "printed nothing")]
    #[case("printf '\\377'", "`printf …`", "printed no UTF-8")]
    fn a_command_that_gives_nothing(#[case] command: &str, #[case] names: &str, #[case] says: &str) {
        let text = format!("[p.properties]\na.b = {{ command = {command:?} }}");
        let error = read("p", &text).err().expect("failed");
        assert_eq!((error.exit_code(), error.reason()), (1, Reason::NoSecret));
        let told = error.to_string();
        assert!(told.contains(names) && told.contains(says) && told.starts_with("--profile p: "), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
