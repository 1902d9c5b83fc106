//! Variants of models that the checkpoints lack, made from them.

mod common;

use std::f64::consts::LN_2;
use std::path::Path;

use common::torch::{self, Type};
use common::{Npy, Run, State, error, fixture, imported, settings, state};
use glowflow::params::Constant;
use glowflow::{PermutationType, PriorType};
use glowflow_import::{Checkpoint, Error, Imported, Setting, Settings, Source, import};
use glowflow_kernels::Cpu;
use zip::CompressionMethod;

/// Imports a state dictionary that was saved in double precision.
fn import_state(state: &State, source: Source, settings: &Settings) -> Result<Imported, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.npz");
    let bytes = match source {
        Source::Openai => torch::npz(state, CompressionMethod::Stored),
        _ => torch::parameters(state, Type::F64),
    };
    std::fs::write(&path, bytes).unwrap();
    import(Checkpoint::read(&path).unwrap(), source, settings)
}

fn same_model(have: &Imported, want: &Imported, tolerance: f64) {
    let cpu = Cpu::<f64>::new();
    let pixels: Vec<u8> = (0..2 * 16 * 16 * 3_usize).map(|i| (i * i % 253) as u8).collect();
    let noise = vec![0.5 / 256.0; pixels.len()];
    let labels = if want.config.classes > 0 { vec![1.0, 0.0] } else { vec![] };
    let [have, want] = [have, want].map(|imported| Run::new(&cpu, imported).encode(&pixels, &labels, &noise));
    let error_of = error(&have.log_likelihood, &want.log_likelihood);
    assert!(error_of < tolerance, "log-likelihood {error_of:e}");
    for (have, want) in have.eps.iter().zip(&want.eps) {
        assert!(error(have, want) < tolerance);
    }
}

fn weights(folder: &Path) -> State {
    let mut state = state(&folder.join("weights.safetensors"));
    state.retain(|name, _| !name.ends_with("initialized"));
    state
}

/// Names of tensors that end so, without this end.
fn places(state: &State, end: &str) -> Vec<String> {
    state.keys().filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect()
}

/// `P·L·U` in C order.
fn product(p: &[f64], lower: &[f64], upper: &[f64], sign: &[f64], log_s: &[f64]) -> Vec<f64> {
    let n = sign.len();
    let l = |i: usize, k: usize| if k < i { lower[i * n + k] } else { f64::from(k == i) };
    let u = |k: usize, j: usize| match k {
        _ if k < j => upper[k * n + j],
        _ if k == j => sign[j] * log_s[j].exp(),
        _ => 0.0,
    };
    let entry = |i: usize, j: usize| {
        let row = (0..n).find(|&row| p[i * n + row] == 1.0).unwrap();
        (0..n).map(|k| l(row, k) * u(k, j)).sum()
    };
    (0..n * n).map(|at| entry(at / n, at % n)).collect()
}

#[test]
fn negative_scales_become_a_part_of_the_convolution() {
    let Some(folder) = fixture("rosinality/affine_lu") else { return };
    let lu = weights(&folder);
    let settings = settings(Source::Rosinality);
    let want = import_state(&lu, Source::Rosinality, &settings).unwrap();
    // The sign of every third channel moves from the convolution to the scale.
    let mut negative = lu.clone();
    for at in places(&lu, "actnorm.scale") {
        let flip = |channel: usize| channel.is_multiple_of(3);
        let scale = &mut negative.get_mut(&format!("{at}actnorm.scale")).unwrap().1;
        let n = scale.len();
        scale.iter_mut().enumerate().filter(|(c, _)| flip(*c)).for_each(|(_, x)| *x = -*x);
        for name in ["w_u", "s_sign"] {
            let tensor = &mut negative.get_mut(&format!("{at}invconv.{name}")).unwrap().1;
            tensor.iter_mut().enumerate().filter(|(i, _)| flip(i % n)).for_each(|(_, x)| *x = -*x);
        }
    }
    let have = import_state(&negative, Source::Rosinality, &settings).unwrap();
    assert_eq!((&have.weights, &have.constants), (&want.weights, &want.constants));

    // The same with plain matrices.
    let mut plain = negative.clone();
    for at in places(&negative, "invconv.w_p") {
        let part = |name: &str| negative[&format!("{at}invconv.{name}")].1.clone();
        let matrix = product(&part("w_p"), &part("w_l"), &part("w_u"), &part("s_sign"), &part("w_s"));
        let n = part("w_s").len();
        plain.retain(|name, _| !name.starts_with(&format!("{at}invconv.")));
        plain.insert(format!("{at}invconv.weight"), (vec![n, n, 1, 1], matrix));
    }
    same_model(&import_state(&plain, Source::Rosinality, &settings).unwrap(), &want, 1e-9);
}

