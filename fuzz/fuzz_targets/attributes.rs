//! A table of attributes, matched with image names.

#![no_main]

use glowflow_data::{Attributes, Dataset, Error, ImageShape};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 4] = ["ann.jpg", "bob.jpg", "photos/ann.png", "photos/zoë.jpg"];

/// Images with these names.
struct Named;

impl Dataset for Named {
    fn len(&self) -> usize {
        NAMES.len()
    }

    fn shape(&self) -> ImageShape {
        ImageShape { height: 1, width: 1, channels: 1 }
    }

    fn name(&self, index: usize) -> String {
        NAMES[index].to_owned()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }

    fn read(&self, _index: usize, _pixels: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("attributes.csv", bytes);
    if let Ok(attributes) = Attributes::read(&path, &Named) {
        for image in 0..NAMES.len() {
            assert_eq!(attributes.of(image).len(), attributes.names().len());
        }
    }
});
