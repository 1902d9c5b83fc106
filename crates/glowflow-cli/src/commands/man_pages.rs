//! `man-pages`: pages for `man`, generated from the command-line options.

use std::io;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use glowflow_report::file;

use super::check_folder_output;
use crate::ExitCode;
use crate::args::{self, Cli};

pub fn man_pages(args: &args::ManPages) -> anyhow::Result<ExitCode> {
    check_folder_output(&args.out)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("creating the folder {}", args.out.display()))?;
    // The pages replace the `help` command.
    let mut program = Cli::command().disable_help_subcommand(true).subcommand_help_heading("COMMANDS");
    program.build();
    write_pages(&program, &args.out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of a command and its subcommands.
fn write_pages(command: &Command, out: &Path) -> anyhow::Result<()> {
    // The generator omits an empty date, which would shift the fields after it.
    let man = Man::new(command.clone())
        .date(" ")
        .source(format!("glowflow {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    file::replace(&out.join(man.get_filename()), &page(command, &man)?)?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|c| write_pages(c, out))
}

fn page(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = vec![];
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    Roff::new().control("SH", ["SYNOPSIS"]).text(synopsis(command)).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let has_commands = command.has_subcommands();
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut end = Roff::new();
    if let Some(text) = command.get_after_help() {
        notes(&mut end, &text.to_string());
    }
    if !has_commands {
        end.control("SH", ["SEE ALSO"]).text([bold("glowflow"), roman("(1)")]);
    }
    end.to_writer(&mut page)?;
    Ok(page)
}

/// The usage line of the help.
fn synopsis(command: &Command) -> Vec<Inline> {
    let usage = command.clone().render_usage().to_string();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let rest = usage.trim_start_matches("Usage: ").trim_start_matches(name);
    vec![bold(name), roman(rest)]
}

/// Renders the text below a command's help. A line that ends in a colon is the heading of the indented lines
/// below it, whose line breaks are kept; other lines are paragraphs.
fn notes(page: &mut Roff, text: &str) {
    for part in text.split("\n\n") {
        match part.split_once(":\n") {
            Some((heading, lines)) if !heading.contains('\n') => {
                let heading = if heading == "Example" { "Examples" } else { heading };
                page.control("SH", [heading.to_uppercase().as_str()]);
                literal(page, lines);
            }
            // An example file contains blank lines.
            _ if part.starts_with("  ") => literal(page, part),
            _ => {
                page.control("SH", ["NOTES"]).text([roman(part.replace('\n', " "))]);
            }
        }
    }
}

fn literal(page: &mut Roff, lines: &str) {
    page.control("PP", []).control("nf", []);
    for line in lines.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}
