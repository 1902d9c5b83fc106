//! Retries of operations that failed for a transient reason.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::Duration;

/// Pauses between attempts, about two seconds in total.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(500),
    Duration::from_millis(1300),
];

/// Runs `operation` and repeats it after a pause if it fails with an error that may be transient, up to five
/// attempts in total.
pub(crate) fn with_retries<T, E>(
    is_transient: impl Fn(&E) -> bool,
    operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    try_between(&PAUSES, thread::sleep, is_transient, operation)
}

fn try_between<T, E>(
    pauses: &[Duration],
    mut pause: impl FnMut(Duration),
    is_transient: impl Fn(&E) -> bool,
    mut operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for &duration in pauses {
        match operation() {
            Err(error) if is_transient(&error) => pause(duration),
            result => return result,
        }
    }
    operation()
}

/// Returns whether an error is unrelated to the file itself: too many open files, out of memory, a network
/// drive that is unavailable, a failing disk.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    // Most transient errors have no specific `ErrorKind`, so the permanent ones are listed.
    let lasting = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename
            | ErrorKind::UnexpectedEof
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::FileTooLarge
            | ErrorKind::Unsupported
    );
    !(lasting || is_link_loop(error))
}

#[cfg(unix)]
fn is_link_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

#[cfg(not(unix))]
fn is_link_loop(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails `failures` times with `error` and then succeeds; returns the result and the number of attempts.
    fn tries(failures: usize, error: impl Fn() -> io::Error) -> (io::Result<()>, usize) {
        let mut tries = 0;
        let result = try_between(
            &PAUSES,
            |_| {},
            is_transient,
            || {
                tries += 1;
                if tries > failures { Ok(()) } else { Err(error()) }
            },
        );
        (result, tries)
    }

    #[cfg(unix)]
    #[test]
    fn system_errors_are_retried() {
        let passing = [
            libc::EMFILE,
            libc::ENFILE,
            libc::EIO,
            libc::ESTALE,
            libc::ENOMEM,
            libc::EINTR,
            libc::EAGAIN,
            libc::ETIMEDOUT,
            libc::ENOTCONN,
            libc::ENETDOWN,
            libc::EHOSTDOWN,
        ];
        for code in passing {
            let (result, count) = tries(3, || io::Error::from_raw_os_error(code));
            assert!(result.is_ok() && count == 4, "error {code}");
            let (result, count) = tries(usize::MAX, || io::Error::from_raw_os_error(code));
            assert!(is_transient(&result.unwrap_err()) && count == PAUSES.len() + 1, "error {code}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn file_errors_are_not_retried() {
        for code in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOTDIR, libc::EISDIR, libc::ELOOP] {
            let (result, count) = tries(usize::MAX, || io::Error::from_raw_os_error(code));
            assert!(result.is_err() && count == 1, "error {code}");
        }
    }
}
