//! Training and using a model in bf16 if the CPU supports it, and the messages if it does not.

use crate::common::{TINY, read_image, run, save_image};

/// Returns whether this CPU multiplies bf16.
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512dq")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[test]
fn bf16_support_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), &format!("bench {TINY} --repeat 1 --precision bf16"));
    if has_bf16() {
        outcome.ok();
    } else {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        for word in ["no instructions", "AVX-512 BF16", "f32"] {
            assert!(outcome.stderr.contains(word), "{outcome:?}");
        }
    }
    // The format that always works and the default are currently the same.
    let train = |out: &str, precision: &str| {
        run(folder.path(), &format!("train {TINY} --data portraits --steps 3 --out {out} {precision}")).ok();
        std::fs::read(folder.path().join(out).join("model.safetensors")).unwrap()
    };
    let auto = train("auto", "");
    assert!(auto == train("f32", "--precision f32"));
    if has_bf16() {
        assert!(auto != train("bf16", "--precision bf16"));
    }
    let wrong = run(folder.path(), "bench --precision f16");
    assert!(wrong.code == Some(2) && wrong.stderr.contains("bf16"), "{wrong:?}");
}

#[test]
fn a_run_in_bf16_resumes_in_bf16_to_the_same_bytes() {
    if !has_bf16() {
        println!("skipped: this processor has no bf16");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let line = format!("train {TINY} --data portraits --precision bf16");
    run(folder.path(), &format!("{line} --steps 12 --out whole")).ok();
    run(folder.path(), &format!("{line} --steps 5 --out parts")).ok();
    run(folder.path(), "train --threads 2 --resume parts --steps 12").ok();
    let bytes = |run: &str| std::fs::read(folder.path().join(run).join("model.safetensors")).unwrap();
    assert!(bytes("whole") == bytes("parts"));
    // With any number of threads.
    let alone = line.replace("--threads 2", "--threads 1");
    run(folder.path(), &format!("{alone} --steps 12 --out alone")).ok();
    assert!(bytes("whole") == bytes("alone"));
    let refused = run(folder.path(), "train --resume parts --precision f32");
    assert!(refused.code == Some(1) && refused.stderr.contains("train.precision"), "{refused:?}");
}

#[test]
fn a_model_trained_in_bf16_decodes_every_pixel_and_reports_its_exactness() {
    if !has_bf16() {
        println!("skipped: this processor has no bf16");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    (0..40).for_each(|i| save_image(&folder.path().join(format!("images/{i:02}.png")), i));
    run(folder.path(), &format!("train {TINY} --data images --steps 40 --precision bf16 --out run")).ok();
    run(folder.path(), "encode --model run --data images --out latents").ok();
    run(folder.path(), "decode --model run --latents latents --out-dir decoded").ok();
    for i in 0..40 {
        let original = read_image(&folder.path().join(format!("images/{i:02}.png")));
        assert!(read_image(&folder.path().join(format!("decoded/{i:02}.png"))) == original, "image {i}");
    }
    let line = "eval --model run --data images --dequantization midpoint --json --precision";
    let [bf16, f32] =
        ["bf16", "f32"].map(|precision| run(folder.path(), &format!("{line} {precision}")).ok().json());
    let error = |evaluation: &serde_json::Value| evaluation["inverse_error"].as_f64().unwrap();
    assert!(error(&f32) < 1e-5 && error(&bf16) < 2e-2 && error(&bf16) > error(&f32), "{bf16} and {f32}");
    let difference = bf16["bits_per_dim"].as_f64().unwrap() - f32["bits_per_dim"].as_f64().unwrap();
    assert!(difference != 0.0 && difference.abs() < 0.02, "{bf16} and {f32}");
    let sample = |precision: &str| {
        run(
            folder.path(),
            &format!("sample --model run --count 4 --precision {precision} --out {precision}.png"),
        )
        .ok();
        read_image(&folder.path().join(format!("{precision}.png")))
    };
    let (short, full) = (sample("bf16"), sample("f32"));
    let most = short.iter().zip(full.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most < 32, "samples differ by {most}");
}
