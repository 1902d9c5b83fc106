//! Reads files in one pass, and again after a pause if the system fails to read them.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use crate::Error;
use crate::retry::{is_transient, with_retries};

/// An open file. It keeps its last transient error, which decoders replace by their own.
pub(crate) struct Source<R = File> {
    inner: R,
    failure: Rc<RefCell<Option<io::Error>>>,
}

/// Opens the file `path` for `work`, and again after a pause if the system fails to read it.
///
/// # Errors
/// [`Error::System`] if the system could not read the file this time, else the error of `work`.
pub(crate) fn read_file<T>(
    path: &Path,
    mut work: impl FnMut(Source) -> Result<T, Error>,
) -> Result<T, Error> {
    with_retries(Error::is_transient, || {
        let file = File::open(path).map_err(|error| Error::of_reading(path, error))?;
        watch(path, file, &mut work)
    })
}

/// Restores the system's error if `work` replaced it.
fn watch<R, T>(path: &Path, inner: R, work: impl FnOnce(Source<R>) -> Result<T, Error>) -> Result<T, Error> {
    let failure = Rc::default();
    let result = work(Source { inner, failure: Rc::clone(&failure) });
    match failure.take() {
        Some(source) if result.is_err() => Err(Error::System { path: path.to_owned(), source }),
        _ => result,
    }
}

impl Source {
    /// Length of a regular file.
    pub fn regular_len(&self) -> io::Result<Option<u64>> {
        let metadata = self.inner.metadata()?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }
}

impl<R> Source<R> {
    fn watched<T>(&mut self, work: impl FnOnce(&mut R) -> io::Result<T>) -> io::Result<T> {
        work(&mut self.inner).inspect_err(|error| {
            // Readers retry an interrupted read themselves.
            if is_transient(error) && error.kind() != io::ErrorKind::Interrupted {
                let copy = match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(error.kind(), error.to_string()),
                };
                self.failure.replace(Some(copy));
            }
        })
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watched(|inner| inner.read(buffer))
    }
}

impl<R: Seek> Seek for Source<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.watched(|inner| inner.seek(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that fails with an error of this kind.
    struct Failing(io::ErrorKind);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    /// Reads like a decoder, which reports that a file is damaged.
    fn decoded(kind: io::ErrorKind) -> Error {
        let damaged =
            |_| Error::Malformed { path: "x.npy".into(), problem: "damaged; fetch it again".into() };
        let work = |mut file: Source<Failing>| file.read_exact(&mut [0; 4]).map_err(damaged);
        watch(Path::new("x.npy"), Failing(kind), work).unwrap_err()
    }

    #[test]
    fn system_errors_do_not_mean_damage() {
        let error = decoded(io::ErrorKind::TimedOut);
        assert!(matches!(error, Error::System { .. }) && error.to_string().contains("x.npy"), "{error}");
        assert!(matches!(decoded(io::ErrorKind::InvalidData), Error::Malformed { .. }));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_file(Path::new("missing.npy"), |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}
