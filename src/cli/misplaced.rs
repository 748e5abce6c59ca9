//! Options of the main job that stand before the name of another command.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::check_secrets;
use super::help::command;
use crate::base::shell::line;

/// Options for a connection, which may stand before the name of a command that takes them.
const OF_CONNECTION: [&str; 4] = ["bootstrap_server", "property", "command_config", "profile"];

/// Why the command line is refused, if an option would be ignored silently, or if a command lacks an option only because
/// it stands before the command's name.
///
/// # Errors
/// The sentence, with where the options belong.
pub(super) fn check(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some((name, of_command)) = matches.subcommand() else { return Ok(()) };
    let mut program = command();
    program.build();
    let own: Vec<&Arg> = program.find_subcommand(name).into_iter().flat_map(Command::get_arguments).collect();
    let is_taken = |argument: &Arg| own.iter().any(|own| own.get_id() == argument.get_id());
    let may_be_there = |argument: &Arg| {
        let is_of_connection = OF_CONNECTION.contains(&argument.get_id().as_str());
        argument.is_global_set() || (is_of_connection && is_taken(argument))
    };
    let (fine, misplaced): (Vec<&Arg>, Vec<&Arg>) = program
        .get_arguments()
        .filter(|argument| is_typed(matches, argument.get_id().as_str()))
        .partition(|argument| may_be_there(argument));
    if misplaced.is_empty() {
        return Ok(());
    }
    let strange: Vec<String> =
        misplaced.iter().filter(|argument| !is_taken(argument)).map(|argument| flag(argument)).collect();
    let told = if strange.is_empty() {
        let mut words = vec!["replicator".to_owned(), name.to_owned()];
        // The command must not ask another cluster. A property may be a secret, so it is not repeated.
        let (shown, hidden): (Vec<&Arg>, Vec<&Arg>) = fine
            .into_iter()
            .partition(|argument| !argument.is_global_set() && argument.get_id() != "property");
        misplaced.iter().chain(&shown).for_each(|argument| words.extend(typed(matches, argument)));
        let has_more =
            !hidden.is_empty() || own.iter().any(|own| is_typed(of_command, own.get_id().as_str()));
        let more = if has_more { " …" } else { "" };
        let flags: Vec<String> = misplaced.iter().map(|argument| flag(argument)).collect();
        format!("put {} after `{name}`: {}{more}", flags.join(" and "), line(&words))
    } else {
        format!("`{name}` takes no {}", strange.join(" and no "))
    };
    // The usage is that of the command.
    Err(program.find_subcommand_mut(name).map_or_else(
        || clap::Error::raw(ErrorKind::UnknownArgument, &told),
        |command| command.error(ErrorKind::UnknownArgument, &told),
    ))
}

/// The reason for clap's error, if [`check`] knows a closer one.
pub(super) fn closer(err: clap::Error, arguments: &[std::ffi::OsString]) -> clap::Error {
    if err.kind() != ErrorKind::MissingRequiredArgument {
        return err;
    }
    let matches = command().ignore_errors(true).try_get_matches_from(arguments);
    let closer = |matches: ArgMatches| check_secrets(&matches).and_then(|()| check(&matches)).err();
    matches.ok().and_then(closer).unwrap_or(err)
}

/// Whether an option stands on the command line.
pub(super) fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    // clap has arguments of its own, such as --help, that it does not match here.
    matches.try_contains_id(id).unwrap_or(false) && matches.value_source(id) == Some(ValueSource::CommandLine)
}

pub(super) fn flag(argument: &Arg) -> String {
    match (argument.get_long(), argument.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, short) => format!("-{}", short.unwrap_or_default()),
    }
}

/// The option as it was typed.
fn typed(matches: &ArgMatches, argument: &Arg) -> Vec<String> {
    if !argument.get_action().takes_values() {
        return vec![flag(argument)];
    }
    let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
    values.flat_map(|value| [flag(argument), value.to_string_lossy().into_owned()]).collect()
}