#[test]
fn a_scale_of_0_and_a_singular_matrix_are_errors() {
    let Some(folder) = fixture("rosinality/affine_lu") else { return };
    let mut state = weights(&folder);
    let name = places(&state, "actnorm.scale")[0].clone() + "actnorm.scale";
    state.get_mut(&name).unwrap().1[2] = 0.0;
    let error = import_state(&state, Source::Rosinality, &settings(Source::Rosinality)).unwrap_err();
    assert!(error.to_string().contains("actnorm.scale holds 0"), "{error}");

    let Some(folder) = fixture("y0ast/additive_plain_ycond") else { return };
    let mut state = weights(&folder);
    state.get_mut("flow.layers.1.invconv.weight").unwrap().1.fill(0.0);
    let error = import_state(&state, Source::Y0ast, &Settings::default()).unwrap_err();
    assert!(error.to_string().contains("singular"), "{error}");
}

#[test]
fn a_top_that_is_not_learned_is_standard() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    state.retain(|name, _| !name.starts_with("learn_top_fn."));
    let have = import_state(&state, Source::Y0ast, &Settings::default()).unwrap();
    let top = have.layout().parameters.into_iter().filter(|parameter| parameter.name.starts_with("prior."));
    let top: Vec<_> = top.collect();
    assert_eq!(top.len(), 2);
    assert!(top.iter().all(|parameter| have.weights[parameter.span.range()].iter().all(|&x| x == 0.0)));
}

/// A constant that is not 0, which the program allows and never writes: its convolution differs at the border.
#[test]
fn a_constant_input_of_the_top_prior_counts() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    let (shape, h) = state.get_mut("prior_h").unwrap();
    let (channels, pixels) = (shape[1], shape[2] * shape[3]);
    h.iter_mut().enumerate().for_each(|(i, h)| *h = ((i / pixels) as f64 * 0.37).sin());
    let h: Vec<f64> = h.iter().step_by(pixels).copied().collect();
    let have = import_state(&state, Source::Y0ast, &Settings::default()).unwrap();
    assert_eq!(have.config.prior, PriorType::Edge);
    // The mean at the first pixel of 2×2: taps 4, 5, 7 and 8 lie inside.
    let (weight, bias) = (&state["learn_top_fn.conv.weight"].1, &state["learn_top_fn.conv.bias"].1);
    let logs = &state["learn_top_fn.logs"].1;
    let tensor = |name: &str| {
        let parameter = have.layout().parameters.into_iter().find(|p| p.name == name).unwrap();
        have.weights[parameter.span.range()].to_vec()
    };
    let (mean, edge) = (tensor("prior.mean"), tensor("prior.edge"));
    for o in 0..channels / 2 {
        let inside = |k: &usize| [4, 5, 7, 8].contains(k);
        let product = |i: usize| -> f64 {
            (0..9).filter(inside).map(|k| weight[(o * channels + i) * 9 + k] * h[i]).sum()
        };
        let want = (bias[o] + (0..channels).map(product).sum::<f64>()) * (3.0 * logs[o]).exp();
        let have = mean[o] + (0..9).filter(|k| !inside(k)).map(|k| edge[o * 9 + k]).sum::<f64>();
        assert!((have - want).abs() < 1e-12, "{o}: {have} {want}");
    }
}

