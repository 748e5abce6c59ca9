//! The console blocks of a document: commands, and what they print.

/// The commands of the console blocks, and the answers below them.
pub(crate) fn commands_of(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in blocks(document, "console") {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
        } else {
            let (_, answer) = found.last_mut().expect("a command before an answer");
            answer.push_str(&format!("{line}\n"));
        }
    }
    found
}

/// The lines of the fenced blocks of a language.
pub(crate) fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let mut is_inside = false;
    let mut found = Vec::new();
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some(fence) => is_inside = !is_inside && fence == language,
            None if is_inside => found.push(line),
            None => {}
        }
    }
    found
}

/// Whether the text is the document's answer. In the document, `…` stands for any text, within a line or for lines.
pub(crate) fn answers(said: &str, answer: &str) -> bool {
    let parts: Vec<&str> = answer.trim_end().split('…').collect();
    let [first, between @ .., last] = &parts[..] else { return said.trim_end() == answer.trim_end() };
    let inner = said.trim_end().strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let Some(mut rest) = inner else { return false };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn an_answer_of_the_document_has_gaps() {
    assert!(answers("a 1\nb 2 s\nc\n", "…\nb …\nc\n"));
    assert!(answers("a 1\nb 2 s\n", "a 1\n…\n"));
    assert!(!answers("a 1\nb 2 s\nc\n", "…\nb …\n…d\n"));
    assert!(!answers("a 1\nb 2 s\nc\n", "…\nb 2 s\n"), "the document ends before");
    assert!(!answers("a 2\nb\n", "a 1\n…\n"));
}
