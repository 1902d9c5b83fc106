//! Test that the memory of a reversible training step of RealNVP does not grow with the number of couplings.
#![cfg(target_os = "linux")]

use std::process::Command;

use glowflow::flow::{Base, FactorRest, FlowBuilder, Logit, Mask, MaskedCoupling};
use glowflow::train::{DataConfig, RunConfig, TrainConfig, Trainer};
use glowflow::{Architecture, Backprop, Error, Primitives};
use glowflow_kernels::Cpu;
use serde::{Deserialize, Serialize};

/// RealNVP's last level with any number of couplings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chain {
    couplings: usize,
}

impl Architecture for Chain {
    fn image(&self) -> [usize; 3] {
        [32, 32, 3]
    }

    fn bits(&self) -> u32 {
        8
    }

    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }

    fn build<D: Primitives>(&self, flow: &mut FlowBuilder<'_, D>) {
        flow.push("logit", Logit);
        for k in 0..self.couplings {
            flow.push_with(format!("couplings.{k}"), |p, shape| {
                MaskedCoupling::new(p, shape.channels, 16, 2, Mask::Checkerboard { parity: k % 2 })
            });
        }
        flow.push("latents", FactorRest(Base::Normal));
    }

    fn set_channels(&mut self, _: usize) {}
}

/// Environment variable for the training process: the number of couplings, and whether their activations are
/// stored.
const COUPLINGS: &str = "GLOWFLOW_TEST_COUPLINGS";
const STORED: &str = "GLOWFLOW_TEST_STORED";

/// Peak memory of a process that performs two training steps, minus weights, gradient, moments and average.
fn memory_of(couplings: usize, stored: bool) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "trains", "--ignored", "--nocapture"]).env(COUPLINGS, couplings.to_string());
    // Freed memory is returned to the system immediately, so that the peak equals the memory in use.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072").env("RAYON_NUM_THREADS", "2");
    if stored {
        command.env(STORED, "");
    }
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let line = printed.lines().find_map(|line| line.split_once("bytes: "));
    line.unwrap_or_else(|| panic!("{printed}{}", String::from_utf8_lossy(&output.stderr))).1.parse().unwrap()
}

#[test]
#[ignore = "runs in the processes of the other test"]
fn trains() {
    let Ok(couplings) = std::env::var(COUPLINGS) else { return };
    let backprop = if std::env::var_os(STORED).is_some() { Backprop::Stored } else { Backprop::Reversible };
    let model = Chain { couplings: couplings.parse().unwrap() };
    let train = TrainConfig { batch: 16, backprop, ..TrainConfig::default() };
    let config = RunConfig { model, train, data: DataConfig::default() };
    let mut trainer = Trainer::new(Cpu::<f32>::new(), config).unwrap();
    let pixels: Vec<u8> = (0..16 * 32 * 32 * 3).map(|i| (i * 7 % 256) as u8).collect();
    trainer.initialize(&pixels, &[]).unwrap();
    for _ in 0..2 {
        trainer.step(&pixels, &[]).unwrap();
    }
    let state = 5 * 4 * trainer.layout().len();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("bytes: {}", 1024 * peak - state);
}

#[test]
fn reversible_couplings_take_no_more_memory_for_a_deep_flow() {
    let [few, many] = [4, 24].map(|couplings| memory_of(couplings, false));
    assert!(many < 1.1 * few, "{many} bytes for 24 couplings, {few} for 4");
    // Check that the measurement detects growth.
    let stored = memory_of(24, true);
    assert!(stored > 3.0 * many, "{stored} bytes stored, {many} reversible");
}
