//! Collects what the flags, the environment and files say about clusters: their brokers, and client properties.
//!
//! Flags beat the environment, which beats the files, which beat a profile. But the environment never beats a profile
//! silently: somebody typed `--profile`, and may not know what the environment says. The prefix `source.` or `target.` makes a
//! property one of that cluster alone; without a prefix it is one of both.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::brokers::{Brokers, Named};
use super::environment::{Environment, variable_name};
use super::profile::Profile;
use super::properties::{DEFAULT_BOOTSTRAP, Properties};
use super::rules::SECRET;
use super::sides::{Side, Sides};
use crate::base::error::{Error, Result};

pub(super) const BROKERS: &str = "bootstrap.servers";

/// What a command line says about clusters.
#[derive(Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    /// The value of `--bootstrap-server`.
    pub bootstrap: Option<&'a str>,
    /// The file of `--command-config`.
    pub file: Option<&'a Path>,
    /// `key=value` of each `-X`.
    pub flags: &'a [String],
    pub profile: Option<&'a Profile>,
    pub source: GivenSide<'a>,
    pub target: GivenSide<'a>,
    /// The only side that the command reads. The other one need not be named.
    pub only: Option<Side>,
}

/// What a command line says about one of two clusters.
#[derive(Clone, Copy, Default)]
pub(crate) struct GivenSide<'a> {
    /// The value of `--source-bootstrap-server` or `--target-bootstrap-server`.
    pub bootstrap: Option<&'a str>,
    /// The file of `--source-command-config` or `--target-command-config`.
    pub file: Option<&'a Path>,
}

type Map = BTreeMap<String, String>;

/// Everything that is said, in layers. Later layers beat earlier ones.
struct Layers {
    /// The name of the profile.
    profile_name: String,
    profile: Map,
    file: Map,
    files: Sides<Map>,
    environment: Map,
    flags: Map,
    brokers: Brokers,
    /// The options that give all of this but the brokers.
    options: Vec<String>,
    /// A property of one of two clusters, although one is named.
    ignored: Option<String>,
}

