//! Checks that the Rust code in README.md equals the example `readme`, which is compiled.

use std::path::Path;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code blocks of a text in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_readme_snippet_equals_the_example() {
    let (readme, example) = (read("../README.md"), read("readme.rs"));
    let snippets = blocks(&readme, "rust");
    assert!(!snippets.is_empty());
    for snippet in snippets {
        for part in snippet.trim_end().split("\n\n") {
            let indented = part.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
            assert!(
                example.contains(part) || example.contains(&indented),
                "not in examples/readme.rs:\n{part}"
            );
        }
    }
}

#[test]
fn the_dependencies_are_those_of_the_examples() {
    let (readme, manifest) = (read("../README.md"), read("Cargo.toml"));
    let [dependencies] = blocks(&readme, "toml")[..] else { panic!("one block of TOML expected") };
    let ndarray = dependencies.lines().find(|line| line.starts_with("ndarray = ")).unwrap();
    assert!(manifest.contains(ndarray), "{ndarray}");
}
