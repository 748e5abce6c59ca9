//! The one object that `--output json` prints: how a command ended, and what it found out.

use std::ffi::OsString;
use std::fmt;

use serde::Serialize;

use crate::base::error::{Error, Reason, Result};
use crate::compare::verify::Findings;
use crate::fill::receipt::Receipt;
use crate::job::Selection;
use crate::job::names::Names;
use crate::job::window::Edges;

/// The findings of a command, for people and for machines.
pub trait Found: fmt::Display {
    /// One JSON object: how the command ended, and the fields of `self`.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be written as JSON.
    fn json(&self, result: &Result<()>) -> Result<String>;
}

impl<T: Serialize + fmt::Display> Found for T {
    fn json(&self, result: &Result<()>) -> Result<String> {
        let error = result.as_ref().err();
        let answer = Answer {
            status: error.map_or("done", Error::status),
            exit_code: error.map_or(0, Error::exit_code),
            error: error.map(|error| Failure { reason: error.reason(), message: error.to_string() }),
            found: self,
        };
        serde_json::to_string(&answer).map_err(|e| Error::io("the answer", e))
    }
}

#[derive(Serialize)]
struct Answer<'a, T> {
    status: &'static str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(flatten)]
    found: &'a T,
}

#[derive(Serialize)]
struct Failure {
    reason: Reason,
    message: String,
}

/// The answer of a command that read nothing. It has no counts: a count of 0 would say that there are no records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Unread {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Edges>,
    /// `None` if the command has no two topics, or did not get as far as to know them.
    #[serde(flatten)]
    pub names: Option<Names>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl From<Selection> for Unread {
    fn from(selection: Selection) -> Unread {
        Unread { names: Some(Names::from(&selection)), ..Unread::default() }
    }
}

impl From<Receipt> for Unread {
    fn from(receipt: Receipt) -> Unread {
        Unread { window: receipt.window, names: Some(receipt.names), warnings: receipt.warnings }
    }
}

impl From<Findings> for Unread {
    fn from(findings: Findings) -> Unread {
        Unread { window: findings.window, names: Some(findings.names), warnings: findings.warnings }
    }
}

/// There is nothing to print as text, because the error says everything.
impl fmt::Display for Unread {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Whether the arguments ask for `--output json`, although clap cannot parse all of them.
pub fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<String> =
        arguments.map(|argument| argument.to_string_lossy().into_owned()).take_while(|a| a != "--").collect();
    let value = |argument: &str| {
        let rest = match argument.strip_prefix("--") {
            Some(long) => long.strip_prefix("output"),
            // It may follow flags without a value, as in -qo json.
            None => {
                argument.strip_prefix('-').and_then(|s| s.trim_start_matches(['q', 'v']).strip_prefix('o'))
            }
        };
        rest.map(|rest| rest.strip_prefix('=').unwrap_or(rest).to_owned())
    };
    let is_json = |(at, argument): (usize, &String)| match value(argument).as_deref() {
        Some("") => arguments.get(at + 1).is_some_and(|next| next == "json"),
        value => value == Some("json"),
    };
    arguments.iter().enumerate().any(is_json)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn json(found: &impl Found, result: Result<()>) -> Value {
        serde_json::from_str(&found.json(&result).expect("JSON")).expect("JSON")
    }

    #[test]
    fn a_word_for_each_exit_code() {
        let wanted = [
            (Ok(()), "done", 0),
            (Err(Error::failed("x")), "failed", 1),
            (Err(Error::restart("x")), "failed", 1),
            (Err(Error::usage("x")), "usage", 2),
            (Err(Error::refused("x")), "refused", 3),
            (Err(Error::different("x")), "different", 4),
            (Err(Error::fenced("x")), "fenced", 5),
            (Err(Error::Interrupted), "interrupted", 130),
        ];
        for (result, status, code) in wanted {
            let found = json(&Unread::default(), result);
            assert_eq!((&found["status"], &found["exit_code"]), (&json!(status), &json!(code)));
            assert_eq!(found.get("error").is_none(), code == 0, "{found}");
            assert!(code == 0 || found["error"]["reason"] == status, "{found}");
        }
    }

    #[test]
    fn the_closer_reason_and_nothing_that_is_not_known() {
        let error = Error::refused("no topic").because(Reason::MissingTopic);
        let found = json(&Unread::default(), Err(error));
        let error = json!({ "reason": "missing-topic", "message": "no topic" });
        assert_eq!(found, json!({ "status": "refused", "exit_code": 3, "error": error }));
    }

    #[test]
    fn a_receipt_lies_beside() {
        let names = Names { source: "a".into(), ..Names::default() };
        let receipt = Receipt { names, ..Receipt::default() };
        let found = json(&receipt, Ok(()));
        assert_eq!(
            (&found["status"], &found["source"], &found["written"]),
            (&json!("done"), &json!("a"), &json!(0))
        );
        assert!(found.get("window").is_none(), "it was not resolved: {found}");
    }

    #[rstest]
    #[case("--output json", true)]
    #[case("gaps --output=json --nonsense", true)]
    #[case("-o json", true)]
    #[case("-ojson filll", true)]
    #[case("-o=json", true)]
    #[case("-qo json", true)]
    #[case("-vvojson", true)]
    #[case("--output text", false)]
    #[case("--output", false)]
    #[case("-X json", false)]
    #[case("--source json", false)]
    #[case("-- --output json", false)]
    #[case("", false)]
    fn json_is_asked_for(#[case] arguments: &str, #[case] wanted: bool) {
        assert_eq!(asks_for_json(arguments.split(' ').map(OsString::from)), wanted);
    }
}
