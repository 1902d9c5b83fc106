//! Shell completions and manual pages, as packages install them.

use crate::common;
use std::path::Path;
use std::process::Command;

/// The commands listed by the help, except `help`.
fn commands() -> Vec<String> {
    let help = common::run(Path::new("."), "--help").ok().stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect()
}

fn completions(shell: &str) -> String {
    common::run(Path::new("."), &format!("completions {shell}")).ok().stdout
}

#[test]
fn every_shell_gets_every_command() {
    let commands = commands();
    assert!(commands.len() > 15 && commands.contains(&"completions".to_owned()), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = completions(shell);
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
        assert!(script.contains("temperature"), "{shell}: no options");
        assert!(!script.contains("man-pages"), "{shell}: a hidden command");
    }
}

#[test]
fn an_unknown_shell_lists_the_supported_ones() {
    let outcome = common::run(Path::new("."), "completions tcsh");
    assert_eq!(outcome.code, Some(2));
    for word in ["tcsh", "bash", "zsh", "fish", "powershell"] {
        assert!(outcome.stderr.contains(word), "{outcome:#?}");
    }
}

/// Bash's completions of the last word.
#[cfg(unix)]
fn completed(script: &Path, words: &[&str]) -> Option<String> {
    let last = words.len() - 1;
    let program = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _glowflow glowflow '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words[last],
        words[last - 1],
    );
    let run = Command::new("bash").args(["--norc", "-c", &program]).output().ok()?;
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    Some(String::from_utf8(run.stdout).unwrap().trim().to_owned())
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("glowflow.bash");
    std::fs::write(&script, completions("bash")).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["glowflow", "sam"], "sample"),
        (&["glowflow", "sample", "--coun"], "--count"),
        (&["glowflow", "sample", "--precision", "bf"], "bf16"),
        (&["glowflow", "man"], "manipulate"),
    ];
    for (words, expected) in cases {
        let Some(answer) = completed(&script, words) else {
            return eprintln!("skipped: there is no bash");
        };
        assert_eq!(answer, expected, "{words:?}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    common::run(folder.path(), "man-pages new/man1").ok();
    let pages = folder.path().join("new/man1");
    let read = |name: &str| {
        std::fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let commands = commands();
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), commands.len() + 1);
    let program = read("glowflow.1");
    for command in &commands {
        assert!(program.contains(&format!("glowflow\\-{command}(1)")), "{command} is not in glowflow.1");
        let page = read(&format!("glowflow-{command}.1"));
        let title = format!(
            ".TH glowflow-{command} 1 \" \" \"glowflow {}\" \"User Commands\"\n",
            env!("CARGO_PKG_VERSION")
        );
        assert!(page.contains(&title), "{command}: {page}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"GLOBAL OPTIONS\"", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{command} has no {section}: {page}");
        }
    }
    let sample = read("glowflow-sample.1");
    assert!(sample.contains("\n\\fBglowflow sample\\fR [OPTIONS] \\-\\-model <MODEL>\n"), "{sample}");
    // Examples keep their line breaks.
    let (_, examples) = sample.split_once(".SH EXAMPLES\n.PP\n.nf\n").unwrap();
    let lines: Vec<&str> = examples.lines().take_while(|line| *line != ".fi").collect();
    assert!(
        lines.len() == 3 && lines.iter().all(|line| line.starts_with("  glowflow sample ")),
        "{lines:#?}"
    );
    let study = read("glowflow-study.1");
    let (_, file) = study.split_once(".SH \"A STUDY FILE\"\n").unwrap();
    assert!(file.contains("\n  [base] ") && file.contains("\n  name = \"wide\"\n"), "{file}");
}

#[test]
fn manual_pages_need_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for (out, word) in [("-", "not a folder"), ("file/man", "creating the folder file/man")] {
        let outcome = common::run(folder.path(), &format!("man-pages {out}"));
        assert!(outcome.code == Some(1) && outcome.stderr.contains(word), "{outcome:#?}");
    }
}

/// `man` renders each page without warnings about its source.
#[cfg(unix)]
#[test]
fn manual_pages_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    common::run(folder.path(), "man-pages man1").ok();
    for page in std::fs::read_dir(folder.path().join("man1")).unwrap() {
        let page = page.unwrap().path();
        let run = Command::new("groff").args(["-man", "-Tutf8", "-k", "-ww", "-z"]).arg(&page).output();
        let Ok(run) = run else { return eprintln!("skipped: there is no groff") };
        let complaints = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
    }
}
