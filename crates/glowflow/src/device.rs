//! Devices, chosen at startup.

use std::fmt;
use std::str::FromStr;

use glowflow_kernels::cuda::Tuning;
use glowflow_kernels::{Cpu, Cuda, Device, DeviceError};

use crate::Precision;

/// A device of any type. Code generic in [`Device`] is entered through one `match` on it.
#[derive(Clone, Debug)]
pub enum AnyDevice {
    /// The CPU.
    Cpu(Cpu<f32>),
    /// An NVIDIA GPU.
    Cuda(Cuda),
}

/// Evaluates an expression with the device in an [`AnyDevice`].
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

    /// Peak use of the device's own memory, in bytes; `None` if it has none.
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

/// A device as specified by a user: `auto`, `cpu`, `cpu:amx`, `cuda` or `cuda:N`.
///
/// ```
/// use glowflow::{DeviceChoice, Precision};
///
/// let choice: DeviceChoice = "cpu".parse().unwrap();
/// println!("computing on {:?}", choice.open(Precision::F32, |_| ())?);
/// assert_eq!(choice.to_string(), "cpu");
/// assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("cuda:0"));
/// # Ok::<(), glowflow::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first working GPU, or the CPU without one.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CPU, with AMX for products of bf16.
    CpuWithAmx,
    /// The NVIDIA GPU with this index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cpu:amx" => Ok(Self::CpuWithAmx),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Self::Cuda(index)),
                _ => Err(format!(
                    "unknown device {text:?}, expected auto, cpu, cpu:amx, or cuda:0, cuda:1 and so on"
                )),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::CpuWithAmx => f.write_str("cpu:amx"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// The choice for process `number` of several on a host: for [`Auto`](Self::Auto), the processes are
    /// assigned to the GPUs in round-robin order.
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

    /// Opens the device. `warn` receives the reason why [`Auto`](Self::Auto) cannot use an existing GPU.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] or [`DeviceError::Unavailable`] if the requested device is missing or does not
    /// support the precision.
    pub fn open(
        self,
        precision: Precision,
        warn: impl FnOnce(&DeviceError),
    ) -> Result<AnyDevice, DeviceError> {
        self.open_tuned(precision, Tuning::default(), warn)
    }

    /// Like [`open`](Self::open), with settings of GPUs for experiments on speed.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_tuned(
        self,
        precision: Precision,
        tuning: Tuning,
        warn: impl FnOnce(&DeviceError),
    ) -> Result<AnyDevice, DeviceError> {
        match self {
            Self::CpuWithAmx if precision == Precision::Bf16 => Ok(AnyDevice::Cpu(Cpu::with_amx()?)),
            Self::Cpu | Self::CpuWithAmx => Ok(AnyDevice::Cpu(Cpu::with_precision(precision)?)),
            Self::Cuda(index) => Ok(AnyDevice::Cuda(Cuda::with_tuning(index, precision, &[], tuning)?)),
            Self::Auto => match Cuda::with_tuning(0, precision, &[], tuning) {
                Ok(gpu) => Ok(AnyDevice::Cuda(gpu)),
                Err(error) => {
                    if !matches!(error, DeviceError::Absent { .. }) {
                        warn(&error);
                    }
                    Ok(AnyDevice::Cpu(Cpu::with_precision(precision)?))
                }
            },
        }
    }
}
