//! Parses yes, no and unknown as tables spell them.

/// Parses a field of a table; `None` means unknown. Fails on any other value.
pub(crate) fn answer(field: &str) -> Result<Option<bool>, ()> {
    match field {
        "1" => return Ok(Some(true)),
        "0" | "-1" => return Ok(Some(false)),
        _ => {}
    }
    match field.to_ascii_lowercase().as_str() {
        "" | "na" | "n/a" | "#n/a" | "<na>" | "nan" | "null" | "none" | "unknown" | "?" | "-" => Ok(None),
        "true" | "t" | "yes" | "y" => Ok(Some(true)),
        "false" | "f" | "no" | "n" => Ok(Some(false)),
        // Accepts a decimal comma and the typographic minus sign.
        number => match number.replace(',', ".").replace('\u{2212}', "-").parse() {
            Ok(1.0) => Ok(Some(true)),
            Ok(0.0 | -1.0) => Ok(Some(false)),
            _ => Err(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn spellings() {
        for yes in ["1", "+1", "1.0", "1,0", "True", "TRUE", "t", "Yes", "y"] {
            assert_eq!(answer(yes), Ok(Some(true)), "{yes}");
        }
        for no in ["0", "-1", "-0", "0.0", "-1.00", "-1,0", "\u{2212}1", "False", "F", "NO", "n"] {
            assert_eq!(answer(no), Ok(Some(false)), "{no}");
        }
        for unknown in ["", "NA", "NaN", "nan", "null", "None", "unknown", "N/A", "#N/A", "?", "-"] {
            assert_eq!(answer(unknown), Ok(None), "{unknown}");
        }
        for other in ["2", "0.5", "10", "1,000", "yes please", "inf", "1 0", "--"] {
            // A comma is a decimal separator: 1,000 is 1.
            assert_eq!(answer(other).is_err(), other != "1,000", "{other}");
        }
    }
}
