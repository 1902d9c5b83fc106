//! Failures end with an exit status and a message that names the cause and the remedy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{self, Outcome, TINY, command, run, save_classes, save_image};
use glowflow::latents_file::LatentsFile;
use glowflow::{Model, ModelFile};

/// A folder with a run (`done`), models of two classes (`classes`) and of two channels, and various kinds of
/// invalid data.
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("errors");
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        save_classes(&folder.join("images"));
        (0..8).for_each(|i| {
            save_image(&folder.join(format!("flat/{i}.png")), i);
            save_image(&folder.join(format!("mixed/{i}.png")), i);
        });
        write("mixed/torn.png", &std::fs::read(folder.join("flat/0.png")).unwrap()[..100]);
        write("broken/a.png", b"\x89PNG\r\n\x1a\n and then nothing of the kind");
        write("broken/b.jpg", b"");
        write("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        std::fs::create_dir(folder.join("empty")).unwrap();
        (0..4).for_each(|i| {
            save_image(&folder.join(format!("animals/{}/{i}.png", ["dog", "zebra"][i as usize % 2])), i)
        });
        let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let foreign = [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 4]].concat();
        write("foreign.safetensors", &foreign);
        let header = br#"{"__metadata__":{"glow.config":"{\"image\":[16,16,3]}"}}"#;
        write("guess.safetensors", &[&(header.len() as u64).to_le_bytes(), &header[..]].concat());

        // Checkpoints at steps 0, 4 and 6, of which the last two are kept.
        let train = |arguments: &str| run(&folder, &format!("train {TINY} {arguments}")).ok();
        train("--data portraits --out done --steps 6 --set train.checkpoint_every=4");
        train("--data images --out classes --steps 2 --set model.classes=2");
        // Latents of the same shapes, from a model of the same architecture with other weights.
        train("--data images --out other --steps 2 --seed 1");
        run(&folder, "encode --model other --data images --out other.latents").ok();
        write("wrong.toml", b"[model]\nsteps = \"abc\"\n");
        let utf16: Vec<u8> = "\u{feff}[model]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        write("utf16.toml", &utf16);
        write("cp1252.toml", b"# \xe9\n[model]\n");
        write("large/00000.png", b"precious");
        write("pictured/samples.png", b"precious");
        // Data next to a configuration, and with a link.
        save_image(&folder.join("configured/0.png"), 0);
        save_image(&folder.join("configured/1.png"), 1);
        write("configured/config.toml", b"");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../flat/2.png", folder.join("configured/2.png")).unwrap();
        write("large.toml", &vec![b'#'; (1 << 20) + 1]);
        std::fs::create_dir(folder.join("kept")).unwrap();
        std::fs::copy(folder.join("done/model.safetensors"), folder.join("kept/model.safetensors")).unwrap();
        let done = ModelFile::read(&folder.join("done")).unwrap();
        let mut two = done.config;
        two.set_channels(2);
        ModelFile::new(two, 0).unwrap().write(&folder.join("two.safetensors")).unwrap();
        folder
    })
}

/// Problems with a command's failure: it should return a status, and print all of `words`.
fn complaints(outcome: &Outcome, line: &str, words: &[&str]) -> Vec<String> {
    let stderr = &outcome.stderr;
    let mut rules = vec![
        (matches!(outcome.code, Some(1 | 2)), format!("the status is {:?}", outcome.code)),
        (stderr.contains("error: "), "there is no error".to_owned()),
        (!stderr.contains("panicked") && !stderr.contains("backtrace"), "it panicked".to_owned()),
    ];
    // The message is one line, the last; usage errors also show the usage.
    if outcome.code == Some(1) {
        let is_error = |line: &&str| line.starts_with("error: ");
        let one = stderr.lines().filter(is_error).count() == 1
            && stderr.lines().next_back().is_some_and(|l| is_error(&l));
        rules.push((one, "the error is not one line at the end".to_owned()));
    }
    rules.extend(words.iter().map(|word| (stderr.contains(word), format!("{word:?} is missing"))));
    let broken = rules.into_iter().filter(|(holds, _)| !holds);
    broken.map(|(_, complaint)| format!("{line}: {complaint}: {stderr}")).collect()
}

