//! The optimiser step for the number of parameters of Glow with K 8, L 3 and hidden 512. An item is a
//! parameter.

use divan::Bencher;
use divan::counter::ItemsCount;
use glowflow_kernels::{Cpu, Device, Primitives, RngStream, Rule, Training, Update};

/// Number of parameters.
const PARAMETERS: usize = 10_000_000;

fn main() {
    Cpu::<f32>::new().within(divan::main);
}

/// Clips the gradient, updates weights, moments and average, and zeroes the gradient.
#[divan::bench(args = [Rule::Adam, Rule::Adamax], sample_count = 20)]
fn update(bencher: Bencher, rule: Rule) {
    let cpu = Cpu::<f32>::new();
    let mut gradient = cpu.scratch(PARAMETERS);
    cpu.normal(RngStream { seed: 1, id: 0 }, 1, 1.0, &mut gradient);
    let mut weights = cpu.copied(&gradient, PARAMETERS);
    let mut ema = cpu.copied(&gradient, PARAMETERS);
    let [mut first, mut second] = [(); 2].map(|()| cpu.zeros(PARAMETERS));
    let logp = cpu.zeros(16);
    let mut count = 0;
    // An update zeroes its gradient, and the moments of zeros decay to slow, subnormal numbers.
    let gradients = || cpu.copied(&gradient, PARAMETERS);
    bencher.counter(ItemsCount::new(PARAMETERS)).with_inputs(gradients).bench_local_values(|mut gradient| {
        count += 1;
        let update = Update {
            rule,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            count,
            clip: Some(100.0),
            ema_decay: 0.999,
        };
        let training = Training {
            weights: &mut weights,
            gradient: &mut gradient,
            first: &mut first,
            second: &mut second,
            ema: &mut ema,
        };
        cpu.update(&update, &[&logp], training)
    });
}
