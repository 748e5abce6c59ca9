//! What `--help` and the manual pages say beside the options: examples, the environment, and exit codes.

use clap::builder::Styles;
use clap::{Command, CommandFactory};

use super::Cli;
use crate::base::error::{Error, Result};

/// What each command is good for: the name, and sentences with their command lines. The main job has no name.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("Fill the gap from 11 to 13 o'clock, in UTC", "replicator --window 11:00-13:00 -b kafka:9092"),
            (
                "Fill a day of a topic in another cluster",
                "replicator --window 2021-04-14 --source orders --target orders \
                 --source-bootstrap-server a:9092 --target-bootstrap-server b:9092",
            ),
        ],
    ),
    (
        "fill",
        &[
            (
                "Fill the gap of the last two hours",
                "replicator fill --window 2h --source orders --target orders-copy",
            ),
            (
                "Fill the gap, and go on copying",
                "replicator fill --window 2021-04-14T11:00Z/ --follow --scale-out",
            ),
        ],
    ),
    (
        "plan",
        &[
            ("Show what a fill would do", "replicator plan --window 11:00-13:00 --date 2021-04-14"),
            ("The same in local time", "replicator plan --window 13-15 --tz Europe/Berlin"),
        ],
    ),
    (
        "gaps",
        &[
            ("Find all gaps", "replicator gaps --source orders --target orders-copy"),
            ("Watch the last day from a script", "replicator gaps --window 1d --exit-code --output json"),
        ],
    ),
    (
        "verify",
        &[
            ("Compare the window in both topics", "replicator verify --window 11:00-13:00"),
            ("Compare their order too", "replicator verify --window 2021-04-14 --strict-order"),
        ],
    ),
    (
        "lag",
        &[
            ("Show how far a follow is", "replicator lag --source orders --target orders-copy"),
            ("Exit with code 4 if it is behind", "replicator lag --max-lag 1000"),
        ],
    ),
    (
        "load",
        &[
            ("Load a file", "replicator load events.json.gz --topic topicA --partitions 3"),
            (
                "Load it with a gap, and name its fields",
                "replicator load events.json.gz --topic topicB --except 11:00-13:00 --key-field /id --time-field /at",
            ),
        ],
    ),
    (
        "generate",
        &[
            ("Generate 30000 events", "replicator generate --out events.json.gz"),
            ("Generate others", "replicator generate --records 1000 --seed 7 --out events.json"),
        ],
    ),
    (
        "sink",
        &[
            (
                "Copy both topics into a file",
                "replicator sink --topic topicA --topic topicB --store sqlite:replicator.db",
            ),
            (
                "Go on with new records",
                "replicator sink --topic orders --follow --store postgres://me@host/replicator",
            ),
        ],
    ),
    (
        "dashboard",
        &[
            ("Show what a sink has copied", "replicator dashboard --store sqlite:replicator.db"),
            (
                "Show it to other machines",
                "replicator dashboard --listen 0.0.0.0:8080 --allowed-host page.example.com",
            ),
        ],
    ),
    (
        "demo",
        &[
            ("Show everything on a broker of its own", "replicator demo"),
            ("Try on with it afterwards", "replicator demo --keep"),
        ],
    ),
    (
        "drill",
        &[
            ("Kill runs and brokers for two minutes", "replicator drill"),
            (
                "Drill one fault in two clusters",
                "replicator drill --clusters 2 --faults late-commit --duration 10m",
            ),
        ],
    ),
    (
        "completions",
        &[
            ("For this bash", "source <(replicator completions bash)"),
            ("For every zsh", "replicator completions zsh > ~/.zfunc/_replicator"),
        ],
    ),
    (
        "man",
        &[
            ("Read the page of the program", "replicator man | man -l -"),
            (
                "Install the page of a command",
                "replicator man gaps > /usr/local/share/man/man1/replicator-gaps.1",
            ),
        ],
    ),
];

/// Exit codes, and what they mean.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "failed; it is safe to run again"),
    ("2", "the command line is wrong"),
    ("3", "refused, before anything was written"),
    ("4", "verify found a difference, gaps --exit-code a gap, or lag more than --max-lag"),
    ("5", "another run took over"),
    ("130", "interrupted; the open transaction was aborted"),
];