impl Given<'_> {
    /// The properties of a command that works on one cluster. If nothing names its brokers, they are at
    /// `localhost:9092`.
    ///
    /// # Errors
    /// [`Error::Usage`] names the property that is refused, or the file that cannot be read; also if two clusters are
    /// named, and none by `--bootstrap-server`.
    pub(crate) fn one(&self, environment: impl Iterator<Item = (OsString, OsString)>) -> Result<Properties> {
        let layers = self.layers(environment)?;
        if let Some(key) = &layers.ignored {
            tracing::info!("{key} and the like are ignored: they are for one of two clusters");
        }
        match &layers.brokers {
            Brokers::Two(_) => Err(Error::usage(
                "this command works on one cluster, but a source and a target cluster are named: say which one to use, \
                 with --bootstrap-server",
            )),
            Brokers::One(brokers) => layers.of(brokers.clone(), None),
            Brokers::Unnamed => layers.of(DEFAULT_BOOTSTRAP.to_owned(), None),
        }
    }

    /// The options that give the same properties again, without the brokers.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |option: &str, value: &str| options.extend([option.to_owned(), value.to_owned()]);
        let files = [
            ("-F", self.file),
            ("--source-command-config", self.source.file),
            ("--target-command-config", self.target.file),
        ];
        self.profile.iter().for_each(|profile| add("--profile", &profile.name));
        for (option, file) in files.into_iter().filter_map(|(option, file)| Some((option, file?))) {
            add(option, &file.to_string_lossy());
        }
        self.flags.iter().for_each(|flag| add("-X", flag));
        options
    }

    /// The properties of both clusters of a command that works on two topics. They are the same if one cluster is named,
    /// or none.
    ///
    /// # Errors
    /// As [`Given::one`]; [`Error::Usage`] also if one cluster is named beside two, or only one of two.
    pub(crate) fn sides(
        &self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Sides<Properties>> {
        let layers = self.layers(environment)?;
        if let Some(key) = &layers.ignored {
            tracing::warn!(
                "{key} and the like are ignored: they are for one of two clusters, but only one cluster is named"
            );
        }
        match &layers.brokers {
            Brokers::Two(Sides { source, target }) => Ok(Sides {
                source: layers.of(source.clone(), Some(Side::Source))?,
                target: layers.of(target.clone(), Some(Side::Target))?,
            }),
            Brokers::One(brokers) => Ok(layers.of(brokers.clone(), None)?.into()),
            Brokers::Unnamed => Ok(layers.of(DEFAULT_BOOTSTRAP.to_owned(), None)?.into()),
        }
    }

    fn layers(&self, environment: impl Iterator<Item = (OsString, OsString)>) -> Result<Layers> {
        let read = |path: Option<&Path>, flag: &str| {
            path.map_or_else(|| Ok(Map::new()), |path| read_file(path, flag))
        };
        let mut file = read(self.file, "--command-config")?;
        let mut files = Sides {
            source: read(self.source.file, "--source-command-config")?,
            target: read(self.target.file, "--target-command-config")?,
        };
        let environment = Environment::read(environment)?;
        if let Some(warning) = environment.warning() {
            tracing::warn!("{warning}");
        }
        // Files for Kafka's own tools may name the brokers too.
        let mut of_file = |side: Side, own: &mut Map| {
            let prefixed = file.remove(&format!("{}.{BROKERS}", side.word()));
            own.remove(BROKERS).or(prefixed)
        };
        let in_files = Named {
            sides: Sides {
                source: of_file(Side::Source, &mut files.source),
                target: of_file(Side::Target, &mut files.target),
            },
            one: file.remove(BROKERS),
            from: "in the command configs",
            only: self.only,
        };
        let by_flags = Named {
            one: self.bootstrap.map(str::to_owned),
            sides: Sides {
                source: self.source.bootstrap.map(str::to_owned),
                target: self.target.bootstrap.map(str::to_owned),
            },
            from: "in the flags",
            only: self.only,
        };
        let in_environment = Named {
            one: environment.brokers,
            sides: environment.of_sides,
            from: "in the environment",
            only: self.only,
        };
        let in_profile = Named {
            one: self.profile.and_then(|profile| profile.bootstrap.clone()),
            sides: self
                .profile
                .map_or(Sides { source: None, target: None }, |profile| profile.of_sides.clone()),
            from: "in the profile",
            only: self.only,
        };
        let profile = self.profile.map_or_else(Map::new, |profile| profile.properties.clone());
        let brokers = match by_flags.brokers()? {
            Brokers::Unnamed => self.without_flags(in_environment, in_files, in_profile)?,
            by_flags => by_flags,
        };
        let flags = self.flags()?;
        let for_one = |what: &str| {
            Err(Error::usage(format!(
                "{what} is for one of two clusters, but one cluster is named: leave that out; or, in a fill, plan, gaps \
                 or verify, name both with --source-bootstrap-server and --target-bootstrap-server"
            )))
        };
        let mut ignored = None;
        if !matches!(brokers, Brokers::Two(_)) {
            if self.source.file.is_some() || self.target.file.is_some() {
                return for_one("--source-command-config or --target-command-config");
            }
            if let Some(key) = flags.keys().find(|key| split(key).0.is_some()) {
                return for_one(&format!("-X {key}"));
            }
            let mut keys = environment.properties.keys().chain(file.keys()).chain(profile.keys());
            ignored = keys.find(|key| split(key).0.is_some()).cloned();
        }
        let (environment, options) = (environment.properties, self.options());
        let profile_name = self.profile.map_or_else(String::new, |profile| profile.name.clone());
        Ok(Layers { profile_name, profile, file, files, environment, flags, brokers, options, ignored })
    }

    /// The brokers, if no flag names them.
    fn without_flags(&self, environment: Named, files: Named, profile: Named) -> Result<Brokers> {
        let names = environment.variables();
        let environment = environment.brokers()?;
        if environment == Brokers::Unnamed {
            let in_files = files.brokers()?;
            return if in_files == Brokers::Unnamed { profile.brokers() } else { Ok(in_files) };
        }
        let of_profile = profile.brokers()?;
        if of_profile != Brokers::Unnamed && !of_profile.are(&environment) {
            let name = self.profile.map_or("", |profile| &profile.name);
            let choose = match (&of_profile, &environment) {
                (Brokers::One(one), Brokers::One(other)) => format!("-b {one} or -b {other}"),
                _ => "-b, or with --source-bootstrap-server and --target-bootstrap-server".to_owned(),
            };
            return Err(Error::usage(format!(
                "--profile {name} names {of_profile}, but the environment's {names} names {environment}: choose with \
                 {choose}, or unset {names}"
            )));
        }
        // An error in the files does not matter here.
        if let Ok(in_files) = files.brokers()
            && in_files != Brokers::Unnamed
            && !in_files.are(&environment)
        {
            tracing::warn!(
                "the brokers are those of the environment's {names}, {environment}, and not those of the command config, \
                 {in_files}; -b decides"
            );
        }
        Ok(environment)
    }

    fn flags(&self) -> Result<Map> {
        let mut given = Map::new();
        for flag in self.flags {
            let (key, value) = flag
                .split_once('=')
                .ok_or_else(|| Error::usage("-X takes key=value, and one of them has no `=`".to_owned()))?;
            let key = key.trim();
            if SECRET.contains(&split(key).1) {
                return Err(Error::usage(format!(
                    "-X {key}: the process list shows flags; put it in the environment as {} or in a file for -F",
                    variable_name(key)
                )));
            }
            given.insert(key.to_owned(), value.to_owned());
        }
        Ok(given)
    }
}

