//! The help of all commands: one order of options, and a default for each optional one.

use crate::common;
use std::path::Path;

const COMMANDS: [&str; 19] = [
    "quickstart",
    "train",
    "bench",
    "study",
    "align",
    "crop",
    "eval",
    "score",
    "sample",
    "encode",
    "decode",
    "interpolate",
    "attributes",
    "manipulate",
    "resample",
    "nearest",
    "serve",
    "info",
    "import",
];

/// Options in the order of the help.
const INPUTS: [&str; 5] = ["model", "data", "labels", "latents", "directions"];
const WHAT: [&str; 8] = ["images", "count", "class", "set", "sweep", "levels", "orthogonalize", "edited"];
const OUTPUTS: [&str; 3] = ["out", "out-dir", "csv"];
const GLOBAL: [&str; 3] = ["threads", "device", "json"];

fn help(command: &str) -> String {
    common::run(Path::new("."), &format!("{command} --help")).ok().stdout
}

/// An option of a command: its name, whether it takes a value, and its help text.
struct Entry {
    name: String,
    takes_value: bool,
    help: String,
}

/// The options of a help page, in order, except those that end the program.
fn entries(help: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = vec![];
    for line in help.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(option) = text.strip_prefix("--").filter(|_| indent == 6) {
            // The help text begins on the same line or on the next.
            let (name, rest) = option.split_once(' ').unwrap_or((option, ""));
            entries.push(Entry { name: name.into(), takes_value: rest.starts_with('<'), help: rest.into() });
        } else if let Some(entry) = entries.last_mut().filter(|_| indent > 6) {
            entry.help = format!("{} {text}", entry.help);
        } else if indent < 6 && !text.is_empty() {
            // A heading, an example, or -h and -V.
            entries.push(Entry { name: String::new(), takes_value: false, help: String::new() });
        }
    }
    entries.retain(|entry| !entry.name.is_empty());
    entries
}

fn stage(name: &str) -> usize {
    let stages: [&[&str]; 5] = [&INPUTS, &WHAT, &[], &OUTPUTS, &GLOBAL];
    stages.iter().position(|names| names.contains(&name)).unwrap_or(2)
}

#[test]
fn options_have_one_order() {
    for command in COMMANDS {
        let mut names: Vec<String> = entries(&help(command)).into_iter().map(|entry| entry.name).collect();
        assert!(names.len() > GLOBAL.len(), "{command}: {names:?}");
        if ["train", "bench", "study"].contains(&command) {
            // In these commands `--images` is a limit, and `--set` changes the configuration.
            names.retain(|name| !["images", "set"].contains(&name.as_str()));
        }
        let stages: Vec<usize> = names.iter().map(|name| stage(name)).collect();
        assert!(stages.is_sorted(), "{command}: {names:?}");
        let fixed = [&INPUTS[..], &WHAT, &OUTPUTS, &GLOBAL].concat();
        let place = |name: &String| fixed.iter().position(|other| other == name);
        assert!(names.iter().filter_map(place).is_sorted(), "{command}: {names:?}");
    }
}

#[test]
fn options_that_may_be_left_out_state_their_default() {
    for command in COMMANDS {
        let help = help(command);
        let usage = help.lines().find(|line| line.starts_with("Usage:")).unwrap();
        for Entry { name, takes_value, help } in entries(&help) {
            let required = usage.contains(&format!("--{name} <")) || usage.contains(&format!("--{name}|"));
            assert!(
                !takes_value || required || help.contains("[default: "),
                "{command} --{name} has no default: {help}"
            );
            for words in ["where nothing is said", "By default"] {
                assert!(!help.contains(words), "{command} --{name}: {help}");
            }
        }
    }
}

#[test]
fn options_of_all_commands_have_a_heading() {
    for command in COMMANDS {
        let help = help(command);
        let (own, global) = help.split_once("Global options:").unwrap();
        for name in GLOBAL {
            let option = format!("\n      --{name}");
            assert!(global.contains(&option) && !own.contains(&option), "{help}");
        }
    }
}

#[test]
fn a_class_has_one_name() {
    for command in COMMANDS {
        let names: Vec<String> = entries(&help(command)).into_iter().map(|entry| entry.name).collect();
        assert!(!names.contains(&"label".to_owned()), "{command}: {names:?}");
    }
}
