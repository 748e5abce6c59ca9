//! Commands that a user can paste into a shell.

use crate::base::shell::line;
use crate::job::window::WindowSpec;

/// The command line `arguments` with `window` in place of the one that was typed.
pub(super) fn again(arguments: impl Iterator<Item = String>, window: &WindowSpec) -> String {
    let mut words = vec!["replicator".to_owned()];
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--window" {
            arguments.next();
        } else if !argument.starts_with("--window=") {
            words.push(argument);
            continue;
        }
        words.extend(["--window".to_owned(), window.to_string()]);
    }
    line(&words)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("x --window 2h", "replicator --window 2021-04-14T11:00:00Z/")]
    #[case("x plan --window=-2h.. -b a:1", "replicator plan --window 2021-04-14T11:00:00Z/ -b a:1")]
    #[case(
        "x --time-field /a'b --window 2h",
        r"replicator --time-field '/a'\''b' --window 2021-04-14T11:00:00Z/"
    )]
    fn the_same_command_for_this_window(#[case] typed: &str, #[case] wanted: &str) {
        let window = "2021-04-14T11:00Z/".parse().expect("a window");
        assert_eq!(again(typed.split(' ').map(str::to_owned), &window), wanted);
    }
}