/// The side that the property's prefix names, and the property without it.
pub(super) fn split(key: &str) -> (Option<Side>, &str) {
    let found = Side::BOTH.into_iter().find_map(|side| {
        let rest = key.strip_prefix(side.word())?.strip_prefix('.')?;
        Some((Some(side), rest))
    });
    found.unwrap_or((None, key))
}

fn read_file(path: &Path, flag: &str) -> Result<Map> {
    let from = |e: &dyn std::fmt::Display| Error::usage(format!("{flag} {}: {e}", path.display()));
    let opened = std::fs::File::open(path).map_err(|e| from(&e))?;
    Ok(java_properties::read(opened).map_err(|e| from(&e))?.into_iter().collect())
}

impl Layers {
    /// # Errors
    /// [`Error::Usage`] if the environment has another value than the profile, and no flag decides. It shows no value,
    /// since it may be a secret.
    fn check_profile(&self, side: Option<Side>) -> Result<()> {
        let values = |layer| -> BTreeMap<&str, (&str, &str)> {
            of_side(layer, side).map(|(key, name, value)| (name, (key, value))).collect()
        };
        let (flags, profile) = (values(&self.flags), values(&self.profile));
        for (name, (key, value)) in values(&self.environment) {
            if flags.contains_key(name) || profile.get(name).is_none_or(|(_, wanted)| *wanted == value) {
                continue;
            }
            let variable = variable_name(key);
            let way = match SECRET.contains(&name) {
                true => String::new(),
                false => format!("choose with -X {key}=…, or "),
            };
            return Err(Error::usage(format!(
                "--profile {} and the environment's {variable} give {name} different values: {way}unset {variable}",
                self.profile_name
            )));
        }
        Ok(())
    }

    /// The properties of one side; without a side, those of the only cluster.
    fn of(&self, bootstrap: String, side: Option<Side>) -> Result<Properties> {
        let mut all = Map::new();
        let own = match side {
            Some(Side::Source) => Some(&self.files.source),
            Some(Side::Target) => Some(&self.files.target),
            None => None,
        };
        self.check_profile(side)?;
        let layers = [Some(&self.profile), Some(&self.file), own, Some(&self.environment), Some(&self.flags)];
        for layer in layers.into_iter().flatten() {
            all.extend(of_side(layer, side).map(|(_, key, value)| (key.to_owned(), value.to_owned())));
        }
        Ok(Properties::checked(bootstrap, all, side)?.given_by(self.options.clone()))
    }
}

