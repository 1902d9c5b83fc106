//! Errors of the operating system fail the batch and never mark an image as broken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{pattern, shape};
use glowflow_data::{
    Augment, Dataset, Error, ImageShape, TrainingBatches, TrainingOptions, batches_in_order,
};

const SMALL: ImageShape = shape(2, 2, 3);

/// Eight images, of which number 2 is broken and number 5 cannot be read `failures` times.
struct Failing {
    failures: AtomicUsize,
}

impl Dataset for Failing {
    fn len(&self) -> usize {
        8
    }

    fn shape(&self) -> ImageShape {
        SMALL
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        let order = Ordering::Relaxed;
        match index {
            2 => Err(Error::BrokenImage { name: "2".into(), reason: "torn".into() }),
            5 if self.failures.fetch_update(order, order, |left| left.checked_sub(1)).is_ok() => {
                Err(Error::System { path: "5".into(), source: io::Error::other("too many open files") })
            }
            _ => {
                pixels.copy_from_slice(&pattern(SMALL, index));
                Ok(())
            }
        }
    }
}

fn dataset(failures: usize) -> Arc<dyn Dataset> {
    Arc::new(Failing { failures: AtomicUsize::new(failures) })
}

#[test]
fn reading_in_order_ends_with_the_error() {
    for batch_size in [1, 3, 8] {
        let mut batches = batches_in_order(dataset(1), batch_size, 2).unwrap();
        let error = batches.find_map(Result::err);
        assert!(matches!(error, Some(Error::System { .. })), "{error:?}");
    }
    let batches = batches_in_order(dataset(0), 3, 2).unwrap();
    assert_eq!(batches.map(|batch| batch.unwrap().indices.len()).sum::<usize>(), 7);
}

#[test]
fn training_takes_no_other_image_instead() {
    let options =
        TrainingOptions { batch_size: 4, seed: 1, augment: Augment::default(), start_at: 0, threads: 2 };
    let error = TrainingBatches::new(dataset(usize::MAX), options).unwrap().take(4).find_map(Result::err);
    assert!(matches!(error, Some(Error::System { .. })), "{error:?}");
}
