//! Descriptions of errors, with the options and commands that help.

use glowflow::{DeviceError, Error};

use crate::commands::quoted;

const LESS_MEMORY: &str = "to reduce memory use, set a smaller train.batch, a larger train.accumulate, \
    train.backprop=reversible or a smaller model.hidden, or process fewer images at once";
const ANOTHER_DEVICE: &str = "--device cpu computes on the CPU, and every device supports --precision f32";

/// Describes an error in one line: its causes, and the options or the command that help.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        // The errors of the libraries contain the text of their causes.
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    let library = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    match library.and_then(remedy) {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text,
    }
}

/// Returns the options or the command that help after an error of the library.
pub fn remedy(error: &Error) -> Option<String> {
    Some(match error {
        Error::RunExists { resume: Some(run), .. } => {
            format!("to continue the run: glowflow train --resume {}", quoted(run))
        }
        // Of a run in a study.
        Error::LastCheckpoint { previous, .. } => {
            format!("continue with: glowflow train --resume {}", quoted(previous))
        }
        Error::NoData => "give --data FOLDER".into(),
        Error::NoAttributes { .. } => "give one with --labels TABLE".into(),
        Error::NoDirections { .. } => {
            "compute them with: glowflow attributes --model RUN --data FOLDER --labels TABLE".into()
        }
        _ => return None,
    })
}

/// Returns advice on an error if it was caused by a device.
pub fn on(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        let device = match cause.downcast_ref() {
            Some(Error::Device(device)) => Some(device),
            _ => cause.downcast_ref(),
        };
        match device? {
            DeviceError::OutOfMemory { .. } => Some(LESS_MEMORY),
            DeviceError::Absent { .. } | DeviceError::Unavailable { .. } => Some(ANOTHER_DEVICE),
            DeviceError::Failed { .. } => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_brings_advice() {
        let device = DeviceError::OutOfMemory { device: "gpu".into(), requested: 1 << 20, memory: None };
        for error in [anyhow::Error::from(device.clone()), Error::Device(device).into()] {
            let advice = on(&error.context("training")).unwrap();
            assert!(advice.contains("train.batch"), "{advice}");
        }
        assert!(on(&anyhow::anyhow!("another error")).is_none());
    }

    #[test]
    fn a_cause_is_described_once_and_the_remedy_follows() {
        let reason = std::io::Error::other("too many open files");
        let error = anyhow::Error::from(Error::Io { path: "a.png".into(), reason }).context("reading");
        assert_eq!(describe(&error), "reading: a.png: too many open files");
        let error =
            Error::RunExists { folder: "my run".into(), found: "config.toml", resume: Some("my run".into()) };
        let text = describe(&error.into());
        for part in ["my run already contains a run (config.toml)", "another folder", "--resume 'my run'"] {
            assert!(cfg!(windows) || text.contains(part), "{text}");
        }
    }
}