#[track_caller]
fn check(outcome: &Outcome, line: &str, words: &[&str]) {
    let complaints = complaints(outcome, line, words);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Commands, and words required in their messages: the cause, then the remedy.
const MISTAKES: &[(&str, &[&str])] = &[
    // The configuration.
    ("bench --preset cifar100", &["cifar100", "cifar10,", "tiny32", "faces64"]),
    ("bench --set train.learning_rate=1", &["learning_rate", "`lr`"]),
    ("bench --set modle.steps=1", &["modle", "`model`"]),
    ("bench --set model.steps=many", &["many", "model.steps"]),
    ("bench --set model.steps=-1", &["-1", "model.steps"]),
    ("bench --set model.coupling=linear", &["linear", "`affine`", "`additive`"]),
    ("bench --set steps=8", &["steps=8", "model.steps=8"]),
    ("bench --set model.bits=9", &["model.bits is 9", "1 to 8"]),
    ("bench --set train.ema=1", &["train.ema is 1", "below 1"]),
    ("bench --set train.lr=nan", &["train.lr is NaN", "above 0"]),
    ("bench --set train.clip=inf", &["train.clip is inf", "0 for off"]),
    (
        "bench --set train.checkpoint_minutes=inf",
        &["train.checkpoint_minutes is inf", "a large value for never"],
    ),
    ("train --data portraits --out new TINY --seed 9223372036854775808", &["train.seed", "2^63"]),
    ("bench --set model.image=[30,32,3]", &["image height 30", "24 or 32", "model.levels to at most 1"]),
    (
        "bench --set train.batch=4 --set train.accumulate=3",
        &["train.accumulate is 3", "divisor of train.batch"],
    ),
    ("bench --set train.schedule=cosine", &["cosine", "train.steps"]),
    ("bench --set model.image=[32,32]", &["invalid length 2", "height, width and channels", "model.image"]),
    ("bench --config wrong.toml", &["wrong.toml: line 2", "\"abc\"", "a whole number"]),
    ("bench --config nowhere.toml", &["nowhere.toml", "No such file"]),
    ("bench --config photo.jpg", &["photo.jpg", "save it as UTF-8"]),
    ("bench --config utf16.toml", &["utf16.toml", "UTF-16", "save it as UTF-8"]),
    ("bench --config cp1252.toml", &["cp1252.toml", "save it as UTF-8"]),
    ("bench --config large.toml", &["large.toml", "at most 1 MiB"]),
    ("bench --set train.lr=1e39", &["train.lr is 1e39", "32 bits"]),
    ("bench --set train.epsilon=1e-46", &["train.epsilon is 1e-46", "32 bits"]),
    ("bench --set model.hidden=16384 --set model.steps=4096", &["TiB", "available", "model.hidden"]),
    ("info --model done --threads 0", &["--threads must be at least 1", "omit it"]),
    ("info --model done --threads 20000", &["--threads 20000", "1024", "cores"]),
    ("bench --repeat 0", &["--repeat must be at least 1", "got 0"]),
    ("bench --set train.batch=1000000000", &["train.batch is 1000000000", "at most"]),
    ("bench --set train.batch=4611686018427387904", &["train.batch is 4611686018427387904", "at most"]),
    ("bench --set train.batch=9223372036854775807", &["train.batch is 9223372036854775807", "at most"]),
    // Data.
    ("train --data portraits --out portraits/run TINY", &["portraits/run", "hide the built-in data"]),
    ("train --data flat --test-data portraits --out portraits TINY", &["hide the built-in data"]),
    ("train --data nowhere --out new TINY", &["nowhere", "check that it exists"]),
    ("train --data empty --out new TINY", &["empty", ".png", ".jpg"]),
    (
        "train --data broken --out new TINY --set train.batch=1",
        &["all 2 images", "b.jpg", "replace the files"],
    ),
    ("train --data foreign.safetensors --out new TINY", &["foreign.safetensors", "folder of images"]),
    (
        "train --data images --out new TINY --set train.batch=1000",
        &["12 training images", "1000", "train.batch"],
    ),
    ("train --data images --out new TINY --set data.shift=2", &["shift of 2", "0.1"]),
    ("train --data images --out new TINY --test-fraction 1.5", &["1.5", "between 0 and 1"]),
    (
        "train --data flat --out new TINY --set model.classes=2",
        &["0.png", "no sub-folder", "without classes"],
    ),
    ("train --data images --out new TINY --set model.classes=3", &["2 classes", "model.classes=2"]),
    ("train --data portraits --out new TINY --set model.image=[16,32,3]", &["square", "16×32×3"]),
    ("eval --model done --data portraits --images 0", &["--images must be at least 1", "omit it"]),
    ("score --model done --data broken", &["all 2 images", "a.png"]),
    ("score --model classes --data animals", &["zebra/1.png", "known classes (cat, dog)"]),
    (
        "train --data images --out new TINY --set model.classes=2 --test-data animals",
        &["zebra/1.png", "cat, dog"],
    ),
    ("train --data flat --out flat TINY", &["flat holds some of the data", "another folder"]),
    (
        "train --data images --out kept TINY",
        &["kept already contains a run (model.safetensors)", "another folder"],
    ),
    ("train --data images --out pictured TINY", &["pictured/samples.png exists", "another folder"]),
    ("train --data images --out photo.jpg TINY", &["photo.jpg is a file", "give a folder"]),
    ("quickstart --minutes 1 --out flat", &["flat holds files", "an empty or new folder"]),
    (
        "train --data images --out new TINY --seed 1 --set train.seed=2",
        &["--seed and --set train.seed", "give one of them"],
    ),
    (
        "train --resume done --backprop stored --set train.backprop=stored",
        &["--backprop and --set train.backprop", "give one of them"],
    ),
    ("bench --precision f32 --set train.precision=f32", &["--precision and --set train.precision"]),
    ("study permutations --data flat --images 64 --out new", &["no held-out images", "data.test_fraction"]),
    ("info --model guess.safetensors", &["guess.safetensors", "has no key \"bits\""]),
    // Runs.
    ("train --data portraits --out done TINY", &["done", "--resume", "another folder"]),
    ("train --resume nowhere", &["nowhere", "no run to resume"]),
    ("train --resume empty", &["empty", "no run to resume"]),
    ("train --resume foreign.safetensors", &["foreign.safetensors", "glowflow.checkpoint"]),
    ("train --resume done --seed 1", &["train.seed", "order of the images", "another run"]),
    ("train --resume done --precision tf32", &["train.precision", "rounded", "another run"]),
    ("train --resume done --test-fraction 0.5", &["data.test_fraction", "trained on", "another run"]),
    ("train --resume done --out new", &["--out", "own folder"]),
    ("train --resume done --from classes", &["--from", "already has weights"]),
    ("train --resume done --classes", &["--classes", "weights belong to"]),
    // Fine-tuning.
    ("train --from nowhere --data flat --out new", &["nowhere"]),
    (
        "train --from done --data flat --out new --set model.steps=3",
        &["model.steps is 3", "and 2 in", "omit model.steps"],
    ),
    (
        "train --from done --data flat --out new --preset tiny32",
        &["model.", "omit model.", "done/model.safetensors"],
    ),
    ("train --from classes --data flat --out new", &["0.png", "sub-folder", "class"]),
    ("train --from classes --data animals --out new", &["zebra/1.png", "known classes (cat, dog)"]),
    ("train --data flat --classes --out new TINY", &["0.png", "sub-folder", "without classes"]),
    ("train --data portraits --classes --out new TINY", &["portraits", "no classes"]),
    ("train --data flat --out new TINY --eyes 0.7,0.5,0.3,0.5", &["--eyes"]),
    ("train --resume done --config wrong.toml", &["--config", "new run", "--set"]),
    ("train --resume done --preset tiny32", &["--preset", "new run", "--set"]),
    ("train --resume done --set model.steps=8", &["model.steps", "weights", "another run"]),
    ("train --resume done --set train.batch=8", &["train.batch", "images each step sees"]),
    ("train --resume done --set train.lr=fast", &["train.lr", "fast"]),
    ("train --out new TINY", &["--data"]),
    ("train --data portraits --out new TINY --minutes nan", &["0 or more minutes", "got NaN"]),
    ("train --data portraits --out new TINY --minutes -1", &["0 or more minutes", "got -1"]),
    ("quickstart --minutes nan --out new", &["0 or more minutes", "got NaN"]),
    // Models and latents.
    ("info --model nowhere", &["nowhere"]),
    ("info --model empty", &["empty", "holds no model.safetensors"]),
    ("info --model photo.jpg", &["photo.jpg", "not a safetensors file"]),
    ("info --model foreign.safetensors", &["foreign.safetensors", "glow.config"]),
    ("info --model done/checkpoint.safetensors", &["checkpoint.safetensors", "glow.config"]),
    (
        "decode --model done --latents other.latents --out-dir new",
        &["other.latents", "the model that encoded"],
    ),
    ("decode --model done --latents photo.jpg --out-dir new", &["photo.jpg", "not a safetensors file"]),
    (
        "decode --model done --latents done/model.safetensors --out-dir new",
        &["model.safetensors", "glow.latents"],
    ),
    // Labels.
    ("eval --model classes --data flat", &["0.png", "no sub-folder"]),
    ("score --model classes --data images --class 2", &["class 2", "2 classes, 0 to 1"]),
    ("train --from done --data flat --classes --out new", &["--from has no classes", "omit --classes"]),
    ("encode --model classes --data flat --class 9 --out new.latents", &["class 9", "0 to 1"]),
    ("score --model done --data flat --class 0", &["\"0\"", "without classes", "omit it"]),
    ("sample --model done --class dog --out new.png", &["\"dog\"", "without classes", "omit it"]),
    ("sample --model classes --class cow --out new.png", &["\"cow\"", "cat, dog"]),
    ("sample --model classes --class 2 --out new.png", &["class 2", "0 to 1"]),
    ("sample --model classes --out new.png", &["2 classes", "--class 0 to 1 or by name: cat, dog"]),
    // Samples.
    ("sample --model done --temperature -1 --out new.png", &["temperature -1", "0.7"]),
    ("sample --model done --temperature nan --out new.png", &["temperature NaN", "0.7"]),
    ("sample --model done --temperature inf --out new.png", &["temperature inf", "0.7"]),
    ("sample --model done --count 0 --out new.png", &["--count must be at least 1"]),
    ("sample --model done --count 100000 --out new.png", &["100000 images", "at most"]),
    ("sample --model done --count 18446744073709551615 --out new.png", &["18446744073709551615", "at most"]),
    (
        "sample --model done --count 18446744073709551615 --temperatures 0,1 --out new.png",
        &["18446744073709551615 × 2", "at most"],
    ),
    (
        "sample --model classes --class 0 --count 18446744073709551615 --out-dir new",
        &["18446744073709551615", "at most"],
    ),
    ("sample --model classes --class 99 --count 1000000000000 --out-dir new", &["class 99", "0 to 1"]),
    ("resample --model done flat/0.png --count 0 --out new.png", &["--count must be at least 1", "got 0"]),
    ("resample --model done flat/0.png --count 100000000 --out new.png", &["2 × 100000000", "at most"]),
    (
        "resample --model done flat/0.png --count 18446744073709551615 --out new.png",
        &["2 × 18446744073709551615", "at most"],
    ),
    ("interpolate --model done flat/0.png flat/1.png --out new.mp4", &["new.mp4", ".png or .apng or .gif"]),
    ("sample --model done --out new.jpg", &["new.jpg", ".png"]),
    (
        "interpolate --model done flat/0.png flat/1.png --frames 2000000 --out new.png",
        &["1 × 2000000 images", "at most"],
    ),
    (
        "interpolate --model done flat/0.png flat/1.png --frames 18446744073709551615 --out new.gif",
        &["2 × 18446744073709551615", "at most"],
    ),
    ("sample --model two.safetensors --out new.png", &["16×16×2", "1 (grey) or 3 (RGB)"]),
    ("sample --model two.safetensors --out-dir new.pngs", &["16×16×2", "1 (grey) or 3 (RGB)"]),
    ("sample --model two.safetensors --temperatures 0,1 --out new.png", &["16×16×2", "1 (grey) or 3 (RGB)"]),
    ("resample --model two.safetensors flat/0.png --out new.png", &["16×16×2", "1 (grey) or 3 (RGB)"]),
    (
        "interpolate --model two.safetensors flat/0.png flat/1.png --out new.gif",
        &["16×16×2", "1 (grey) or 3 (RGB)"],
    ),
    ("sample --model done --out new.png --out-dir new", &["--out", "--out-dir"]),
    // Outputs.
    ("sample --model done --out nowhere/new.png", &["nowhere/new.png", "create the folder first"]),
    ("encode --model done --data flat --out nowhere/new", &["nowhere/new", "create the folder first"]),
    ("encode --model done --data flat --out flat", &["flat", "give a file in it"]),
    ("score --model done --data flat --csv nowhere/new", &["nowhere/new", "create the folder first"]),
    (
        "encode --model done --data flat --out done/model.safetensors",
        &["model.safetensors", "the model itself"],
    ),
    (
        "attributes --model done --data portraits --out flat/../done/model.safetensors",
        &["model.safetensors", "the model itself"],
    ),
    (
        "score --model done/model.safetensors --data flat --csv done/model.safetensors",
        &["model.safetensors", "the model itself"],
    ),
    ("decode --model done --latents nowhere --out-dir new", &["nowhere", "check its name"]),
    (
        "encode --model done --data flat/0.png --out flat/0.png",
        &["flat/0.png is an input", "another output file"],
    ),
    ("score --model done --data flat/0.png --csv flat/0.png", &["flat/0.png is an input"]),
    ("score --model done --data flat --csv flat/1.png", &["flat/1.png is an input", "another output file"]),
    ("nearest --model done flat/0.png --data mixed --out mixed/1.png", &["mixed/1.png is an input"]),
    ("score --model done --data configured --csv configured/1.png", &["configured/1.png is an input"]),
    ("resample --model done configured/0.png --out configured/0.png", &["configured/0.png is an input"]),
    #[cfg(unix)]
    ("score --model done --data configured --csv configured/2.png", &["configured/2.png is an input"]),
    // The target of a link, and a damaged picture.
    #[cfg(unix)]
    ("score --model done --data configured --csv flat/2.png", &["flat/2.png is an input"]),
    ("score --model done --data mixed --allow-broken --csv mixed/torn.png", &["mixed/torn.png is an input"]),
    (
        "nearest --model done flat/0.png --data mixed --out mixed/new.png",
        &["mixed/new.png is inside mixed", "--out"],
    ),
    (
        "score --model classes --data images --csv done/checkpoint.safetensors",
        &["done/checkpoint.safetensors is a file of a run", "another output file"],
    ),
    ("resample --model done flat/0.png --out flat/../flat/0.png", &["0.png is an input"]),
    ("interpolate --model done flat/0.png flat/1.png --out flat/1.png", &["flat/1.png is an input"]),
    ("nearest --model done flat/0.png --data flat --out flat/0.png", &["flat/0.png is an input"]),
    (
        "attributes --model done --data flat --labels wrong.toml --out wrong.toml",
        &["wrong.toml is an input", "another output file"],
    ),
    ("sample --model done --out-dir broken/../large", &["large/00000.png exists", "--out-dir"]),
    // Numbers.
    ("train --data portraits --out new TINY --steps -5", &["'-5'", "--steps"]),
    ("sample --model done --count -1 --out new.png", &["'-1'", "--count"]),
    ("train --data flat --out new TINY --test-fraction -0.1", &["-0.1", "between 0 and 1"]),
    ("eval --model done --data flat --draws 0", &["--draws", "0"]),
    ("eval --model done --data flat --draws 99999999999999999", &["--draws", "99999999999999999"]),
    ("score --model done --data flat --importance 99999999999999", &["99999999999999", "1 to 1000000"]),
    ("nearest --model done flat/0.png --data flat --count 0", &["--count must be at least 1"]),
    ("nearest --model done flat/0.png --data flat/0.png", &["one image", "at least 2"]),
    // Pictures.
    ("interpolate --model done nope.png flat/0.png", &["cannot read nope.png", "check that it exists"]),
    ("resample --model done flat", &["cannot read flat", "directory"]),
    // Architectures.
    (
        "bench --preset tiny32 --set model.architecture=realnvp",
        &["model.architecture is realnvp", "preset tiny32 is for glow"],
    ),
    ("bench --set model.archtecture=realnvp", &["archtecture", "`architecture`"]),
    ("train --resume done/model.safetensors", &["it is a model, and not a checkpoint", "its run, done"]),
    ("encode --model classes --data flat --out new.latents", &["0.png", "no sub-folder", "--class CLASS"]),
];

#[test]
fn mistakes_are_explained() {
    let complaints: Vec<String> = MISTAKES
        .iter()
        .flat_map(|(line, words)| complaints(&run(world(), &line.replace("TINY", TINY)), line, words))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // A run that could not start does not block the next attempt.
    run(world(), &format!("train --data portraits --out new {TINY} --steps 1")).ok();
}

#[test]
fn threads_from_the_environment_are_bounded() {
    let mut info = command(world(), "info --model done");
    info.env("RAYON_NUM_THREADS", "20000");
    check(&common::outcome(info), "RAYON_NUM_THREADS=20000", &["RAYON_NUM_THREADS 20000", "1024", "cores"]);
}

/// Empty variables count as unset, and invalid ones are reported.
#[test]
fn environment_variables_are_validated() {
    let with = |name: &str, value: &str| {
        let mut info = command(world(), "info --model done");
        info.env(name, value);
        common::outcome(info)
    };
    for name in [
        "GLOWFLOW_DEVICE",
        "GLOWFLOW_CUDA_ROWS",
        "GLOWFLOW_CUDA_HIDDEN",
        "RAYON_NUM_THREADS",
        "GLOWFLOW_CUDA_LIBRARIES",
        "COLUMNS",
        "TERM",
        "NO_COLOR",
    ] {
        with(name, "").ok();
    }
    for (name, value) in [
        ("GLOWFLOW_DEVICE", "gpu"),
        ("GLOWFLOW_CUDA_ROWS", "0"),
        ("GLOWFLOW_CUDA_HIDDEN", "some"),
        ("RAYON_NUM_THREADS", "many"),
        ("RAYON_NUM_THREADS", "-1"),
    ] {
        let outcome = with(name, value);
        check(&outcome, name, &[name, value]);
        assert!(!outcome.stderr.contains("--device") && !outcome.stderr.contains("--threads"), "{outcome:?}");
    }
    // The command line takes precedence.
    let mut info = command(world(), "info --model done --device cpu --threads 1");
    info.env("GLOWFLOW_DEVICE", "gpu").env("RAYON_NUM_THREADS", "many");
    common::outcome(info).ok();
}

/// Following the message of a run that diverges gives a run that does not.
#[test]
fn a_diverged_run_states_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!(
        "train --data portraits --out run {TINY} --set train.warmup=0 --set train.checkpoint_every=1 --steps 50"
    );
    run(folder.path(), &format!("{line} --set train.lr=1e-3 --steps 3").replace(" --steps 50", "")).ok();
    let line = "train --threads 2 --resume run --set train.lr=1e30 --steps 50";
    let outcome = run(folder.path(), line);
    let way_out = "--resume run/checkpoint.previous.safetensors --device cpu --set train.lr=";
    check(&outcome, line, &["10 steps in a row", "of step 3", way_out]);
    assert!(outcome.stderr.contains("train.lr is 1e30 from here on; it was 0.001"), "{}", outcome.stderr);
    let summary = run(
        folder.path(),
        "train --threads 2 --resume run/checkpoint.previous.safetensors --set train.lr=1e-4 --steps 6 --json",
    );
    assert_eq!(summary.ok().json()["saved_step"], 6);
}

