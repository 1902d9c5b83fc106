//! Text tables: separated by commas, semicolons, tabs, bars or blanks, with a header line.
//!
//! Accepts the output of Excel (`sep=;` in the first line, empty columns and rows at the end), pandas, R (a
//! header without a name for the first column) and CelebA (the number of rows in the first line, then a
//! header like R's).

use std::cmp::Reverse;

use csv::StringRecord;

use crate::leftovers::{agree, counted};

/// A table. Every row has one field per column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Names; some may be empty.
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    /// The number of rows that the first line announces, if any.
    pub announced: Option<usize>,
    /// A remark on the rows for the user.
    pub notice: Option<String>,
}

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its line in the file, counted from 1.
    pub line: u64,
    pub fields: StringRecord,
}

impl Row {
    fn is_empty(&self) -> bool {
        self.fields.iter().all(str::is_empty)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separator {
    Character(u8),
    Blanks,
}

const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Number of rows examined to detect the separator.
const SAMPLED_ROWS: usize = 20;

/// Parses a table.
pub(crate) fn parse(text: &str) -> Result<Table, String> {
    // Classic Mac OS ends lines with a carriage return alone.
    let owned;
    let mut rest = match text.contains('\n') {
        true => text,
        false => {
            owned = text.replace('\r', "\n");
            &owned
        }
    };
    let (mut line, mut separator, mut announced) = (1, None, None);
    while let Some((first, after)) = rest.split_once('\n') {
        let first = first.trim().trim_matches('"');
        let marked = first.to_ascii_lowercase().strip_prefix("sep=").map(str::to_owned);
        match (marked, first.parse()) {
            (Some(mark), _) if mark.len() <= 1 => {
                separator = Some(Separator::Character(mark.bytes().next().unwrap_or(b'\t')));
            }
            (_, Ok(count)) => announced = Some(count),
            _ if first.is_empty() => {}
            _ => break,
        }
        (rest, line) = (after, line + 1);
    }
    let separator = separator.unwrap_or_else(|| separator_of(rest));
    let rows = match separator {
        Separator::Character(separator) => separated(rest, separator, line)?,
        Separator::Blanks => {
            rest.lines().zip(line..).map(|(text, line)| Row { line, fields: split_at_blanks(text) }).collect()
        }
    };
    let mut rows = rows.into_iter().filter(|row| !row.is_empty());
    let columns = rows.next().map_or(vec![], |row| row.fields.iter().map(str::to_owned).collect());
    let mut table = Table { columns, rows: rows.collect(), announced, notice: None };
    table.add_name_of_first_column();
    // Excel omits trailing separators. With blanks, a field in the middle may be missing.
    table.make_rectangular(separator != Separator::Blanks)?;
    table.remove_empty_columns();
    Ok(table)
}

/// The separator that splits the first lines most evenly into fields.
fn separator_of(text: &str) -> Separator {
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.trim().is_empty()).take(1 + SAMPLED_ROWS).collect();
    let count = |line: &str, separator: u8| {
        let mut quoted = false;
        let separators = line.bytes().filter(|&b| {
            quoted ^= b == b'"';
            b == separator && !quoted
        });
        separators.count()
    };
    let fitness = |separator: u8| {
        let counts: Vec<usize> = lines.iter().map(|line| count(line, separator)).collect();
        let in_header = counts.first().copied().unwrap_or(0);
        // Rows may have one field more: a name, or an empty one at the end.
        let off_by = counts.iter().map(|count| count.abs_diff(in_header)).max();
        (in_header > 0, Reverse(off_by.unwrap_or(0).min(2)), in_header)
    };
    // Of equals, the first.
    let best = SEPARATORS.into_iter().rev().max_by_key(|&separator| fitness(separator)).unwrap_or(b',');
    if fitness(best).0 {
        return Separator::Character(best);
    }
    // R does not name the column of names: with a single attribute, the header is one field.
    let rows = || lines.iter().skip(1);
    let one_field = lines.len() > 1 && split_at_blanks(lines[0]).len() == 1;
    let named = |separator: &u8| one_field && rows().all(|line| count(line, *separator) == 1);
    if let Some(separator) = SEPARATORS.into_iter().find(named) {
        return Separator::Character(separator);
    }
    let named = one_field && rows().all(|line| split_at_blanks(line).len() == 2);
    let blanks = lines.first().is_some_and(|line| line.split_whitespace().count() > 1);
    if named || blanks { Separator::Blanks } else { Separator::Character(best) }
}

/// The fields of a line, separated by blanks. Fields in quotes may contain blanks, as R writes them.
fn split_at_blanks(line: &str) -> StringRecord {
    let (mut fields, mut rest) = (StringRecord::new(), line.trim());
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(|inner| {
            let (field, after) = inner.split_once('"')?;
            (after.is_empty() || after.starts_with(char::is_whitespace)).then_some((field, after))
        });
        let (field, after) = quoted.or_else(|| rest.split_once(char::is_whitespace)).unwrap_or((rest, ""));
        fields.push_field(field);
        rest = after.trim_start();
    }
    fields
}

