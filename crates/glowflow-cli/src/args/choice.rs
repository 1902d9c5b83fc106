//! Options whose values are those of an enum of the library.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A value of an option: its name, its description in the help, empty for none, and the library's value.
pub type Choice<T> = (&'static str, &'static str, T);

/// A parser of the names of `choices`.
pub fn parser<T>(choices: &'static [Choice<T>]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = choices.iter().map(|choice| match choice.1 {
        "" => PossibleValue::new(choice.0),
        help => PossibleValue::new(choice.0).help(help),
    });
    PossibleValuesParser::new(values).try_map(move |name| {
        let found = choices.iter().find(|choice| choice.0 == name);
        found.map(|choice| choice.2).ok_or("not a possible value")
    })
}

/// The name of a value.
pub fn name<T: PartialEq>(choices: &[Choice<T>], value: T) -> &'static str {
    choices.iter().find(|choice| choice.2 == value).map_or("", |choice| choice.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{BACKPROPS, PRECISIONS};
    use glowflow::{Backprop, Precision};

    #[test]
    fn names_are_those_of_the_configuration() {
        for (name, _, precision) in PRECISIONS {
            assert_eq!(serde_json::to_value(precision).unwrap(), *name);
        }
        for (name, _, backprop) in BACKPROPS {
            assert_eq!(serde_json::to_value(backprop).unwrap(), *name);
        }
        assert_eq!(name(PRECISIONS, Precision::Bf16), "bf16");
        assert_eq!(name(BACKPROPS, Backprop::Stored), "stored");
    }
}
