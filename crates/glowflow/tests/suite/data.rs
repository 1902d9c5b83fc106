//! Opening of data for a model.

use std::path::Path;

use glowflow::{GlowConfig, data};
use glowflow_data::{Dataset, Error, ImageShape, save_png};

/// Returns whether an image can still be read after its file is deleted.
fn keeps_images(dataset: &dyn Dataset, folder: &Path) -> bool {
    let mut pixels = vec![0; dataset.shape().len()];
    dataset.read(0, &mut pixels).unwrap();
    std::fs::remove_file(folder.join(dataset.name(0))).unwrap();
    match dataset.read(0, &mut pixels) {
        Ok(()) => true,
        Err(Error::BrokenImage { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn only_training_keeps_decoded_images() {
    let config = GlowConfig { image: [8, 8, 3], levels: 1, ..GlowConfig::default() }.into();
    let shape = ImageShape { height: 8, width: 8, channels: 3 };
    for training in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        save_png(&folder.path().join("1.png"), shape, &[7; 192]).unwrap();
        let splits = match training {
            true => data::open(folder.path(), &config, &[]),
            false => data::open_for(folder.path(), &config, &[], None),
        };
        assert_eq!(keeps_images(&*splits.unwrap().train, folder.path()), training);
    }
}
