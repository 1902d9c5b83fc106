//! Choice of the device.

use glowflow::{DeviceChoice, DeviceError, Precision};

/// AMX is used on request only, and only for products of bf16.
#[test]
fn amx_is_opt_in() {
    let open = |device: &str, precision: Precision| {
        let choice: DeviceChoice = device.parse().unwrap();
        choice.open(precision, |_| ()).map(|device| device.name())
    };
    if let Ok(name) = open("cpu", Precision::Bf16) {
        assert!(!name.contains("Amx"), "{name}");
    }
    match open("cpu:amx", Precision::Bf16) {
        Ok(name) => assert!(name.contains("and Amx"), "{name}"),
        Err(DeviceError::Unavailable { reason, .. }) => assert!(reason.contains("no AMX"), "{reason}"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(open("cpu:amx", Precision::F32).unwrap(), open("cpu", Precision::F32).unwrap());
}
