//! Model variants that the checkpoints lack, derived from them.

use crate::common::changed::{import_state, places, product, same_model, variables, weights};
use crate::common::{State, fixture, settings};
use glowflow::params::Constant;
use glowflow::{PermutationType, PriorType};
use glowflow_import::{Error, Setting, Settings, Source};

#[test]
fn negative_scales_are_folded_into_the_convolution() {
    let Some(folder) = fixture("rosinality/affine_lu") else { return };
    let lu = weights(&folder);
    let settings = settings(Source::Rosinality);
    let want = import_state(&lu, Source::Rosinality, &settings).unwrap();
    // Moves the sign of every third channel from the convolution to the scale.
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
fn a_final_prior_without_parameters_is_standard_normal() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    state.retain(|name, _| !name.starts_with("learn_top_fn."));
    let have = import_state(&state, Source::Y0ast, &Settings::default()).unwrap();
    let top = have.layout().parameters.into_iter().filter(|parameter| parameter.name.starts_with("prior."));
    let top: Vec<_> = top.collect();
    assert_eq!(top.len(), 2);
    assert!(top.iter().all(|parameter| have.weights[parameter.span.range()].iter().all(|&x| x == 0.0)));
}

/// A non-zero constant, which the program allows but never writes: its convolution differs at the border.
#[test]
fn a_constant_input_of_the_final_prior_is_folded_in() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    let (shape, h) = state.get_mut("prior_h").unwrap();
    let (channels, pixels) = (shape[1], shape[2] * shape[3]);
    h.iter_mut().enumerate().for_each(|(i, h)| *h = ((i / pixels) as f64 * 0.37).sin());
    let h: Vec<f64> = h.iter().step_by(pixels).copied().collect();
    let have = import_state(&state, Source::Y0ast, &Settings::default()).unwrap();
    assert_eq!(have.config.prior, PriorType::Edge);
    // The mean at the first pixel of 2×2: taps 4, 5, 7 and 8 are inside.
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
fn fixed_permutations_must_be_specified() {
    let Some(folder) = fixture("y0ast/affine_lu") else { return };
    let mut state = weights(&folder);
    state.retain(|name, _| !name.contains("invconv"));
    let with =
        |permutation| import_state(&state, Source::Y0ast, &Settings { permutation, ..Settings::default() });
    assert!(matches!(with(None), Err(Error::Missing(settings)) if settings == [Setting::Permutation]));
    assert!(with(Some(PermutationType::Shuffle)).unwrap_err().to_string().contains("cannot be restored"));
    let other = Settings { permutation: Some(PermutationType::Reverse), ..Settings::default() };
    let error = import_state(&weights(&folder), Source::Y0ast, &other).unwrap_err().to_string();
    assert!(error.contains("Reverse was specified, and the model has Conv1x1"), "{error}");
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
    assert!(error.contains("unexpected tensors flow.extra"), "{error}");
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