#[test]
fn fixed_permutations_are_asked_for() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    state.retain(|name, _| !name.contains("invconv"));
    let with =
        |permutation| import_state(&state, Source::Y0ast, &Settings { permutation, ..Settings::default() });
    assert!(matches!(with(None), Err(Error::Missing(settings)) if settings == [Setting::Permutation]));
    assert!(with(Some(PermutationType::Shuffle)).unwrap_err().to_string().contains("cannot be restored"));
    let reverse = with(Some(PermutationType::Reverse)).unwrap();
    assert_eq!(reverse.config.permutation, PermutationType::Reverse);
    let Constant::Permutation(index) = &reverse.constants[0] else { panic!("no permutation") };
    assert!(index.iter().rev().copied().eq(0..12));
}

#[test]
fn unknown_and_missing_tensors_are_errors() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let state = weights(&folder);
    let change = |change: &dyn Fn(&mut State)| {
        let mut state = state.clone();
        change(&mut state);
        import_state(&state, Source::Y0ast, &Settings::default()).unwrap_err().to_string()
    };
    let error = change(&|state| drop(state.insert("flow.extra".into(), (vec![1], vec![0.0]))));
    assert!(error.contains("no place for the tensors flow.extra"), "{error}");
    let error = change(&|state| drop(state.remove("flow.layers.2.actnorm.logs")));
    assert!(error.contains("flow.layers.2.actnorm.logs is missing"), "{error}");
    let error = change(&|state| state.get_mut("flow.layers.5.block.4.conv.bias").unwrap().1[0] = f64::NAN);
    assert!(error.contains("flow.layers.5.block.4.conv.bias holds NaN"), "{error}");
    let error = change(&|state| {
        *state.get_mut("flow.layers.6.actnorm.bias").unwrap() = (vec![1, 12, 1, 1], vec![0.0; 12]);
    });
    assert!(error.contains("flow.layers.6"), "{error}");
    let error = change(&|state| state.retain(|name, _| !name.starts_with("flow.layers.2.")));
    assert!(error.contains("flow.layers.2."), "{error}");
    let error = change(&|state| state.get_mut("flow.layers.1.invconv.p").unwrap().1.fill(0.0));
    assert!(error.contains("flow.layers.1.invconv.p is not a permutation matrix"), "{error}");
    let other = Settings { image: Some([32, 32]), ..Settings::default() };
    let error = import_state(&state, Source::Y0ast, &other).unwrap_err().to_string();
    assert!(error.contains("32 × 32") && error.contains("16 × 16"), "{error}");
    let error = import_state(&state, Source::Rosinality, &Settings::default()).unwrap_err().to_string();
    assert!(error.contains("looks like one of y0ast"), "{error}");
}

#[test]
fn sizes_that_fit_no_model_are_errors() {
    let Some(folder) = fixture("rosinality/affine_lu") else { return };
    let state = weights(&folder);
    let change = |name: &str, shape: &[usize]| {
        let mut state = state.clone();
        let numbers = vec![0.5; shape.iter().product()];
        state.insert(name.into(), (shape.to_vec(), numbers));
        import_state(&state, Source::Rosinality, &settings(Source::Rosinality)).unwrap_err().to_string()
    };
    for (name, shape) in [
        ("blocks.0.flows.0.actnorm.loc", &[1, 1, 1, 1][..]),
        ("blocks.1.flows.0.actnorm.loc", &[1, 1, 1, 1]),
        ("blocks.1.flows.0.actnorm.loc", &[1, 0, 1, 1]),
        ("blocks.0.flows.1.coupling.net.0.weight", &[32, 0, 3, 3]),
        ("blocks.0.flows.1.coupling.net.0.weight", &[32, 6]),
        ("blocks.0.flows.1.coupling.net.4.conv.weight", &[1, 32, 3, 3]),
        ("blocks.0.prior.conv.weight", &[12, 0, 3, 3]),
        ("blocks.0.prior.conv.weight", &[12, 6, 1, 1]),
        ("blocks.2.prior.conv.weight", &[95, 48, 3, 3]),
        ("blocks.9.flows.0.actnorm.loc", &[1, 12, 1, 1]),
    ] {
        let error = change(&format!("module.{name}"), shape);
        assert!(!error.is_empty(), "{name} {shape:?}");
    }
    let Some(folder) = fixture("openai/affine_learntop") else { return };
    let mut state = variables(&folder);
    state.insert("model/1/0/actnorm_center/b".into(), (vec![1, 1, 1, 1], vec![0.5]));
    state.insert("model/1/1/actnorm_center/b".into(), (vec![1, 1, 1, 1], vec![0.5]));
    assert!(import_state(&state, Source::Openai, &settings(Source::Openai)).is_err());
}

