//! Programs and variants whose checkpoints are derived from others by renaming tensors.

use std::f64::consts::LN_2;

use crate::common::changed::{import_state, places, product, same_model, variables, weights};
use crate::common::{Npy, Run, State, error, fixture, imported, settings};
use glowflow::PermutationType;
use glowflow::params::Constant;
use glowflow_import::{Error, Setting, Settings, Source};
use glowflow_kernels::Cpu;

/// chaiyujin's names for the tensors of y0ast.
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
    // From a batch of two.
    let (shape, numbers) = state.get_mut("prior_h").unwrap();
    shape[0] = 2;
    numbers.extend(numbers.clone());
    state
}

#[test]
fn models_of_chaiyujin_take_pixels_divided_by_255() {
    let Some(folder) = fixture("y0ast/additive_plain_ycond") else { return };
    let y0ast = imported(Source::Y0ast, &folder.join("glow_model_1.pth"));
    let state = chaiyujin(&weights(&folder));
    let chaiyujin = import_state(&state, Source::Chaiyujin, &Settings::default()).unwrap();
    let cpu = Cpu::<f64>::new();
    let pixels = Npy::read(&folder.join("images.npy")).pixels();
    let labels = Npy::read(&folder.join("labels.npy")).numbers;
    // Noise with which the first model receives pixels divided by 255.
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
fn incomplete_lu_forms_of_chaiyujin_are_an_error() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = chaiyujin(&weights(&folder));
    state.retain(|name, _| !name.ends_with("invconv.p") && !name.ends_with("invconv.sign_s"));
    let error = import_state(&state, Source::Chaiyujin, &Settings::default()).unwrap_err().to_string();
    assert!(error.contains("invconv.p") && error.contains("cannot be restored"), "{error}");
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
    // With both, the variables themselves are read, not the averages.
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

/// The flow of a y0ast model with constant split priors, converted to normflows' form.
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
            // normflows subtracts the even outputs, the shifts.
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
