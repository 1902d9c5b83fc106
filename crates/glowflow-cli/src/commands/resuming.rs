//! The command that continues a run, printed when it ends early.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use glowflow::Error;
use glowflow::train::{self, CONFIG, Limits, RunConfig, checkpoint};

use super::{quoted, tell};
use crate::{ExitCode, args, signals};

/// The command that continues a run, on the device that was given.
pub fn resume_command(run: &Path, common: &args::Common) -> String {
    format!("glowflow train --resume {}{}", quoted(run), device_option(common))
}

/// The device that was given, as an option after a command.
pub fn device_option(common: &args::Common) -> String {
    common.device.map_or(String::new(), |device| format!(" --device {device}"))
}

/// The given limits as options of the command that continues a run, less the minutes that it was trained for.
/// Steps and images count from the start of the run.
pub fn limit_options(limits: Limits, trained_for: Duration) -> String {
    let minutes = limits.minutes.map(|minutes| minutes - trained_for.as_secs_f64() / 60.0);
    let options = [
        ("steps", limits.steps.map(|steps| steps.to_string())),
        ("images", limits.images.map(|images| images.to_string())),
        (
            "minutes",
            minutes.filter(|minutes| minutes.is_finite()).map(|minutes| format!("{:.1}", minutes.max(0.0))),
        ),
    ];
    let given = options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?)));
    given.collect()
}

/// The exit status of a run that ended before its first step or with an error, and the command to continue.
pub fn failed(error: Error, run: &Path, common: &args::Common, limits: Limits) -> anyhow::Result<ExitCode> {
    let saved = checkpoint::find(train::run_folder(run)).is_some();
    let resume = |path: &Path, change: &str| {
        format!("{}{change}{}", resume_command(path, common), limit_options(limits, Duration::ZERO))
    };
    match error {
        Error::RunDiverged { resume: ref path, .. } => {
            Err(anyhow!("{error}; try again with: {}", resume(path, " --set train.lr=RATE")))
        }
        Error::LastCheckpoint { ref previous, .. } => {
            Err(anyhow!("{error}; continue with: {}", resume(previous, "")))
        }
        Error::Stopped => {
            tell("stopped before training began; nothing was changed");
            Ok(signals::status())
        }
        Error::Data(glowflow_data::Error::System { .. }) | Error::Ranks(_) if saved => {
            Err(anyhow!("{error}; continue with: {}", resume(run, "")))
        }
        Error::Data(glowflow_data::Error::Read { ref path, .. }) if saved && is_data_of(path, run) => {
            Err(anyhow!("{error}; if the images were moved: {}", resume(run, " --data FOLDER")))
        }
        error => Err(error.into()),
    }
}

/// Returns whether a path is that of the run's images.
fn is_data_of(path: &Path, run: &Path) -> bool {
    let config = RunConfig::read(&train::run_folder(run).join(CONFIG));
    config.is_ok_and(|config| config.data.path.as_deref() == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minutes_of_training_count() {
        let options = |minutes, trained_for: u64| {
            let limits = Limits { steps: Some(9), minutes: Some(minutes), ..Limits::default() };
            limit_options(limits, Duration::from_secs(60 * trained_for))
        };
        assert_eq!(options(60.0, 20), " --steps 9 --minutes 40.0");
        assert_eq!(options(1.0, 2), " --steps 9 --minutes 0.0");
        assert_eq!(options(f64::INFINITY, 2), " --steps 9");
    }
}
