//! The log of a run: `metrics.jsonl`, one JSON object a line, each with a whole number `"step"`.
//!
//! A run that is killed may have logged steps after its last checkpoint, and may have been in the
//! middle of a line. Opening the log to go on from a checkpoint removes both, so that the log of a
//! resumed run is that of a run never stopped. A log that is damaged elsewhere is set aside, and its
//! sound records are kept: a log never keeps a run from going on.

use crate::{Error, file};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// One line of the log.
pub type Record = Map<String, Value>;

/// A log that is open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    set_aside: Option<PathBuf>,
}

impl MetricsLog {
    /// Starts an empty log at `path`, or goes on with the one there.
    ///
    /// With `resume_from` the step of a checkpoint, records of later steps are removed, and an unfinished one
    /// at the end; a log that is not there yet is started. If anything else is not a record, the log is [set
    /// aside](Self::set_aside). Without `resume_from`, what was there is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] or [`Error::Read`] as the system has it.
    pub fn open(path: &Path, resume_from: Option<u64>) -> Result<Self, Error> {
        let (mut kept, mut set_aside) = (String::new(), None);
        if let Some(last) = resume_from {
            match finished_lines(path) {
                Ok((lines, torn)) => {
                    let records = parse(&lines);
                    if records.iter().any(Result::is_err) || !(torn.is_empty() || torn.starts_with(b"{")) {
                        set_aside = Some(copy_aside(path)?);
                    }
                    let kept_lines = lines.iter().zip(records);
                    kept_lines
                        .filter(|(_, record)| matches!(record, Ok((step, _)) if *step <= last))
                        .for_each(|(line, _)| kept += line);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if path.is_dir() => set_aside = Some(move_aside(path)?),
                Err(error) => return Err(Error::read(path)(error)),
            }
        }
        file::replace_for_good(path, kept.as_bytes()).map_err(Error::write(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::write(path))?;
        Ok(MetricsLog { path: path.to_path_buf(), file, set_aside })
    }

    /// The file that has the contents of the log as it was found, if that was damaged.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the system refuses.
    pub fn flush(&self) -> Result<(), Error> {
        match self.file.sync_data() {
            // A log may be a pipe, which has no disk.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(Error::write(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Appends a record: anything that serialises to an object with a whole number `"step"`.
    /// Numbers that are not finite become `null`.
    ///
    /// The line is handed to the system before this returns.
    ///
    /// ```
    /// use glowflow_report::metrics::{MetricsLog, points, read};
    /// use serde_json::json;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("metrics.jsonl");
    /// let mut log = MetricsLog::open(&path, None)?;
    /// log.append(&json!({ "step": 100, "train_bits_per_dim": 3.5 }))?;
    /// log.append(&json!({ "step": 200, "train_bits_per_dim": 3.25, "test_bits_per_dim": 3.5 }))?;
    ///
    /// assert_eq!(points(&read(&path)?, "test_bits_per_dim"), [(200.0, 3.5)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if it is no such object; [`Error::Write`] if it cannot be written.
    pub fn append(&mut self, record: &impl Serialize) -> Result<(), Error> {
        let bad = |reason: String| Error::Record {
            path: self.path.clone(),
            place: "what was to be appended".into(),
            reason,
        };
        let record = serde_json::to_value(record).map_err(|error| bad(error.to_string()))?;
        let fields = record.as_object().ok_or_else(|| bad("it is no object".into()))?;
        step_of(fields).map_err(bad)?;
        // In one piece, so that a kill tears at most one line.
        let line = format!("{record}\n");
        let written = self.file.write_all(line.as_bytes());
        written.map_err(Error::write(&self.path))
    }
}

/// All records of the log at `path`, in order. An unfinished last line does not count, nor do lines at the end that are no records.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read; [`Error::Record`] if a line before a record is none.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let (lines, _) = finished_lines(path).map_err(Error::read(path))?;
    let mut records = parse(&lines);
    // A loss of power may leave anything after the last record.
    records.truncate(records.iter().rposition(Result::is_ok).map_or(0, |last| last + 1));
    let records = records.into_iter().enumerate().map(|(number, record)| match record {
        Ok((_, record)) => Ok(record),
        Err(reason) => {
            let place = format!("line {}", number + 1);
            Err(Error::Record { path: path.to_path_buf(), place, reason })
        }
    });
    records.collect()
}

/// Step and value of every record that has a number under `key`.
pub fn points(records: &[Record], key: &str) -> Vec<(f64, f64)> {
    let point = |record: &Record| {
        let step = record.get("step")?.as_f64()?;
        let value = record.get(key)?.as_f64()?;
        Some((step, value))
    };
    records.iter().filter_map(point).collect()
}

/// The lines up to the last line break, and the rest: a line that has not been written to its end, and may
/// even end in the middle of a character.
fn finished_lines(path: &Path) -> io::Result<(Vec<String>, Vec<u8>)> {
    let mut bytes = fs::read(path)?;
    let torn = bytes.split_off(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1));
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    Ok((lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect(), torn))
}

/// Step and contents of each line, or what is wrong with it.
fn parse(lines: &[String]) -> Vec<Result<(u64, Record), String>> {
    let record = |line: &String| match serde_json::from_str(line) {
        Ok(Value::Object(record)) => Ok((step_of(&record)?, record)),
        Ok(_) => Err("it is no object".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    lines.iter().map(record).collect()
}

/// Copies a damaged log to a name that is not taken.
fn copy_aside(path: &Path) -> Result<PathBuf, Error> {
    let to = free_name(path);
    fs::copy(path, &to).map_err(Error::write(&to))?;
    Ok(to)
}

/// Renames what is in the log's place to a name that is not taken.
fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let to = free_name(path);
    fs::rename(path, &to).map_err(Error::write(&to))?;
    Ok(to)
}

/// `metrics.jsonl.damaged`, or `metrics.jsonl.damaged-2` and so on if that is taken.
fn free_name(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".damaged");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        path.with_file_name(name)
    };
    (1..u32::MAX).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(1))
}

fn step_of(record: &Record) -> Result<u64, String> {
    let step = record.get("step").and_then(Value::as_u64);
    step.ok_or_else(|| "it has no whole number \"step\"".into())
}
