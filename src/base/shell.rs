//! Writes command lines that a user can paste into a shell. Pure.

use std::borrow::Cow;

/// A word for a POSIX shell, in quotes if it needs them.
fn word(text: &str) -> Cow<'_, str> {
    // All other characters may mean something to a shell, at least in some place.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=@%+".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

/// The words as one command line.
pub(crate) fn line<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|text| word(text.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words = ["replicator", "--time-field", "/a b", "it's", "[x,y]", "a:1,b:2", "", "$HOME", "~", "#"];
        let line = line(&words);
        let told = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]).output();
        let told = String::from_utf8(told.expect("a shell").stdout).expect("text");
        assert_eq!(told.lines().collect::<Vec<_>>(), words);
        assert!(line.starts_with("replicator --time-field '/a b'") && line.contains(" a:1,b:2 "), "{line}");
    }
}
