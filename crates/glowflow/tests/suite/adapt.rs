//! Adaptation of a new run's model to the data: grey images, other sizes, classes.

use std::path::Path;

use crate::common::NEVER;
use glowflow::train::{Adapt, Adapted, RunConfig, adapt};
use glowflow::{Error, ModelConfig};
use glowflow_data::{ImageShape, save_png};

/// Saves a grey gradient image whose `channels` are equal, or differ by `tint`.
fn save(path: &Path, (height, width): (usize, usize), channels: usize, tint: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |i: usize| (0..channels).map(move |c| (i % 200) as u8 + tint * c as u8);
    let pixels: Vec<u8> = (0..height * width).flat_map(pixel).collect();
    save_png(path, ImageShape { height, width, channels }, &pixels).unwrap();
}

fn run(data: &Path, want: Adapt) -> Result<(ModelConfig, Adapted), Error> {
    let mut config = RunConfig::resolve(Some("tiny32"), None, &[]).unwrap();
    config.data.path = Some(data.to_owned());
    let adapted = adapt(&mut config, want, &NEVER)?;
    Ok((config.model, adapted))
}

const CHANNELS: Adapt = Adapt { channels: true, classes: false };
const BOTH: Adapt = Adapt { channels: true, classes: true };

/// Sizes without an effect are reported with the setting that uses them, and not reported if that setting is
/// active.
#[test]
fn sizes_that_nothing_reads_are_noticed() {
    let notices = |preset: &str, set: &[&str]| {
        let set: Vec<String> = set.iter().map(|text| text.to_string()).collect();
        let mut config = RunConfig::resolve(Some(preset), None, &set).unwrap();
        config.data.path = Some("portraits".into());
        adapt(&mut config, Adapt::default(), &NEVER).unwrap().notices
    };
    for (preset, key, needs) in [
        ("tiny32", "network_blocks", "network=\"residual\""),
        ("tiny32", "mixture_components", "coupling=\"mixture\""),
        ("tiny32", "dequantization_couplings", "dequantization=\"variational\""),
        ("tiny32", "dequantization_hidden", "dequantization=\"variational\""),
        ("realnvp-tiny32", "dequantization_channels", "dequantization=\"variational\""),
    ] {
        let (size, needs) = (format!("model.{key}=3"), format!("model.{needs}"));
        let have = notices(preset, &[&size]);
        let want = format!("model.{key} is 3, which has no effect without {}", needs.replace('=', " = "));
        assert_eq!(have, [want]);
        assert_eq!(notices(preset, &[&size, &needs]), [""; 0], "{key}");
    }
    assert_eq!(notices("tiny32", &[]), [""; 0]);
}

#[test]
fn grey_images_make_a_grey_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for i in 0..70 {
        save(&at(&format!("grey/{i}.png")), (32, 32), 1, 0);
        // Almost grey, like black-and-white photographs from cameras.
        save(&at(&format!("rgb/{i}.png")), (32, 32), 3, u8::from(i % 2 == 0));
        save(&at(&format!("colour/{i}.png")), (32, 32), 3, 20);
        save(&at(&format!("mixed/{i}.png")), (32, 32), if i % 4 == 0 { 3 } else { 1 }, 20);
    }
    std::fs::write(at("grey/torn.png"), b"\x89PNG\r\n\x1a\n and nothing").unwrap();
    for (name, channels) in [("grey", 1), ("rgb", 1), ("colour", 3), ("mixed", 3)] {
        let (model, adapted) = run(&at(name), CHANNELS).unwrap();
        assert_eq!(model.image(), [32, 32, channels], "{name}");
        let said =
            adapted.notices.iter().any(|notice| notice.contains("grey") && notice.contains("[32, 32, 1]"));
        assert_eq!(said, channels == 1, "{name}: {:?}", adapted.notices);
    }
    // RealNVP's limit of the gradient norm depends on the number of dimensions.
    let [mut grey, one] = [&[][..], &["model.image=[32,32,1]".to_owned()]]
        .map(|set| RunConfig::resolve(Some("realnvp-tiny32"), None, set).unwrap());
    grey.data.path = Some(at("grey"));
    adapt(&mut grey, CHANNELS, &NEVER).unwrap();
    assert_eq!((grey.model, grey.train), (one.model, one.train));
    // An explicitly configured model keeps its channels, and the difference is reported.
    let (model, adapted) = run(&at("grey"), Adapt::default()).unwrap();
    assert_eq!(model.image(), [32, 32, 3]);
    assert_eq!(adapted.notices, ["all 70 images are grey; the model has 3 channels, for colour"]);
    let mut config = RunConfig::resolve(Some("tiny32"), None, &["model.image=[32,32,1]".into()]).unwrap();
    config.data.path = Some(at("colour"));
    let adapted = adapt(&mut config, Adapt::default(), &NEVER).unwrap();
    assert_eq!(config.model.image(), [32, 32, 1]);
    assert_eq!(adapted.notices, ["images are converted to grey, since the model has 1 channel"]);
}

/// Writes an idx file.
fn idx(path: &Path, dimensions: &[u32], bytes: &[u8]) {
    let mut file = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|n| file.extend(n.to_be_bytes()));
    file.extend(bytes);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, file).unwrap();
}

#[test]
fn idx_files_are_grey_resized_and_have_classes() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<u8> = (0..20 * 28 * 28).map(|i| (i % 251) as u8).collect();
    idx(&folder.path().join("train-images-idx3-ubyte"), &[20, 28, 28], &images);
    let labels: Vec<u8> = (0..20).map(|i| i % 4).collect();
    idx(&folder.path().join("train-labels-idx1-ubyte"), &[20], &labels);

    let (model, adapted) = run(folder.path(), CHANNELS).unwrap();
    assert_eq!((model.image(), model.classes()), ([32, 32, 1], 0));
    let text = adapted.notices.join("\n");
    assert!(text.contains("enlarged to the model's 32×32 pixels; the first has 28×28"), "{text}");
    assert_eq!(adapted.unused_classes, 4);

    let (model, adapted) = run(folder.path(), BOTH).unwrap();
    assert_eq!((model.image(), model.classes(), adapted.unused_classes), ([32, 32, 1], 4, 0));
    assert!(adapted.notices.join("\n").contains("4 classes: 0, 1, 2, 3"), "{:?}", adapted.notices);
}

#[test]
fn classes_are_those_of_the_folders() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cat/1.png", "dog/1.png", "dog/2.png"] {
        save(&folder.path().join("animals").join(name), (40, 60), 3, 20);
        save(&folder.path().join("flat").join(name.replace('/', "-")), (40, 60), 3, 20);
    }
    let (model, adapted) = run(&folder.path().join("animals"), BOTH).unwrap();
    assert_eq!((model.image(), model.classes()), ([32, 32, 3], 2));
    let text = adapted.notices.join("\n");
    assert!(text.contains("2 classes: cat, dog"), "{text}");
    assert!(text.contains("centre-cropped and reduced") && text.contains("60×40"), "{text}");
    let error = run(&folder.path().join("flat"), BOTH).unwrap_err();
    assert!(error.to_string().contains("sub-folder"), "{error}");
    let error = run(Path::new("portraits"), BOTH).unwrap_err();
    assert!(error.to_string().contains("portraits have no classes"), "{error}");
}
