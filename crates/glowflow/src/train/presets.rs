//! Presets: the published settings of Glow (openai/glow and Kingma and Dhariwal 2018, appendix), RealNVP
//! (Dinh, Sohl-Dickstein and Bengio 2016, section 4.1, and the authors' program) and NICE (Dinh, Krueger and
//! Bengio 2014, section 5.1), and small models for CPUs.

use crate::Error;

/// A preset and its TOML.
struct Preset {
    name: &'static str,
    toml: &'static str,
}

/// A published warm-up is ten epochs of 50,000 images, and `beta2` is `1 − 1/(steps per epoch)`.
///
/// The small models of Glow have what pays at equal time (`docs/likelihood.md`): rates above the published 0.001,
/// Muon, and the bounded scale. The last two lower the bits/dim of test images after equal numbers of steps:
///
/// | preset | data | steps | bits/dim without | with both |
/// | --- | --- | ---: | ---: | ---: |
/// | `tiny32` | portraits | 2,000 | 1.093 | 0.997 |
/// | `faces32` | 8,550 CelebA photographs | 1,500 | 1.851 | 1.799 |
/// | `faces64` | the same | 600 | 1.593 | 1.517 |
const PRESETS: [Preset; 17] = [
    Preset {
        name: "cifar10",
        toml: "
            model = { image = [32, 32, 3], levels = 3, steps = 32, hidden = 512 }
            train = { batch = 512, warmup = 980, beta2 = 0.9898 }
            data = { shift = 0.1 }",
    },
    Preset {
        name: "imagenet32",
        toml: "
            model = { image = [32, 32, 3], levels = 3, steps = 48, hidden = 512 }
            train = { batch = 512, warmup = 980, beta2 = 0.9898 }",
    },
    Preset {
        name: "imagenet64",
        toml: "
            model = { image = [64, 64, 3], levels = 4, steps = 48, hidden = 512 }
            train = { batch = 128, warmup = 3910, beta2 = 0.99744 }",
    },
    Preset {
        name: "lsun64",
        toml: "
            model = { image = [64, 64, 3], levels = 3, steps = 48, hidden = 512 }
            train = { batch = 128, warmup = 3910, beta2 = 0.99744 }",
    },
    Preset {
        name: "celebahq256",
        toml: "
            model = { image = [256, 256, 3], bits = 5, levels = 6, steps = 32, hidden = 512, coupling = 'additive' }
            train = { batch = 40, warmup = 12500, beta2 = 0.9992 }",
    },
    Preset {
        name: "lsun128",
        toml: "
            model = { image = [128, 128, 3], bits = 5, levels = 5, steps = 64, hidden = 512, coupling = 'additive' }
            train = { batch = 160, warmup = 3130, beta2 = 0.9968 }",
    },
    Preset {
        name: "tiny32",
        toml: "
            model = { image = [32, 32, 3], bits = 5, levels = 3, steps = 4, hidden = 64, scale = 'exp2tanh' }
            train = { batch = 32, lr = 8e-3, muon = true, backprop = 'stored' }",
    },
    Preset {
        name: "faces32",
        toml: "
            model = { image = [32, 32, 3], bits = 5, levels = 3, steps = 8, hidden = 128, scale = 'exp2tanh' }
            train = { batch = 32, lr = 4e-3, muon = true, backprop = 'stored' }
            data = { flip = true }",
    },
    Preset {
        name: "faces64",
        toml: "
            model = { image = [64, 64, 3], bits = 5, levels = 4, steps = 8, hidden = 128, scale = 'exp2tanh' }
            train = { batch = 16, lr = 4e-3, muon = true, backprop = 'stored' }
            data = { flip = true }",
    },
    Preset {
        name: "realnvp-cifar10",
        toml: "
            model = { architecture = 'realnvp', image = [32, 32, 3], levels = 2, blocks = 8, hidden = 64 }
            data = { flip = true }",
    },
    Preset {
        name: "realnvp-imagenet32",
        toml: "model = { architecture = 'realnvp', image = [32, 32, 3], levels = 4, blocks = 4, hidden = 32 }",
    },
    Preset {
        name: "realnvp-celeba64",
        toml: "
            model = { architecture = 'realnvp', image = [64, 64, 3], levels = 5, blocks = 2, hidden = 32 }
            data = { flip = true }",
    },
    Preset {
        name: "realnvp-tiny32",
        toml: "
            model = { architecture = 'realnvp', image = [32, 32, 3], bits = 5, levels = 3, blocks = 1, hidden = 16 }
            train = { batch = 32, backprop = 'stored' }",
    },
    Preset {
        name: "nice-mnist",
        toml: "model = { architecture = 'nice', image = [28, 28, 1], couplings = 4, layers = 5, hidden = 1000 }",
    },
    Preset {
        name: "nice-cifar10",
        toml: "model = { architecture = 'nice', image = [32, 32, 3], couplings = 4, layers = 4, hidden = 2000 }",
    },
    Preset {
        name: "nice-svhn",
        toml: "model = { architecture = 'nice', image = [32, 32, 3], couplings = 4, layers = 4, hidden = 2000 }",
    },
    Preset {
        name: "nice-tiny32",
        toml: "
            model = { architecture = 'nice', image = [32, 32, 3], bits = 5, couplings = 4, layers = 3, hidden = 256 }
            train = { batch = 64, backprop = 'stored' }",
    },
];

/// Names of all presets.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// The part of a configuration that a preset sets.
pub fn preset(name: &str) -> Result<toml::Table, Error> {
    let preset = PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        Error::Config(format!("unknown preset {name:?}, expected one of {}", names().join(", ")))
    })?;
    preset.toml.parse().map_err(|e| Error::Config(format!("preset {name}: {e}")))
}
