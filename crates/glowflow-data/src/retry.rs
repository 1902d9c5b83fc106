//! Second tries for operations that the system refused for a passing reason.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::Duration;

/// Pauses between tries, about two seconds in total.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(500),
    Duration::from_millis(1300),
];

/// Runs `operation` again after a pause while it fails with an error that may pass, up to five times
/// in total.
pub(crate) fn with_retries<T, E>(
    is_passing: impl Fn(&E) -> bool,
    operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    try_between(&PAUSES, thread::sleep, is_passing, operation)
}

fn try_between<T, E>(
    pauses: &[Duration],
    mut pause: impl FnMut(Duration),
    is_passing: impl Fn(&E) -> bool,
    mut operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for &duration in pauses {
        match operation() {
            Err(error) if is_passing(&error) => pause(duration),
            result => return result,
        }
    }
    operation()
}

/// Whether an error says nothing about the file itself: too many open files, no memory, a network
/// drive that is away, a failing disk.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    // Most of these have no `ErrorKind` of their own, so the errors that do not pass are listed.
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

    /// Fails `failures` times with `error` and then succeeds; returns the result and the number of
    /// tries.
    fn tries(failures: usize, error: impl Fn() -> io::Error) -> (io::Result<()>, usize) {
        let mut tries = 0;
        let result = try_between(
            &PAUSES,
            |_| {},
            is_passing,
            || {
                tries += 1;
                if tries > failures { Ok(()) } else { Err(error()) }
            },
        );
        (result, tries)
    }

    #[cfg(unix)]
    #[test]
    fn errors_of_the_system_are_tried_again() {
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
            assert!(is_passing(&result.unwrap_err()) && count == PAUSES.len() + 1, "error {code}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn errors_of_the_file_are_not() {
        for code in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOTDIR, libc::EISDIR, libc::ELOOP] {
            let (result, count) = tries(usize::MAX, || io::Error::from_raw_os_error(code));
            assert!(result.is_err() && count == 1, "error {code}");
        }
    }
}