/// The properties of a layer that are for this side: each as it is written, its name, and its value. Those of this side
/// alone come last, since they beat those of both.
fn of_side(layer: &Map, side: Option<Side>) -> impl Iterator<Item = (&str, &str, &str)> {
    let wanted = [Some(None), side.map(Some)].into_iter().flatten();
    wanted.flat_map(move |wanted| {
        let found = layer.iter().map(|(key, value)| (key.as_str(), split(key), value.as_str()));
        found.filter(move |(_, (is, _), _)| *is == wanted).map(|(key, (_, name), value)| (key, name, value))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with_file(
        flag: Option<&str>,
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Properties> {
        let environment = environment.iter().map(|(k, v)| (OsString::from(*k), OsString::from(*v)));
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let written = file.map(|text| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("written");
            file
        });
        Properties::new(flag, written.as_ref().map(tempfile::NamedTempFile::path), environment, &flags)
    }

    fn properties(environment: &[(&str, &str)], flags: &[&str]) -> Result<Properties> {
        with_file(None, None, environment, flags)
    }

    const FILE: &str = "bootstrap.servers=file:1\nclient.id=me\n";

    #[rstest]
    #[case(Some("flag:1"), Some("environment:1"), Some(FILE), "flag:1")]
    #[case(Some("flag:1"), None, Some(FILE), "flag:1")]
    #[case(Some("flag:1"), Some("environment:1"), None, "flag:1")]
    #[case(Some("flag:1"), None, None, "flag:1")]
    #[case(None, Some("environment:1"), Some(FILE), "environment:1")]
    #[case(None, Some("environment:1"), None, "environment:1")]
    #[case(None, None, Some(FILE), "file:1")]
    #[case(None, None, Some("client.id=me"), "localhost:9092")]
    #[case(None, None, None, "localhost:9092")]
    #[case(Some(" "), Some(""), Some(FILE), "file:1")]
    #[case(None, Some(""), Some("bootstrap.servers="), "localhost:9092")]
    fn where_the_brokers_are(
        #[case] flag: Option<&str>,
        #[case] variable: Option<&str>,
        #[case] file: Option<&str>,
        #[case] wanted: &str,
    ) {
        let variables: Vec<_> =
            variable.map(|value| ("KAFKA_BOOTSTRAP_SERVERS", value)).into_iter().collect();
        let properties = with_file(flag, file, &variables, &[]).expect("accepted");
        assert_eq!(properties.bootstrap(), wanted);
        assert_eq!(properties.common().get(BROKERS), Some(wanted));
    }

    #[rstest]
    #[case::by_flag(&[], &["bootstrap.servers=x:1"], "bootstrap.servers")]
    #[case::by_environment(&[("REPLICATOR_BOOTSTRAP_SERVERS", "x:1")], &[], "bootstrap.servers")]
    #[case::by_another_name(&[], &["metadata.broker.list=x:1"], "metadata.broker.list")]
    fn brokers_named_as_a_property(
        #[case] environment: &[(&str, &str)],
        #[case] flags: &[&str],
        #[case] name: &str,
        #[values(None, Some(FILE))] file: Option<&str>,
        #[values(None, Some("flag:1"))] flag: Option<&str>,
    ) {
        let error = with_file(flag, file, environment, flags).err().expect("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(&format!("the property {name} cannot be set")), "{error}");
    }

    #[rstest]
    #[case("isolation.level=read_uncommitted", "isolation.level")]
    #[case("enable.auto.commit=true", "enable.auto.commit")]
    #[case("transactional.id=x", "transactional.id")]
    #[case("enable.idempotence=false", "enable.idempotence")]
    #[case("sasl.password=hunter2", "REPLICATOR_SASL_PASSWORD")]
    #[case("no.such.property=1", "no.such.property")]
    #[case("partitioner=random", "consistent (CRC-32)")]
    #[case("linger.ms", "key=value")]
    fn refused_by_name(#[case] flag: &str, #[case] names: &str) {
        let error = properties(&[], &[flag]).err().expect("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(names), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    /// Flags beat the files, which beat the profile.
    #[rstest]
    #[case(0, "profile", "profile:1")]
    #[case(1, "file", "file:1")]
    #[case(2, "flag", "flag:1")]
    fn a_profile_comes_last(#[case] others: usize, #[case] client: &str, #[case] brokers: &str) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "bootstrap.servers=file:1\nclient.id=file\n").expect("written");
        let environment = || {
            let said =
                [("KAFKA_BOOTSTRAP_SERVERS", "environment:1"), ("REPLICATOR_CLIENT_ID", "environment")];
            said.into_iter().map(|(k, v)| (OsString::from(k), OsString::from(v)))
        };
        let profile = Profile {
            name: "p".to_owned(),
            bootstrap: Some("profile:1".to_owned()),
            of_sides: Sides { source: None, target: None },
            topics: Sides { source: None, target: None },
            properties: [("client.id", "profile"), ("linger.ms", "7")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let given = Given {
            profile: Some(&profile),
            file: (others >= 1).then(|| file.path()),
            bootstrap: (others >= 2).then_some("flag:1"),
            flags: if others >= 2 { &["client.id=flag".to_owned()] } else { &[] },
            ..Given::default()
        };
        let found = given.one(environment().take(if others >= 2 { 2 } else { 0 })).expect("accepted");
        assert_eq!((found.bootstrap(), found.common().get("client.id")), (brokers, Some(client)));
        assert_eq!(found.common().get("linger.ms"), Some("7"), "of the profile alone");
        assert_eq!(found.options()[..2], ["--profile", "p"]);
        // The environment does not beat the profile, and no flag decides.
        for name in ["KAFKA_BOOTSTRAP_SERVERS", "REPLICATOR_CLIENT_ID"] {
            let refused = given.one(environment().filter(|(variable, _)| variable.to_str() == Some(name)));
            let refused = refused.err().map(|err| (err.exit_code(), err.to_string().contains(name)));
            assert_eq!(refused, (others < 2).then_some((2, true)), "{name}");
        }
    }

    #[test]
    fn flags_beat_the_environment() {
        let given = properties(
            &[
                ("REPLICATOR_LINGER_MS", "7"),
                ("REPLICATOR_SERVICE_HOST", "x"),
                ("REPLICATOR_SASL_PASSWORD", "hunter2"),
                ("HOME", "/"),
            ],
            &["linger.ms=9"],
        );
        let given = given.expect("accepted").given;
        assert_eq!(given.get("linger.ms").map(String::as_str), Some("9"));
        assert_eq!(given.get("sasl.password").map(String::as_str), Some("hunter2"));
        assert_eq!(given.len(), 2);
    }
}
