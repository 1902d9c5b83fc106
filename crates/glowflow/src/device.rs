//! The devices that programs choose from when they start.

use std::str::FromStr;

use glowflow_kernels::{Cpu, Cuda, Device, DeviceError};

use crate::Precision;

/// A device of any kind. Code generic in [`Device`] is entered by one `match` on it.
#[derive(Clone, Debug)]
pub enum AnyDevice {
    /// The processor.
    Cpu(Cpu<f32>),
    /// An NVIDIA GPU.
    Cuda(Cuda),
}

/// Evaluates an expression with the device that an [`AnyDevice`] holds.
macro_rules! on_device {
    ($any:expr, $device:ident => $call:expr) => {
        match $any {
            $crate::AnyDevice::Cpu($device) => $call,
            $crate::AnyDevice::Cuda($device) => $call,
        }
    };
}
pub(crate) use on_device;

impl AnyDevice {
    /// Name of the device in reports.
    pub fn name(&self) -> String {
        on_device!(self, device => device.name())
    }

    /// The most bytes of its own memory that the device has used at once; `None` if it has no memory of its own.
    pub fn peak_memory(&self) -> Option<u64> {
        on_device!(self, device => device.peak_memory())
    }
}

impl From<Cpu<f32>> for AnyDevice {
    fn from(device: Cpu<f32>) -> Self {
        Self::Cpu(device)
    }
}

impl From<Cuda> for AnyDevice {
    fn from(device: Cuda) -> Self {
        Self::Cuda(device)
    }
}

/// A device, as a user names it: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// ```
/// use glowflow::{DeviceChoice, Precision};
///
/// let choice: DeviceChoice = "cpu".parse().unwrap();
/// println!("computing on {:?}", choice.open(Precision::F32, |_| ())?);
/// assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("cuda:0"));
/// # Ok::<(), glowflow::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, if there is one that works, and otherwise the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Self::Cuda(index)),
                _ => Err(format!("{text:?} is no device: auto, cpu, or cuda:0, cuda:1 and so on")),
            },
        }
    }
}

impl DeviceChoice {
    /// The choice for process `number` of several on a host: for [`Auto`](Self::Auto), processes take the GPUs
    /// in turn.
    #[must_use]
    pub fn for_process(self, number: usize) -> Self {
        match self {
            Self::Auto => match Cuda::count() {
                Ok(count) if count > 0 => Self::Cuda(number % count),
                _ => Self::Auto,
            },
            choice => choice,
        }
    }

    /// Opens the device. `warn` is told why there is a GPU that [`Auto`](Self::Auto) cannot use.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] or [`DeviceError::Unavailable`] where a device that was asked for is not there, or does not have
    /// the precision.
    pub fn open(
        self,
        precision: Precision,
        warn: impl FnOnce(&DeviceError),
    ) -> Result<AnyDevice, DeviceError> {
        match self {
            Self::Cpu => Ok(AnyDevice::Cpu(precision.cpu()?)),
            Self::Cuda(index) => Ok(AnyDevice::Cuda(precision.cuda(index)?)),
            Self::Auto => match precision.cuda(0) {
                Ok(gpu) => Ok(AnyDevice::Cuda(gpu)),
                Err(error) => {
                    if !matches!(error, DeviceError::Absent { .. }) {
                        warn(&error);
                    }
                    Ok(AnyDevice::Cpu(precision.cpu()?))
                }
            },
        }
    }
}
