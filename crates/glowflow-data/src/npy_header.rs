//! The dictionary in an `.npy` header: a Python literal with the keys `descr`, `fortran_order` and `shape`,
//! in any order and spacing. Python 2 wrote integers with a final `L`.

/// Contents of a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dictionary {
    /// Element type, such as `|u1`; `None` for records, which are a list.
    pub description: Option<String>,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
}

/// A value of the dictionary.
enum Value<'a> {
    Text(&'a str),
    Word(&'a str),
    /// The content of a tuple or list.
    Sequence(&'a str),
}

impl Dictionary {
    /// Parses a header; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
        let (mut description, mut fortran_order, mut shape) = (None, None, None);
        while !rest.starts_with('}') {
            let (key, after) = quoted(rest)?;
            let (value, after) = value(after.trim_start().strip_prefix(':')?.trim_start())?;
            match (key, value) {
                ("descr", Value::Text(text)) => description = Some(Some(text.to_owned())),
                ("descr", Value::Sequence(_)) => description = Some(None),
                ("fortran_order", Value::Word("True" | "1")) => fortran_order = Some(true),
                ("fortran_order", Value::Word("False" | "0")) => fortran_order = Some(false),
                ("shape", Value::Sequence(inside)) => shape = Some(whole_numbers(inside)?),
                ("descr" | "fortran_order" | "shape", _) => return None,
                _ => {}
            }
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.starts_with('}') => rest,
                None => return None,
            };
        }
        let padding = |c: char| c.is_whitespace() || c == '\0';
        rest[1..].chars().all(padding).then_some(())?;
        Some(Self { description: description?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// Parses a quoted string; returns it and the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix(['u', 'b']).unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Parses a value; returns it and the rest.
fn value(text: &str) -> Option<(Value<'_>, &str)> {
    if let Some((text, rest)) = quoted(text) {
        return Some((Value::Text(text), rest));
    }
    if text.starts_with(['(', '[']) {
        let mut depth = 0_usize;
        for (at, c) in text.char_indices() {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some((Value::Sequence(&text[1..at]), &text[at + 1..]));
            }
        }
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric())?;
    Some((Value::Word(&text[..end]), &text[end..]))
}

fn whole_numbers(text: &str) -> Option<Vec<usize>> {
    let number = |n: &str| n.strip_suffix('L').unwrap_or(n).parse().ok();
    text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(number).collect()
}