/// Variables, what they do, and an option of the commands that heed them; without an option, all do.
const ENVIRONMENT: &[(&str, &str, Option<&str>)] = &[
    (
        "KAFKA_BOOTSTRAP_SERVERS",
        "The brokers to connect to first, unless --bootstrap-server names them.",
        Some("command_config"),
    ),
    (
        "KAFKA_SOURCE_BOOTSTRAP_SERVERS, KAFKA_TARGET_BOOTSTRAP_SERVERS",
        "Those of both clusters, if the topics are in two.",
        Some("source_bootstrap_server"),
    ),
    (
        "REPLICATOR_SASL_PASSWORD, ...",
        "The client property sasl.password; so for each property. REPLICATOR_SOURCE_SASL_PASSWORD is that of the source \
         cluster alone.",
        Some("command_config"),
    ),
    (
        "REPLICATOR_STORE",
        "The store, unless --store names it. Here, the URL may hold a password.",
        Some("store"),
    ),
    (
        "REPLICATOR_SCHEMA_REGISTRY",
        "The Schema Registry, unless --schema-registry names it. Here, the URL may hold a password.",
        Some("schema_registry"),
    ),
    (
        "XDG_CONFIG_HOME",
        "The folder that holds replicator/config.toml, with the profiles; by default ~/.config.",
        Some("profile"),
    ),
    ("NO_COLOR", "If it is set, there are no colours.", None),
    ("RUST_LOG", "What to log, as in replicator=debug; it replaces -q and -v.", None),
];

/// The command line's parser, with examples.
pub fn command() -> Command {
    let mut command = Cli::command();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let examples = listed("Examples:", examples(&name));
        command = command.mut_subcommand(name, |sub| sub.after_help(examples));
    }
    // The file of --against says which window it is of.
    let command = command.mut_subcommand("verify", |verify| {
        verify.mut_arg("window", |window| window.required(false).required_unless_present("against"))
    });
    #[cfg(feature = "lab")]
    let command = command.mut_subcommand("demo", |demo| {
        demo.mut_arg("bootstrap_server", |brokers| {
            let what = "Use this cluster, given as host:port; by default a broker is started";
            brokers.help(what).long_help(format!(
                "{what}\n\nKAFKA_BOOTSTRAP_SERVERS is ignored, because it may name production. Topics and groups of the demo are \
                 removed at its end, unless --keep is given."
            ))
        })
    });
    let codes: String = EXIT_CODES.iter().map(|(code, what)| format!("\n  {code:>3}  {what}")).collect();
    command.after_help(format!("{}\n\nExit codes:{codes}", listed("Examples:", examples(""))))
}

fn examples(name: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(of, _)| *of == name).map_or(&[], |(_, examples)| examples)
}

fn listed(heading: &str, examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(what, line)| format!("\n  # {what}\n  {line}"));
    lines.fold(heading.to_owned(), |all, line| all + &line)
}

/// The manual page of a sub-command, or of the program, as roff.
///
/// # Errors
/// [`Error::Usage`] if there is no such sub-command.
pub fn manual(name: Option<&str>) -> Result<Vec<u8>> {
    let mut program = command().styles(Styles::plain());
    program.build();
    let found = name.map_or(Some(&program), |name| program.find_subcommand(name));
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        let name = name.unwrap_or_default();
        Error::usage(format!("there is no command `{name}`; the commands are {}", names.join(", ")))
    })?;
    // These texts have sections of their own here.
    let man = clap_mangen::Man::new(found.clone().after_help(""));
    let mut page = Vec::new();
    let written = (|| {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if found.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        std::io::Result::Ok(())
    })();
    written.map_err(|e| Error::io("the page", e))?;
    let has = |id: &str| found.get_arguments().any(|argument| argument.get_id() == id);
    // The demo uses no cluster of the environment.
    let is_heeded = |variable: &str| name != Some("demo") || !variable.starts_with("KAFKA_");
    let mut rest = ".SH EXAMPLES\n".to_owned();
    for (what, line) in examples(name.unwrap_or_default()) {
        rest += &format!(".TP\n{}\n\\fB{}\\fR\n", escaped(what), escaped(line));
    }
    rest += ".SH ENVIRONMENT\n";
    for (name, what, _) in ENVIRONMENT.iter().filter(|(name, _, of)| of.is_none_or(has) && is_heeded(name)) {
        rest += &format!(".TP\n\\fB{}\\fR\n{}\n", escaped(name), escaped(what));
    }
    rest += ".SH EXIT STATUS\n";
    for (code, what) in EXIT_CODES {
        rest += &format!(".TP\n\\fB{code}\\fR\n{}\n", escaped(what));
    }
    page.extend(rest.into_bytes());
    Ok(page)
}

