//! Advice on options that help after a device error.

use glowflow::{DeviceError, Error};

const LESS_MEMORY: &str = "to reduce memory use, set a smaller train.batch, a larger train.accumulate, \
    train.backprop=reversible or a smaller model.hidden, or process fewer images at once";
const ANOTHER_DEVICE: &str = "--device cpu computes on the CPU, and every device supports --precision f32";

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
}
