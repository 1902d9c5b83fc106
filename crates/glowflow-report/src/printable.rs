//! Makes text safe to print on a terminal.

/// Escapes the control characters of a text, except for line breaks and tabs: names from files may contain
/// sequences that a terminal would interpret.
///
/// ```
/// use glowflow_report::printable;
///
/// assert_eq!(printable("a\x1b]0;title\x07.png\n"), "a\\u{1b}]0;title\\u{7}.png\n");
/// ```
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            printable.extend(c.escape_debug());
        } else {
            printable.push(c);
        }
    }
    printable
}