/// A run may end before it notices that it diverges.
#[test]
fn a_last_evaluation_that_is_not_finite_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        format!("train --data portraits --out run {TINY} --set train.warmup=0 --set train.lr=1e20 --steps 1");
    check(&run(folder.path(), &line), &line, &["the last evaluation is not finite"]);
}

/// The table may replace a file that is still needed if the command fails.
#[test]
fn a_table_of_scores_replaces_a_file_at_the_end() {
    let path = world().join("kept.csv");
    std::fs::write(&path, "kept").unwrap();
    let line = "score --model done --data broken --csv kept.csv";
    check(&run(world(), line), line, &["all 2 images"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    run(world(), "score --model done --data flat --csv kept.csv").ok();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1 + 8);
}

/// An output in the folder of the images is no input of the next call.
#[test]
fn a_command_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    (0..4).for_each(|i| save_image(&folder.path().join(format!("photos/{i}.png")), i));
    let model = world().join("done");
    for command in ["score --csv photos/scores.csv", "encode --out photos/latents"] {
        for _ in 0..2 {
            run(folder.path(), &format!("{command} --data photos --model {}", model.display())).ok();
        }
    }
}

#[test]
fn images_of_one_name_are_decoded_to_separate_files() {
    let glow = Model::load(world().join("done")).unwrap();
    let names =
        ["a.png", "a.png", "..", "../../a.png", "", "b/../c.png", "/a.png-2", "e\x1b[2J.png", "a.png"];
    let file = LatentsFile {
        config: glow.config().clone(),
        model: glow.fingerprint(),
        images: names.map(str::to_owned).to_vec(),
        labels: vec![],
        latents: glow.draw(names.len(), 0.7, 0).unwrap(),
        checksums: vec![],
        kept: BTreeMap::new(),
    };
    file.write(&world().join("names.latents")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("in/out");
    let line = format!("decode --model done --latents names.latents --out-dir {}", out.display());
    assert!(run(world(), &line).ok().stdout.contains("9 images"));
    for name in [
        "a.png",
        "a-2.png",
        "image.png",
        "a-3.png",
        "image-2.png",
        "b/c.png",
        "a.png-2.png",
        "e_[2J.png",
        "a-4.png",
    ] {
        assert!(out.join(name).is_file(), "{name} is missing");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(folder.path().join("in")).unwrap().count(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn names_are_shown_and_not_obeyed() {
    save_image(&world().join("escapes/0.png"), 0);
    std::fs::write(world().join("escapes/\x1b]0;title\x07.png"), "no image").unwrap();
    let outcome = run(world(), "score --model done --data escapes --allow-broken").ok();
    assert!(outcome.stderr.contains("skipped \\u{1b}]0;title\\u{7}.png"), "{outcome:?}");
    assert!(!outcome.stderr.contains('\x1b'), "{outcome:?}");
}

/// A write error on stderr must not cause a panic.
#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_error_does_not_panic() {
    let mut info = command(world(), "info --model nope");
    info.stderr(std::fs::File::create("/dev/full").unwrap());
    assert_eq!(info.output().unwrap().status.code(), Some(1));
}

#[test]
fn one_broken_image_is_left_out() {
    let line = format!("train --data mixed {TINY} --steps 12 --set train.log_every=3");
    let outcome = run(world(), &format!("{line} --out mixed.run")).ok();
    assert_eq!(outcome.stderr.matches("skipped torn.png: ").count(), 1, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("1 image could not be read"), "{}", outcome.stdout);
    let summary = run(world(), &format!("{line} --out mixed.json --json")).ok().json();
    assert_eq!(summary["broken"], 1);
}

const LAST: &str = "done/checkpoint.safetensors";
const PREVIOUS: &str = "done/checkpoint.previous.safetensors";

/// A copy of the run to damage.
fn copy_of_run() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("done")).unwrap();
    for file in ["config.toml", "metrics.jsonl", "model.safetensors", LAST, PREVIOUS] {
        let file = Path::new("done").join(file.trim_start_matches("done/"));
        std::fs::copy(world().join(&file), copy.path().join(&file)).unwrap();
    }
    copy
}

/// Asserts that the run cannot be resumed, that the message states the remedy, and that the remedy gives the
/// model of an undamaged run.
#[track_caller]
fn check_way_out(folder: &Path, words: &[&str]) {
    let line = "train --threads 2 --resume done --steps 10";
    let way_out = format!("--resume {PREVIOUS}");
    check(&run(folder, line), line, &[words, &[LAST, &way_out]].concat());

    let whole = copy_of_run();
    run(whole.path(), line).ok();
    // First only up to the checkpoint: the damaged file must not become the previous checkpoint.
    run(folder, &format!("train --threads 2 {way_out} --steps 4")).ok();
    run(folder, &format!("train --threads 2 {way_out} --steps 10")).ok();
    let model = |folder: &Path| std::fs::read(folder.join("done/model.safetensors")).unwrap();
    assert!(model(folder) == model(whole.path()), "the way out leads to another model");
    run(folder, "train --threads 2 --resume done --steps 11").ok();
}

#[test]
fn a_truncated_checkpoint_has_one_before_it() {
    for keep in [0.0, 0.001, 0.5, 0.999] {
        let copy = copy_of_run();
        let path = copy.path().join(LAST);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
        check_way_out(copy.path(), &["damaged"]);
    }
}

#[test]
fn a_missing_checkpoint_has_one_before_it() {
    let copy = copy_of_run();
    std::fs::remove_file(copy.path().join(LAST)).unwrap();
    check_way_out(copy.path(), &["missing"]);
}

#[test]
fn a_failed_picture_does_not_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["run/samples.png", "run/curve.png"] {
        std::fs::create_dir_all(folder.path().join(name).join("in the way")).unwrap();
    }
    let outcome = run(folder.path(), &format!("train --data portraits --out run {TINY} --steps 3")).ok();
    for name in ["samples.png", "curve.png"] {
        assert!(outcome.stderr.contains(name), "{}", outcome.stderr);
    }
    assert_eq!(outcome.stderr.matches("training continues").count(), 2, "{}", outcome.stderr);
}

