//! Logs scalars and images for TensorBoard.
//!
//! An event file is a sequence of records in TFRecord framing:
//!
//! | bytes | content                               |
//! |-------|---------------------------------------|
//! | 8     | length of the message, little-endian  |
//! | 4     | masked CRC-32C of those eight bytes   |
//! | n     | an `Event` message (Protocol Buffers) |
//! | 4     | masked CRC-32C of the message         |
//!
//! The messages below are the subset of TensorFlow's `event.proto` and `summary.proto` in use, with the
//! original names and field numbers.

use crate::{Error, picture};
use image::RgbImage;
use prost::{Message, Oneof};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

/// An event file open for appending.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Starts a new event file in `folder`, which is created if necessary. TensorBoard reads the files of a
    /// folder in sequence, as one run.
    ///
    /// With `resume_from`, the step of a checkpoint, TensorBoard discards later steps from earlier files.
    ///
    /// ```
    /// use glowflow_report::events::EventLog;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let mut log = EventLog::create(folder.path(), None)?;
    /// log.scalar("bits_per_dim/train", 3.41, 100)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the folder or the file cannot be created.
    pub fn create(folder: &Path, resume_from: Option<u64>) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        let path = folder.join(next_name(folder));
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(Error::write(&path))?;
        let mut log = EventLog { path, file };
        log.append(0, What::FileVersion("brain.Event:2".into()))?;
        if let Some(step) = resume_from {
            let status = SessionLog::START;
            log.append(step + 1, What::SessionLog(SessionLog { status }))?;
        }
        Ok(log)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Logs a scalar. Tags with the same part before a `/` are grouped.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if it cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f32, step: u64) -> Result<(), Error> {
        self.summary(tag, step, Kind::SimpleValue(value))
    }

    /// Logs an image.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if it cannot be written; [`Error::Draw`] if it has no pixels.
    pub fn picture(&mut self, tag: &str, picture: &RgbImage, step: u64) -> Result<(), Error> {
        let png = picture::encode(picture)
            .map_err(|error| Error::Draw { path: self.path.clone(), reason: error.to_string() })?;
        let image = Image {
            height: picture.height() as i32,
            width: picture.width() as i32,
            colorspace: Image::RGB,
            encoded_image_string: png,
        };
        self.summary(tag, step, Kind::Image(image))
    }

    fn summary(&mut self, tag: &str, step: u64, kind: Kind) -> Result<(), Error> {
        let value = SummaryValue { tag: tag.into(), kind: Some(kind) };
        self.append(step, What::Summary(Summary { value: vec![value] }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<(), Error> {
        let event = Event { wall_time: since_epoch().as_secs_f64(), step: step as i64, what: Some(what) };
        let record = framed(&event.encode_to_vec());
        let written = self.file.write_all(&record);
        written.map_err(Error::write(&self.path))
    }
}

/// The part of a file name by which TensorBoard recognises event files.
const PREFIX: &str = "events.out.tfevents.";
/// Digits of a time in nanoseconds since 1970, from 2001 to 2286.
const DIGITS: usize = 19;

/// The name of a new event file. TensorBoard reads files in the order of their names, and each file discards
/// later steps of the preceding ones. The name therefore sorts after all existing ones, even if the clock
/// went back.
fn next_name(folder: &Path) -> String {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let last = files.filter_map(|file| time_of(file.file_name().to_str()?)).max();
    let now = u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX);
    let time = last.map_or(now, |last| now.max(last.saturating_add(1)));
    format!("{PREFIX}{time:0DIGITS$}.{}.glowflow", process::id())
}

/// The time in an event file's name, on a scale on which numbers compare as the names do: other programs
/// write seconds, and a short number sorts as if zeros followed it.
fn time_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).take(DIGITS).collect();
    format!("{digits:0<DIGITS$}").parse().ok()
}

/// A clock set before 1970 counts as 1970.
fn since_epoch() -> std::time::Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

/// CRC-32C in TFRecord's masked form: rotated and offset, because the CRC of data that contains its own CRC
/// is a weak check.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = 1)]
    wall_time: f64,
    #[prost(int64, tag = 2)]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Oneof)]
enum What {
    #[prost(string, tag = 3)]
    FileVersion(String),
    #[prost(message, tag = 5)]
    Summary(Summary),
    #[prost(message, tag = 7)]
    SessionLog(SessionLog),
}

#[derive(Message)]
struct SessionLog {
    #[prost(int32, tag = 1)]
    status: i32,
}

impl SessionLog {
    const START: i32 = 1;
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = 1)]
    value: Vec<SummaryValue>,
}

#[derive(Message)]
struct SummaryValue {
    #[prost(string, tag = 1)]
    tag: String,
    #[prost(oneof = "Kind", tags = "2, 4")]
    kind: Option<Kind>,
}

#[derive(Oneof)]
enum Kind {
    #[prost(float, tag = 2)]
    SimpleValue(f32),
    #[prost(message, tag = 4)]
    Image(Image),
}

#[derive(Message)]
struct Image {
    #[prost(int32, tag = 1)]
    height: i32,
    #[prost(int32, tag = 2)]
    width: i32,
    #[prost(int32, tag = 3)]
    colorspace: i32,
    #[prost(bytes = "vec", tag = 4)]
    encoded_image_string: Vec<u8>,
}

impl Image {
    const RGB: i32 = 3;
}