/// The names of chaiyujin for a tensor of y0ast.
fn chaiyujin(state: &State) -> State {
    let rename = |name: &str| {
        let name = name.replace(".block.", ".f.").replace("learn_top_fn", "learn_top");
        let name = name.replace(".invconv.lower", ".invconv.l").replace(".invconv.upper", ".invconv.u");
        let (head, part) = name.rsplit_once('.').unwrap_or(("", &name));
        let head = head.strip_suffix(".conv").filter(|_| part != "logs").unwrap_or(head);
        let head = head.strip_suffix(".linear").unwrap_or(head);
        if head.is_empty() { part.to_owned() } else { format!("{head}.{part}") }
    };
    let mut state: State = state.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect();
    // Of a batch of two.
    let (shape, numbers) = state.get_mut("prior_h").unwrap();
    shape[0] = 2;
    numbers.extend(numbers.clone());
    state
}

#[test]
fn models_of_chaiyujin_see_pixels_divided_by_255() {
    let Some(folder) = fixture("y0ast/additive_plain_ycond") else { return };
    let y0ast = imported(Source::Y0ast, &folder.join("glow_model_1.pth"));
    let state = chaiyujin(&weights(&folder));
    let chaiyujin = import_state(&state, Source::Chaiyujin, &Settings::default()).unwrap();
    let cpu = Cpu::<f64>::new();
    let pixels = Npy::read(&folder.join("images.npy")).pixels();
    let labels = Npy::read(&folder.join("labels.npy")).numbers;
    // Noise with which the first model sees pixels divided by 255.
    let noise: Vec<f64> = pixels.iter().map(|&p| f64::from(p) / 255.0 - f64::from(p) / 256.0 + 0.5).collect();
    let want = Run::new(&cpu, &y0ast).encode(&pixels, &labels, &noise);
    let midpoint = vec![0.5 / 256.0; pixels.len()];
    let have = Run::new(&cpu, &chaiyujin).encode(&pixels, &labels, &midpoint);
    for (have, want) in have.eps.iter().zip(&want.eps) {
        assert!(error(have, want) < 1e-10);
    }
    let volume = 768.0 * (256.0_f64 / 255.0).ln();
    let with_volume: Vec<f64> = want.log_likelihood.iter().map(|ll| ll + volume).collect();
    assert!(error(&have.log_likelihood, &with_volume) < 1e-10);
    assert!(chaiyujin.notes[0].contains(&format!("{:.5}", volume / 768.0 / LN_2)), "{:?}", chaiyujin.notes);
}

#[test]
fn lu_forms_that_chaiyujin_does_not_save_whole_are_an_error() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = chaiyujin(&weights(&folder));
    state.retain(|name, _| !name.ends_with("invconv.p") && !name.ends_with("invconv.sign_s"));
    let error = import_state(&state, Source::Chaiyujin, &Settings::default()).unwrap_err().to_string();
    assert!(error.contains("invconv.p") && error.contains("cannot be restored"), "{error}");
}

/// The variables of the TensorFlow checkpoint.
fn variables(folder: &Path) -> State {
    let checkpoint = Checkpoint::read(&folder.join("variables.npz")).unwrap();
    checkpoint
        .tensors
        .iter()
        .map(|(name, array)| (name.clone(), (array.shape.clone(), array.numbers())))
        .collect()
}