/// State from before a failure is kept, and the records are those of a run without the failure.
#[test]
fn a_failed_evaluation_loses_nothing() {
    let line = format!(
        "train --data portraits --test-data test --out run {TINY} --set train.eval_every=7 --set train.log_every=3"
    );
    let [whole, torn] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&whole, &torn] {
        save_image(&folder.path().join("test/a.png"), 0);
    }
    run(whole.path(), &format!("{line} --steps 20")).ok();

    let image = torn.path().join("test/a.png");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, b"none").unwrap();
    check(&run(torn.path(), &line), &line, &["a.png"]);
    std::fs::write(&image, bytes).unwrap();
    let resume = "train --threads 2 --resume run --steps";
    let outcome = run(torn.path(), &format!("{resume} 20")).ok();
    assert!(!outcome.stderr.contains("step 1/"), "it restarted: {}", outcome.stderr);
    for file in ["metrics.jsonl", "model.safetensors", "best.safetensors"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("run").join(file)).unwrap();
        assert!(read(&torn) == read(&whole), "{file}: {}", String::from_utf8_lossy(&read(&torn)));
    }
}

/// A second process cannot use the folder of an active run.
#[test]
#[cfg(unix)]
fn one_process_per_run() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("train --data portraits --out run {TINY} --minutes 5");
    let mut child =
        common::command(folder.path(), &line).stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !folder.path().join("run/metrics.jsonl").exists() {
        assert!(began.elapsed().as_secs() < 60, "it does not train");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let line = "train --resume run";
    let second = run(folder.path(), line);
    child.kill().unwrap();
    child.wait().unwrap();
    check(&second, line, &["another process", "run"]);
}

