//! Stop requests: Ctrl-C (SIGINT), SIGTERM from schedulers and containers, SIGHUP from a closing terminal,
//! SIGUSR1 from schedulers shortly before a time limit.
//!
//! The first request lets a run save its state. Requests are often delivered twice, for example by the
//! terminal and a wrapper, and must not count twice. Therefore only a second Ctrl-C, at least a second after
//! the first, ends the program immediately. A signal that is ignored at the start, as under `nohup`, stays
//! ignored. On systems that do not report ignored signals, SIGHUP is not handled.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
#[cfg(unix)]
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::ExitCode;
use crate::commands::tell;

static STOP: AtomicBool = AtomicBool::new(false);
/// True if requests are not reported to the user.
static QUIET: AtomicBool = AtomicBool::new(false);
/// Number of the first signal.
static SIGNAL: AtomicU8 = AtomicU8::new(INT);

/// The number of SIGINT.
const INT: u8 = 2;
/// Repetitions within this time count as the same request.
#[cfg(unix)]
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Returns the flag that the first stop request sets.
pub fn stop_flag() -> anyhow::Result<&'static AtomicBool> {
    listen().context("waiting for signals")?;
    Ok(&STOP)
}

/// Like [`stop_flag`], for a process whose requests are reported by another one.
pub fn quiet_stop_flag() -> anyhow::Result<&'static AtomicBool> {
    QUIET.store(true, Ordering::Relaxed);
    stop_flag()
}

/// The exit status of a program ended by a signal, by shell convention: 130 for Ctrl-C.
pub fn status() -> ExitCode {
    ExitCode::from(128 + SIGNAL.load(Ordering::Relaxed))
}

#[cfg(unix)]
fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

    let ignored = glowflow_web::ignored_signals();
    let signals =
        [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut interrupted: Option<Instant> = None;
        for signal in signals.forever() {
            if signal == SIGINT {
                let first = *interrupted.get_or_insert_with(Instant::now);
                if first.elapsed() >= ONE_REQUEST {
                    std::process::exit(128 + SIGINT);
                }
            }
            if !STOP.load(Ordering::Relaxed) {
                SIGNAL.store(u8::try_from(signal).unwrap_or(INT), Ordering::Relaxed);
                STOP.store(true, Ordering::Relaxed);
                if !QUIET.load(Ordering::Relaxed) {
                    tell("stopping after this step; press Ctrl-C again to stop immediately");
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(128 + i32::from(INT));
        }
        if !QUIET.load(Ordering::Relaxed) {
            tell("stopping after this step; press Ctrl-C again to stop immediately");
        }
    })
}