#[test]
fn averages_and_optimiser_variables_of_openai_are_recognised() {
    let Some(folder) = fixture("openai/affine_learntop") else { return };
    let settings = settings(Source::Openai);
    let state = variables(&folder);
    let want = import_state(&state, Source::Openai, &settings).unwrap();
    let average = |name: &str| format!("{name}/ExponentialMovingAverage");
    let averages: State = state.iter().map(|(name, tensor)| (average(name), tensor.clone())).collect();
    assert_eq!(import_state(&averages, Source::Openai, &settings).unwrap().weights, want.weights);
    // Both, with other averages: the variables themselves count.
    let mut both = state.clone();
    both.extend(
        averages.into_iter().map(|(name, (shape, numbers))| (name, (shape, vec![0.5; numbers.len()]))),
    );
    both.insert("Variable_7".into(), (vec![2], vec![0.0; 2]));
    let have = import_state(&both, Source::Openai, &settings).unwrap();
    assert_eq!(have.weights, want.weights);
    assert!(have.unused.contains(&"Variable_7".to_owned()), "{:?}", have.unused);
}

#[test]
fn permutations_of_openai_are_read() {
    let Some(folder) = fixture("openai/affine_learntop") else { return };
    let settings = settings(Source::Openai);
    let mut lu = variables(&folder);
    let mut plain = lu.clone();
    let mut fixed = lu.clone();
    fixed.retain(|name, _| !name.contains("invconv"));
    let mut shuffled = fixed.clone();
    for at in places(&plain.clone(), "invconv/W") {
        let n = plain[&format!("{at}invconv/W")].0[0];
        let number = |i: usize| ((i * 37 % 101) as f64 / 101.0 - 0.5) * 0.4;
        let matrix = |seed: usize| (0..n * n).map(|i| number(i + seed)).collect::<Vec<_>>();
        let index = |i: usize| (i + 5) % n;
        let p: Vec<f64> = (0..n * n).map(|at| f64::from(index(at / n) == at % n)).collect();
        let sign: Vec<f64> = (0..n).map(|i| if i.is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        let log_s: Vec<f64> = (0..n).map(number).collect();
        let w = product(&p, &matrix(1), &matrix(2), &sign, &log_s);
        plain.insert(format!("{at}invconv/W"), (vec![n, n], w));
        lu.remove(&format!("{at}invconv/W"));
        let parts = [("P", p), ("L", matrix(1)), ("U", matrix(2))];
        lu.extend(parts.into_iter().map(|(name, x)| (format!("{at}invconv/{name}"), (vec![n, n], x))));
        let parts = [("sign_S", sign), ("log_S", log_s)];
        lu.extend(parts.into_iter().map(|(name, x)| (format!("{at}invconv/{name}"), (vec![n], x))));
        let indices = (0..n).map(|i| index(i) as f64).collect();
        shuffled.insert(format!("{at}shuffle/indices"), (vec![n], indices));
        shuffled.insert(format!("{at}shuffle/indices_inverse"), (vec![n], vec![0.0; n]));
    }
    let want = import_state(&plain, Source::Openai, &settings).unwrap();
    same_model(&import_state(&lu, Source::Openai, &settings).unwrap(), &want, 1e-9);
    let reverse = import_state(&fixed, Source::Openai, &settings).unwrap();
    assert_eq!(reverse.config.permutation, PermutationType::Reverse);
    let shuffle = import_state(&shuffled, Source::Openai, &settings).unwrap();
    assert_eq!(shuffle.config.permutation, PermutationType::Shuffle);
    let want: Vec<usize> = (0..12).map(|i| (i + 5) % 12).collect();
    assert_eq!(shuffle.constants[0], Constant::Permutation(want));
}

/// The flow of a model of y0ast whose split priors are constants, and the same as normflows has it.
fn normflows(state: &mut State) -> State {
    let (levels, steps) = (3, 2);
    let mut theirs = State::new();
    state.retain(|name, _| !name.starts_with("learn_top_fn."));
    for level in 0..levels {
        let at = levels - 1 - level;
        for step in 0..steps {
            let from = format!("flow.layers.{}", level * (steps + 2) + 1 + step);
            let to = format!("flows.{at}.{}.flows", steps - 1 - step);
            let get = |name: &str| state[&format!("{from}.{name}")].clone();
            let mut put = |name: &str, tensor: (Vec<usize>, Vec<f64>)| {
                theirs.insert(format!("{to}.{name}"), tensor);
            };
            let map = |(shape, x): (Vec<usize>, Vec<f64>), f: &dyn Fn(f64) -> f64| {
                (shape, x.into_iter().map(f).collect::<Vec<_>>())
            };
            let first = if level == 0 && step == 0 { 0.5 } else { 0.0 };
            put("2.s", map(get("actnorm.logs"), &|x| -x));
            put("2.t", map(get("actnorm.bias"), &|x| first - x));
            put("2.data_dep_init_done", (vec![], vec![1.0]));
            for (mine, name) in
                [("p", "P"), ("lower", "L"), ("upper", "U"), ("sign_s", "sign_S"), ("log_s", "log_S")]
            {
                put(&format!("1.{name}"), get(&format!("invconv.{mine}")));
            }
            let n = get("invconv.log_s").1.len();
            put("1.eye", (vec![n, n], (0..n * n).map(|at| f64::from(at / n == at % n)).collect()));
            let net = |name: &str| format!("0.flows.1.param_map.net.{name}");
            for (mine, conv) in [("block.0", 0), ("block.2", 3)] {
                put(&net(&format!("{conv}.weight")), get(&format!("{mine}.conv.weight")));
                let (shape, logs) = get(&format!("{mine}.actnorm.logs"));
                let bias = get(&format!("{mine}.actnorm.bias")).1;
                let t = bias.iter().zip(&logs).map(|(bias, logs)| bias * logs.exp()).collect();
                put(&net(&format!("{}.actNorm.t", conv + 1)), (shape.clone(), t));
                put(&net(&format!("{}.actNorm.s", conv + 1)), (shape, logs));
                put(&net(&format!("{}.actNorm.data_dep_init_done", conv + 1)), (vec![], vec![1.0]));
            }
            // Even outputs, the shifts, are subtracted there.
            let logs = get("block.4.logs").1;
            let scale = |output: usize| {
                (3.0 * logs[output]).exp() * if output.is_multiple_of(2) { -1.0 } else { 1.0 }
            };
            for part in ["weight", "bias"] {
                let (shape, x) = get(&format!("block.4.conv.{part}"));
                let width = x.len() / logs.len();
                let x = x.iter().enumerate().map(|(i, x)| x * scale(i / width)).collect();
                put(&net(&format!("6.{part}")), (shape, x));
            }
        }
        let side = 8 >> level;
        if level + 1 < levels {
            let prior = format!("flow.layers.{}.conv", level * (steps + 2) + 1 + steps);
            state.get_mut(&format!("{prior}.conv.weight")).unwrap().1.fill(0.0);
            let (bias, logs) = (&state[&format!("{prior}.conv.bias")].1, &state[&format!("{prior}.logs")].1);
            for (first, part) in [(0, "loc"), (1, "log_scale")] {
                let value = |i: usize| bias[2 * i + first] * (3.0 * logs[2 * i + first]).exp();
                let half = bias.len() / 2;
                let all = (0..half * side * side).map(|at| value(at / side / side)).collect();
                theirs.insert(format!("q0.{at}.{part}"), (vec![1, half, side, side], all));
            }
        } else {
            for part in ["loc", "loc_logs", "log_scale", "log_scale_logs"] {
                theirs.insert(format!("q0.{at}.{part}"), (vec![1, 48, 1, 1], vec![0.0; 48]));
            }
        }
    }
    theirs
}

#[test]
fn models_of_normflows_are_read() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut y0ast = weights(&folder);
    let theirs = normflows(&mut y0ast);
    let want = import_state(&y0ast, Source::Y0ast, &Settings::default()).unwrap();
    let missing = import_state(&theirs, Source::Normflows, &Settings::default());
    assert!(matches!(missing, Err(Error::Missing(settings)) if settings == [Setting::Bits]));
    let settings = Settings { bits: Some(8), ..Settings::default() };
    let have = import_state(&theirs, Source::Normflows, &settings).unwrap();
    assert_eq!(have.config, want.config);
    same_model(&have, &want, 1e-9);

    let mut varied = theirs.clone();
    varied.get_mut("q0.1.loc").unwrap().1[3] += 1.0;
    let error = import_state(&varied, Source::Normflows, &settings).unwrap_err().to_string();
    assert!(error.contains("q0.1 differs between pixels"), "{error}");
}