/// Parses the rows of a text that begins in line `first_line` of its file.
fn separated(text: &str, separator: u8, first_line: u64) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let row = |record: Result<StringRecord, csv::Error>| {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, |position| position.line()) + first_line - 1;
        Ok(Row { line, fields: record })
    };
    reader.records().map(row).collect()
}

impl Table {
    /// R and CelebA do not name the first column: all rows are one field longer than the header.
    fn add_name_of_first_column(&mut self) {
        let longer = |row: &Row| row.fields.len() == self.columns.len() + 1;
        // Alternatively, each row ends in a separator.
        let ended = |row: &Row| row.fields.iter().next_back().is_some_and(str::is_empty);
        if !self.rows.is_empty() && self.rows.iter().all(longer) && !self.rows.iter().all(ended) {
            self.columns.insert(0, String::new());
        }
    }

    /// Gives all rows one field per column. Surplus fields must be empty, and missing ones must belong to
    /// empty columns unless `pad`.
    fn make_rectangular(&mut self, pad: bool) -> Result<(), String> {
        let width = self.columns.len();
        let mut short = vec![];
        for row in &mut self.rows {
            let spare = row.fields.iter().skip(width).any(|field| !field.is_empty());
            let missing = self.columns.iter().skip(row.fields.len()).any(|name| !name.is_empty());
            // An unclosed quotation mark swallows the lines below it.
            let pad = pad && !row.fields.iter().any(|field| field.contains('\n'));
            if spare || missing && !pad {
                return Err(format!(
                    "line {} has {} fields, but the header has {width}; make them equal",
                    row.line,
                    row.fields.len()
                ));
            }
            if missing {
                short.push(row.line);
            }
            row.fields.truncate(width);
            (row.fields.len()..width).for_each(|_| row.fields.push_field(""));
        }
        self.notice = short.first().map(|line| {
            format!(
                "{} {} fields at the end, such as line {line}; those count as unknown",
                counted(short.len(), "row"),
                agree(short.len(), "lacks", "lack")
            )
        });
        Ok(())
    }

    /// Removes columns without a name and without content.
    fn remove_empty_columns(&mut self) {
        let used: Vec<bool> = (0..self.columns.len())
            .map(|c| !self.columns[c].is_empty() || self.rows.iter().any(|row| !row.fields[c].is_empty()))
            .collect();
        if used.iter().all(|&used| used) {
            return;
        }
        for row in &mut self.rows {
            row.fields =
                row.fields.iter().zip(&used).filter_map(|(field, &used)| used.then_some(field)).collect();
        }
        let mut used = used.into_iter();
        self.columns.retain(|_| used.next().unwrap_or(false));
    }
}
