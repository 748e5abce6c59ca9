//! The one rule for the rooms: a room imports only from itself and from rooms in earlier rows.

use std::fs;
use std::path::{Path, PathBuf};

/// The rows, lowest first. Rooms in one row do not import from each other.
const ROWS: &[&[&str]] = &[
    &["base"],
    &["kafka"],
    &["telemetry"],
    &["job"],
    &["judge"],
    &["fill", "compare", "load", "sink", "generate"],
    &["dashboard"],
    &["lab"],
    &["cli"],
];

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// The imports in a file of src that break the rule. A path begins at the crate's root if it begins with `crate::`, or
/// with enough `super::` to leave the room.
fn against_the_rule(file: &Path, text: &str) -> Vec<String> {
    let steps: Vec<&str> = file.iter().filter_map(|step| step.to_str()).collect();
    let room = steps[0].trim_end_matches(".rs");
    // In `room/mod.rs`, one `super::` is the root; in `room/file.rs`, two are.
    let mut depth = if steps.last() == Some(&"mod.rs") { steps.len() - 1 } else { steps.len() };
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        let of_crate = line.split("crate::").skip(1);
        // The tests of a file are a module of their own, one deeper.
        depth += usize::from(line == "mod tests {");
        let by_super = line.split_once(&"super::".repeat(depth)).map(|(_, path)| path);
        for path in of_crate.chain(by_super) {
            let imported: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_allowed = match (row(room), row(&imported)) {
                (Some(from), Some(to)) => to < from || imported == room,
                // `crate::{…}`, a name of lib.rs, or a room that is in no row.
                _ => false,
            };
            if !is_allowed {
                found.push(format!("src/{}:{}: {}", file.display(), at + 1, line.trim()));
            }
        }
    }
    found
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files_below(&src).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        (path.strip_prefix(&src).expect("below src").to_owned(), text)
    };
    files.map(read).collect()
}

#[test]
fn imports_go_one_way() {
    let rooms: Vec<_> = sources().into_iter().filter(|(file, _)| file.components().count() > 1).collect();
    assert!(rooms.len() > 50, "it looks at the wrong folder");
    let found: Vec<String> = rooms.iter().flat_map(|(file, text)| against_the_rule(file, text)).collect();
    assert!(found.is_empty(), "against the rule:\n{}", found.join("\n"));
}

#[test]
fn an_import_against_the_rule_is_found() {
    for (file, text) in [
        ("fill/copy.rs", "use crate::compare::ledger::Ledger;"),
        ("fill/copy.rs", "    use crate::cli::Cli;"),
        ("fill/copy.rs", "    let ledger = crate::compare::ledger::Ledger::new();"),
        ("fill/copy.rs", "use super::super::compare::ledger::Ledger;"),
        ("fill/mod.rs", "use super::load::load;"),
        ("fill/copy.rs", "pub(crate) use super::super::compare::ledger::Ledger;"),
        ("fill/copy.rs", "        super::super::compare::verify::verify();"),
        ("kafka/sys/admin.rs", "use crate::job::Selection;"),
        ("kafka/sys/admin.rs", "use super::super::super::job::Selection;"),
        ("base/time.rs", "use crate::kafka;"),
        ("base/time.rs", "use crate::Selection;"),
        ("base/time.rs", "use crate::{base, kafka};"),
        ("lab/demo.rs", "use crate::cli::Output;"),
    ] {
        assert_eq!(against_the_rule(Path::new(file), text).len(), 1, "{file}: {text}");
    }
    for (file, text) in [
        ("fill/copy.rs", "use crate::judge::Judge;"),
        ("fill/copy.rs", "use crate::fill::Counts;"),
        ("fill/copy.rs", "/// As [`crate::compare`] does."),
        ("fill/consequences/mod.rs", "use super::receipt::Receipt;"),
        ("kafka/sys/admin.rs", "use super::super::client::close;"),
        ("cli/lab.rs", "use crate::lab::drill::Drilling;"),
    ] {
        assert_eq!(against_the_rule(Path::new(file), text), Vec::<String>::new());
    }
}

#[test]
fn nobody_scrolls_for_long() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "src/{} has {lines} lines: split it by what its parts do", file.display());
    }
}