/// Text for roff, to which a backslash, a hyphen and a dot at the start of a line mean something.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', r"\e").replace('-', r"\-").replace('\'', r"\(aq");
    if text.starts_with('.') { format!(r"\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command has two examples, and the program takes each of them.
    #[test]
    fn examples_are_right() {
        let names: Vec<String> = command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().map(String::as_str).chain([""]) {
            let found = examples(name);
            assert_eq!(found.len(), 2, "{name}");
            for (_, line) in found {
                let line =
                    line.trim_start_matches("source <(").split([')', '|', '>']).next().unwrap_or_default();
                let parsed = command().try_get_matches_from(line.split_whitespace());
                let matches = parsed.unwrap_or_else(|err| panic!("{line}: {err}"));
                assert_eq!(matches.subcommand_name().unwrap_or_default(), name, "{line}");
            }
        }
        if cfg!(feature = "lab") {
            assert!(EXAMPLES.iter().all(|(name, _)| name.is_empty() || names.iter().any(|n| n == name)));
        }
    }

    #[test]
    fn every_page_has_its_sections() {
        let names: Vec<String> = command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().map(|name| Some(name.as_str())).chain([None]) {
            let page = String::from_utf8(manual(name).expect("a page")).expect("text");
            for section in [".SH NAME", ".SH EXAMPLES", ".SH ENVIRONMENT", ".SH EXIT STATUS"] {
                assert_eq!(page.matches(section).count(), 1, "{name:?} {section}");
            }
            let (_, environment) = page.split_once(".SH ENVIRONMENT").expect("the section");
            let takes_brokers = environment.contains("KAFKA_BOOTSTRAP_SERVERS");
            let heeds_none = ["generate", "dashboard", "completions", "man", "demo", "drill"]
                .contains(&name.unwrap_or(""));
            assert_eq!(takes_brokers, !heeds_none, "{name:?}");
        }
    }

    /// A sub-command takes only options that it heeds.
    #[test]
    fn what_a_command_does_not_take() {
        let unheeded = [
            ("generate", "--bootstrap-server x:1"),
            ("generate", "-X linger.ms=5"),
            ("dashboard", "--command-config f"),
            ("dashboard", "-b x:1"),
            ("completions", "-b x:1"),
            ("man", "--profile p"),
            ("drill", "-F f"),
            ("drill", "--profile p"),
            ("plan", "--max-rate 5/s"),
            ("plan", "--store sqlite:x.db"),
            ("plan", "--transaction-records 5"),
            ("plan", "--follow"),
            ("lag", "--identity key"),
        ];
        for (name, option) in unheeded {
            let line = format!("replicator {name} {option}");
            let err = command().try_get_matches_from(line.split(' ')).expect_err(&line);
            assert_eq!(err.kind(), clap::error::ErrorKind::UnknownArgument, "{line}: {err}");
        }
    }

    /// The headings of the main job stand in the order in which one needs them.
    #[test]
    fn headings() {
        let help = command().render_help().to_string();
        let order =
            ["Topics:", "Window:", "Identity:", "Connection:", "Safety:", "Speed:", "Follow:", "Output:"];
        let places: Vec<Option<usize>> =
            order.iter().map(|heading| help.find(&format!("\n{heading}\n"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {help}");
    }
}