/// Images that a run wrote to the data folder are not data.
#[test]
fn images_of_a_run_are_not_data() {
    let folder = tempfile::tempdir().unwrap();
    (0..6).for_each(|i| save_image(&folder.path().join(format!("photos/{i}.png")), i));
    run(folder.path(), &format!("train --data photos --out photos/run {TINY} --steps 2")).ok();
    let outcome = run(folder.path(), "train --threads 2 --resume photos/run --steps 4").ok();
    assert!(outcome.stderr.contains("6 training and 0 test images"), "{}", outcome.stderr);
}

/// A run resumes with its images in another folder, and reports if they differ.
#[test]
fn images_may_move() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    (0..6).for_each(|i| save_image(&at(&format!("photos/{i}.png")), i));
    run(folder.path(), &format!("train --data photos --out run {TINY} --steps 2")).ok();
    std::fs::rename(at("photos"), at("moved")).unwrap();
    let line = "train --threads 2 --resume run --steps 4";
    check(
        &run(folder.path(), line),
        line,
        &["photos", "check that it exists", "train --resume run --device cpu --data FOLDER"],
    );
    let other = "The images have changed";
    let outcome = run(folder.path(), &format!("{line} --data moved")).ok();
    assert!(!outcome.stderr.contains(other), "{}", outcome.stderr);
    let line_with_test = format!("{line} --test-data moved");
    check(&run(folder.path(), &line_with_test), &line_with_test, &["no separate test data", "omit it"]);
    std::fs::remove_file(at("moved/3.png")).unwrap();
    let outcome = run(folder.path(), "train --threads 2 --resume run --steps 6").ok();
    assert_eq!(outcome.stderr.matches(other).count(), 1, "{}", outcome.stderr);
}

#[test]
fn a_flipped_bit_is_detected() {
    let copy = copy_of_run();
    let path = copy.path().join(LAST);
    let bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let line = "train --resume done";
    let check_flipped = |i: usize, at: usize, word| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (i % 8);
        std::fs::write(&path, bytes).unwrap();
        check(&run(copy.path(), line), line, &[word, PREVIOUS]);
    };
    // In the header, the result may be invalid JSON, another tensor name, or another number in the
    // configuration.
    for (i, at) in (0..data).step_by(data / 40).enumerate() {
        check_flipped(i, at, LAST);
    }
    for (i, at) in (data..bytes.len()).step_by((bytes.len() - data) / 20).enumerate() {
        check_flipped(i, at, "checksum");
    }
    check_way_out(copy.path(), &["checksum"]);
}
