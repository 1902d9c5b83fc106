//! The log of a run: `metrics.jsonl`, one JSON object per line, each with an integer `"step"`.
//!
//! A killed run may have logged steps after its last checkpoint, and may have left an incomplete line.
//! Resuming the log from a checkpoint removes both, so the log of a resumed run equals that of an
//! uninterrupted one. A log damaged in any other way is set aside and its intact records are kept: a damaged
//! log never prevents a run from resuming.

use crate::{Error, file};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A line of the log.
pub type Record = Map<String, Value>;

/// A log open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    set_aside: Option<PathBuf>,
}

impl MetricsLog {
    /// Starts an empty log at `path`, or resumes the existing one.
    ///
    /// With `resume_from`, the step of a checkpoint, records of later steps and an incomplete last line are
    /// removed; a missing log is created. If anything else is not a record, the log is [set
    /// aside](Self::set_aside). Without `resume_from`, existing content is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] or [`Error::Read`] from the system.
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

    /// The file with the original content of the log, if it was damaged.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Waits until all appended records are on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the system refuses.
    pub fn flush(&self) -> Result<(), Error> {
        match self.file.sync_data() {
            // A log may be a pipe, which cannot be flushed to disk.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(Error::write(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Appends a record: any value that serialises to an object with an integer `"step"`. Numbers that are
    /// not finite become `null`.
    ///
    /// The line has been written to the system when this returns.
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
    /// [`Error::Record`] if the value is not such an object; [`Error::Write`] if it cannot be written.
    pub fn append(&mut self, record: &impl Serialize) -> Result<(), Error> {
        let bad = |reason: String| Error::Record {
            path: self.path.clone(),
            place: "the new record".into(),
            reason,
        };
        let record = serde_json::to_value(record).map_err(|error| bad(error.to_string()))?;
        let fields = record.as_object().ok_or_else(|| bad("it is not an object".into()))?;
        step_of(fields).map_err(bad)?;
        // In one write, so a kill leaves at most one incomplete line.
        let line = format!("{record}\n");
        let written = self.file.write_all(line.as_bytes());
        written.map_err(Error::write(&self.path))
    }
}

/// Reads all records of the log at `path`, in order. Ignores an incomplete last line and final lines that are
/// not records.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read; [`Error::Record`] if a line before a record is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let (lines, _) = finished_lines(path).map_err(Error::read(path))?;
    let mut records = parse(&lines);
    // A power failure may leave any bytes after the last record.
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

/// Step and value of every record with a number under `key`.
pub fn points(records: &[Record], key: &str) -> Vec<(f64, f64)> {
    let point = |record: &Record| {
        let step = record.get("step")?.as_f64()?;
        let value = record.get(key)?.as_f64()?;
        Some((step, value))
    };
    records.iter().filter_map(point).collect()
}

/// The lines up to the last line break, and the rest: an incomplete line that may end in the middle of a
/// character.
fn finished_lines(path: &Path) -> io::Result<(Vec<String>, Vec<u8>)> {
    let mut bytes = fs::read(path)?;
    let torn = bytes.split_off(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1));
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    Ok((lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect(), torn))
}

/// Step and content of each line, or the problem with it.
fn parse(lines: &[String]) -> Vec<Result<(u64, Record), String>> {
    let record = |line: &String| match serde_json::from_str(line) {
        Ok(Value::Object(record)) => Ok((step_of(&record)?, record)),
        Ok(_) => Err("it is not an object".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    lines.iter().map(record).collect()
}

/// Copies a damaged log to an unused name.
fn copy_aside(path: &Path) -> Result<PathBuf, Error> {
    let to = free_name(path);
    fs::copy(path, &to).map_err(Error::write(&to))?;
    Ok(to)
}

/// Renames the file or folder at the log's path to an unused name.
fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let to = free_name(path);
    fs::rename(path, &to).map_err(Error::write(&to))?;
    Ok(to)
}

/// `metrics.jsonl.damaged`, or `metrics.jsonl.damaged-2` and so on if it exists.
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
    step.ok_or_else(|| "it has no integer \"step\"".into())
}
