//! Damaged files and files of other kinds are rejected; every modification is detected.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::common::glow;
use glowflow::latent::{About, Direction, Directions};
use glowflow::latents_file::LatentsFile;
use glowflow::tensor_file::{TensorData, TensorFile};
use glowflow::{GlowConfig, ModelFile};
use glowflow_data::portraits::Portraits;

fn small() -> ModelFile {
    let config = GlowConfig { image: [16, 16, 3], levels: 2, steps: 1, hidden: 4, ..GlowConfig::default() };
    ModelFile::new(config, 0).unwrap()
}

fn directions(model: &ModelFile) -> Directions {
    let glow = glow(model);
    let direction = |seed: u64| {
        let about = About { name: format!("Attribute{seed}"), positives: 12, negatives: 34, auc: None };
        Direction { about, latents: glow.draw(1, 1.0, seed).unwrap() }
    };
    let list = vec![direction(0), direction(1)];
    Directions { config: model.config.clone(), model: model.fingerprint(), list }
}

/// Flips bits of the header, which is mostly JSON, and of the tensors. `accepted` returns true if a file is
/// read with different content. A flip in the name of the checksum's own entry changes nothing else.
fn check_flips(path: &Path, accepted: impl Fn(&Path) -> bool) {
    let bytes = std::fs::read(path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let flipped = path.with_extension("flipped");
    let in_header = (0..8 * data).step_by(1 + data / 400);
    let in_tensors = (8 * data..8 * bytes.len()).step_by(1 + (bytes.len() - data) / 25);
    for bit in in_header.chain(in_tensors) {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&flipped, &bytes).unwrap();
        assert!(
            !accepted(&flipped),
            "bit {} of byte {} (tensors from {data}) goes unnoticed",
            bit % 8,
            bit / 8
        );
    }
}

#[test]
fn a_flipped_bit_of_a_model_does_not_go_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    small().write(&path).unwrap();
    assert!(ModelFile::read(&path).unwrap() == small());
    check_flips(&path, |path| ModelFile::read(path).is_ok_and(|read| read != small()));
}

#[test]
fn a_flipped_bit_of_latents_does_not_go_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents");
    let data = Arc::new(Portraits::new(2, 16, 0)) as Arc<dyn glowflow_data::Dataset>;
    let encoded = LatentsFile::encode(&glow(&small()), &data, None).unwrap().file;
    encoded.write(&path).unwrap();
    assert!(LatentsFile::read(&path).unwrap() == encoded);
    check_flips(&path, |path| LatentsFile::read(path).is_ok_and(|read| read != encoded));
}

#[test]
fn a_flipped_bit_of_directions_does_not_go_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directions");
    let (model, directions) = (small(), directions(&small()));
    let glow = glow(&model);
    directions.write(&path).unwrap();
    assert!(Directions::read(&path, &glow).unwrap() == directions);
    check_flips(&path, |path| Directions::read(path, &glow).is_ok_and(|read| read != directions));
}

#[test]
fn directions_are_finite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directions");
    let (model, mut directions) = (small(), directions(&small()));
    directions.write(&path).unwrap();
    directions.list[1].latents.0[0][[0, 1, 1, 0]] = f32::NAN;
    let error = directions.write(&path).unwrap_err().to_string();
    assert!(error.contains("Attribute1") && error.contains("not finite"), "{error}");
    assert!(Directions::read(&path, &glow(&model)).is_ok(), "the file that was there is still there");
}

#[test]
fn weights_are_finite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut model = small();
        let layout = model.layout();
        let parameter = &layout.parameters[layout.parameters.len() / 2];
        model.weights[parameter.span.range().start] = number;
        model.write(&path).unwrap();
        let error = ModelFile::read(&path).unwrap_err().to_string();
        assert!(error.contains(&parameter.name) && error.contains(&number.to_string()), "{error}");
    }
}

/// Models from other programs, and those of earlier versions, have no checksum.
#[test]
fn models_without_a_checksum_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = small();
    model.write(&path).unwrap();
    assert!(std::fs::read(&path).unwrap().windows(8).any(|part| part == b"checksum"));
    TensorFile::read(&path).unwrap().write(&path, "glow.config", &model.config).unwrap();
    assert!(!std::fs::read(&path).unwrap().windows(8).any(|part| part == b"checksum"));
    assert!(ModelFile::read(&path).unwrap() == model);
}

