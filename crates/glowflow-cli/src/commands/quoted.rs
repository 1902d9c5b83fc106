//! Shell quoting for commands that are printed for the user to run.

use std::borrow::Cow;
use std::path::Path;

/// A path or name as one shell word, quoted if necessary.
pub fn quoted(word: &(impl AsRef<Path> + ?Sized)) -> Cow<'_, str> {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./,:+=@%".contains(c) || cfg!(windows) && c == '\\';
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    match cfg!(windows) {
        true => format!("\"{word}\"").into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn words_with_blanks_are_quoted() {
        for (word, expected) in [
            ("runs/a-1", "runs/a-1"),
            ("Straße", "Straße"),
            ("my run", "'my run'"),
            ("Ann's", r"'Ann'\''s'"),
            ("a&b", "'a&b'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
