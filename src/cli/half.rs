//! The options of `verify` that mean nothing if it reads only one topic.

use clap::ArgMatches;
use clap::error::ErrorKind;

use super::help::command;
use super::misplaced::{flag, is_typed};

/// Options by their ids, and why they are refused.
type Refused = (&'static [&'static str], &'static str);

const BOTH: [Refused; 3] = [
    (
        &["identity", "on_conflict", "target_scan", "skip_invalid", "strict_order", "latest_only", "file"],
        "the sums count equal records, and know no single record and no order",
    ),
    (&["index_memory"], "the sums take little memory"),
    (&["max_out_of_orderness"], "it reads all that follows the window's start"),
];

const SUMMARY: Refused =
    (&["target", "target_bootstrap_server", "target_command_config"], "it reads only the source");

const AGAINST: [Refused; 2] = [
    (&["window", "date", "tz", "time_field"], "the window and the event time are those of the file"),
    (&["source", "source_bootstrap_server", "source_command_config"], "the file stands for the source"),
];

/// # Errors
/// Names the options that would be ignored, and says why.
pub(super) fn check(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some(("verify", typed)) = matches.subcommand() else { return Ok(()) };
    let refused = match (is_typed(typed, "summary"), is_typed(typed, "against")) {
        (false, false) => return Ok(()),
        (true, true) => {
            return Err(refusal("--summary writes the file, and --against reads it later: give one of them"));
        }
        (true, false) => ("--summary", [&[SUMMARY][..], &BOTH].concat()),
        (false, true) => ("--against", [&AGAINST[..], &BOTH].concat()),
    };
    let (option, refused) = refused;
    let mut program = command();
    program.build();
    let verify = program.find_subcommand("verify");
    let named = |id: &str| {
        let arguments = verify.into_iter().flat_map(clap::Command::get_arguments);
        arguments.filter(|argument| argument.get_id() == id).map(flag).collect::<String>()
    };
    let told: Vec<String> = refused
        .iter()
        .filter_map(|(ids, why)| {
            let ids = ids.iter().filter(|id| is_typed(typed, id));
            let flags: Vec<String> = ids.map(|id| named(id)).collect();
            (!flags.is_empty()).then(|| format!("`{option}` takes no {}: {why}", flags.join(" and no ")))
        })
        .collect();
    if told.is_empty() { Ok(()) } else { Err(refusal(&told.join("\n"))) }
}

/// The usage is that of the command.
fn refusal(told: &str) -> clap::Error {
    let mut program = command();
    program.build();
    program.find_subcommand_mut("verify").map_or_else(
        || clap::Error::raw(ErrorKind::ArgumentConflict, told),
        |verify| verify.error(ErrorKind::ArgumentConflict, told),
    )
}