/// The library writes the same file, including a metadata entry, as the code here does without a checksum.
#[test]
fn files_are_those_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = small();
    model.write(&path).unwrap();
    TensorFile::read(&path).unwrap().write(&path, "glow.config", &model.config).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(safetensors::serialize(tensors.iter(), header.metadata().clone()).unwrap(), bytes);
}

/// Names may contain multi-byte characters, and a header may be long.
#[test]
fn names_and_sizes_of_headers_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for count in [0, 1, 2, 3, 3_000] {
        let mut file = TensorFile::default();
        for i in 0..count {
            file.tensors.insert(format!("é{i}"), TensorData::f32(&[1], &[i as f32]));
        }
        file.write_with_checksum(&path, "names", &["Ω\u{0301}", "字", "\"\n"]).unwrap();
        let (read, names) = TensorFile::read_with_checksum::<Vec<String>>(&path, "names").unwrap();
        assert_eq!((&read.tensors, names.len()), (&file.tensors, 3), "{count} tensors");
        safetensors::SafeTensors::deserialize(&std::fs::read(&path).unwrap()).unwrap();
    }
}

/// Other programs reject unknown members of the configuration.
#[test]
fn the_checksum_is_not_part_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = small();
    model.write(&path).unwrap();
    let written: serde_json::Value = TensorFile::read(&path).unwrap().header("glow.config", &path).unwrap();
    assert_eq!(written, serde_json::to_value(&model.config).unwrap());
}

/// A program that changes a tensor and keeps the metadata gets an error with advice.
#[test]
fn a_changed_file_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    small().write(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("checksum does not match") && error.contains("remove the entry"), "{error}");
}

#[test]
fn files_of_other_kinds_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let html = b"  <!DOCTYPE html><html><body>Sign in</body></html>".to_vec();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614\nsize 12345\n".to_vec();
    small().write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    let longer = [&whole[..], b"trailing"].concat();
    for (content, words) in [
        (pointer, ["Git LFS pointer", "git lfs pull"]),
        (html, ["web page", "download"]),
        (b"\xef\xbb\xbf<?xml version=\"1.0\"?>".to_vec(), ["web page", "download"]),
        (b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl".to_vec(), ["zip archive", "PyTorch"]),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00model".to_vec(), ["pickle", "PyTorch"]),
        (b"\x89HDF\r\n\x1a\n\x00\x00\x00".to_vec(), ["HDF5", "Keras"]),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(), ["gzip", "unpack"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR".to_vec(), ["PNG", "not a safetensors file"]),
        (b"Entry not found".to_vec(), ["Entry not found", "text"]),
        (vec![], ["empty", "damaged"]),
        (vec![1, 2, 3], ["not a safetensors file", "3 bytes"]),
        (vec![0xf7; 1000], ["not a safetensors file", "1000 bytes"]),
        (vec![0; 1000], ["not a safetensors file", "damaged"]),
        (half, ["cut short", "bytes"]),
        (longer, ["damaged", "8 more"]),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = ModelFile::read(&path).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = ModelFile::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("holds no model"), "{error}");
    std::fs::create_dir(&path).unwrap();
    let error = ModelFile::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a folder"), "{error}");
}

/// Peak memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Files are not read completely before their type is verified.
#[test]
#[cfg(target_os = "linux")]
fn large_and_endless_files_are_refused_with_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let before = peak();
    let zeros = folder.path().join("zeros");
    File::create(&zeros).unwrap().set_len(3 << 30).unwrap();
    // A 3 GB file that is complete according to its header, but not a model.
    let large = folder.path().join("large");
    let header = format!(r#"{{"x":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, 3_u64 << 30);
    let mut file = File::create(&large).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + (3 << 30)).unwrap();
    // A header that claims to be larger than the format allows.
    let long = folder.path().join("long");
    let mut file = File::create(&long).unwrap();
    file.write_all(&(1_u64 << 31).to_le_bytes()).unwrap();
    file.set_len(3 << 30).unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&*zeros, &large, &long, &pipe, Path::new("/dev/zero"), folder.path()] {
        let began = std::time::Instant::now();
        let error = ModelFile::read(path).unwrap_err().to_string();
        assert!(began.elapsed().as_secs() < 5, "{error}");
    }
    // Other tests of this program run concurrently.
    assert!(peak() - before < 200 << 20, "{} bytes", peak() - before);
}

#[test]
fn vectors_of_other_programs_are_read() {
    for name in ["additive_shuffle_5bit", "affine_lu", "class_conditional_reverse"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
        ModelFile::read(&path).unwrap();
    }
}
