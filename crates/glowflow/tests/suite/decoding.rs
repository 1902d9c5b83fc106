//! Decoding to host arrays: chunks, finite flags, requests to stop, concurrent callers.

use crate::common::{config, glow, model_file};
use glowflow::{DeviceError, Error, GlowConfig, Model};
use glowflow_kernels::{Cuda, Precision};
use ndarray::{Array4, Axis, s};

/// A model of images so large that it decodes 16 at a time.
fn in_chunks_of_16() -> Model {
    let config =
        GlowConfig { image: [64, 64, 1], levels: 1, steps: 1, hidden: 1, bits: 8, classes: 8, ..config() };
    let model = Model::new(config, 1).unwrap();
    assert_eq!(model.decoded_at_once(), 16);
    model
}

#[test]
fn models_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Model>();
    shared::<Model<f64>>();
}

#[test]
fn each_image_has_its_own_finite_flag() {
    let model = glow(&model_file(0.05));
    let mut latents = model.draw(3, 0.7, 1).unwrap();
    let sound = model.decode(&latents, &[]).unwrap();
    assert!(sound.all_finite() && sound.finite == [true; 3]);
    latents.0[1].index_axis_mut(Axis(0), 1).fill(f32::NAN);
    let decoded = model.decode(&latents, &[]).unwrap();
    assert_eq!(decoded.finite, [true, false, true]);
    assert!(!decoded.all_finite());
    for i in [0, 2] {
        assert_eq!(decoded.pixels.index_axis(Axis(0), i), sound.pixels.index_axis(Axis(0), i));
    }
    // Results of other calls are not affected.
    assert!(model.sample(3, 0.7, &[], 1).unwrap() == sound);
}

#[test]
fn samples_of_values_that_are_not_finite_are_flagged() {
    let mut file = model_file(0.05);
    file.weights.fill(1e30);
    assert_eq!(glow(&file).sample(2, 0.7, &[], 1).unwrap().finite, [false; 2]);
}

#[test]
fn flags_and_pixels_do_not_depend_on_chunks() {
    let model = in_chunks_of_16();
    let mut latents = model.draw(20, 0.7, 3).unwrap();
    latents.0[0].index_axis_mut(Axis(0), 17).fill(f32::NAN);
    let all = model.decode(&latents, &[7; 20]).unwrap();
    assert!(all.finite.iter().enumerate().all(|(i, &finite)| finite == (i != 17)));
    for i in [0, 15, 16, 17, 19] {
        let one = model.decode(&latents.slice(i..i + 1), &[7]).unwrap();
        assert_eq!(one.finite[0], all.finite[i]);
        assert_eq!(one.pixels, all.pixels.slice(s![i..i + 1, .., .., ..]));
    }
    let drawn = model.decode(&model.draw(20, 0.7, 3).unwrap(), &[7; 20]).unwrap();
    assert!(model.sample(20, 0.7, &[7; 20], 3).unwrap() == drawn);
}

#[test]
fn latents_in_any_memory_order_decode_alike() {
    let model = glow(&model_file(0.05));
    let mut latents = model.draw(2, 0.7, 1).unwrap();
    let want = model.decode(&latents, &[]).unwrap();
    for level in &mut latents.0 {
        let mut transposed = Array4::zeros(level.t().raw_dim());
        transposed.assign(&level.t());
        *level = transposed.reversed_axes();
        assert!(!level.is_standard_layout());
    }
    assert!(model.decode(&latents, &[]).unwrap() == want);
}

#[test]
fn decoding_is_stopped_between_chunks() {
    let model = in_chunks_of_16();
    let latents = model.draw(20, 0.7, 3).unwrap();
    let stopped_at = |chunk: usize| {
        let mut checks = 0;
        let decoded = model.decode_while(&latents, &[7; 20], || {
            checks += 1;
            if checks > chunk { Err(Error::Stopped) } else { Ok(()) }
        });
        (decoded, checks)
    };
    let (decoded, checks) = stopped_at(usize::MAX);
    assert!(decoded.unwrap() == model.decode(&latents, &[7; 20]).unwrap());
    assert_eq!(checks, 2);
    let (decoded, checks) = stopped_at(1);
    assert!(matches!(decoded, Err(Error::Stopped)) && checks == 2);
}

#[test]
fn concurrent_callers_get_their_own_images_and_flags() {
    let model = glow(&model_file(0.05));
    let sound = model.draw(2, 0.7, 1).unwrap();
    let mut broken = sound.clone();
    broken.0[0].fill(f32::NAN);
    let want = model.decode(&sound, &[]).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let (model, sound, broken, want) = (&model, &sound, &broken, &want);
            scope.spawn(move || {
                for _ in 0..5 {
                    if caller % 2 == 0 {
                        assert!(model.decode(sound, &[]).unwrap() == *want);
                    } else {
                        assert_eq!(model.decode(broken, &[]).unwrap().finite, [false; 2]);
                    }
                }
            });
        }
    });
}

/// The first decoding runs directly, the second is captured, and the third is replayed.
#[test]
fn a_gpu_repeats_its_captured_decoding() {
    let gpu = |precision| -> Option<Cuda> {
        cuda_emulator::gpu(|folders| -> Result<Cuda, DeviceError> {
            Cuda::with_libraries(0, precision, folders)
        })
    };
    let Some(gpu) = gpu(Precision::F32) else { return };
    let file = model_file(0.05);
    let (model, cpu) = (Model::on(gpu, &file), glow(&file));
    for seed in 0..4 {
        let samples = model.sample(2, 0.7, &[], seed).unwrap();
        let decoded = model.decode(&model.draw(2, 0.7, seed).unwrap(), &[]).unwrap();
        assert!(samples == decoded && samples.all_finite(), "seed {seed}");
        let want = cpu.sample(2, 0.7, &[], seed).unwrap().pixels;
        let most = samples.pixels.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "seed {seed}: {most:?}");
    }
}
