//! Training batches: order, resumption, augmentation, broken images.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{numbered_folder, open_as, open_default, pattern, shape};
use glowflow_data::{
    Augment, Batch, Dataset, Edge, Error, ImageShape, TrainingBatches, TrainingOptions, batches_in_order,
    save_png,
};

const SMALL: ImageShape = shape(6, 4, 3);
const PLAIN: TrainingOptions = TrainingOptions {
    batch_size: 4,
    seed: 1,
    augment: Augment { shift: 0.0, edge: Edge::Replicate, flip: false },
    start_at: 0,
    threads: 2,
};
const AUGMENTED: TrainingOptions =
    TrainingOptions { augment: Augment { shift: 0.3, edge: Edge::Reflect, flip: true }, ..PLAIN };

fn batches(data: &Arc<dyn Dataset>, options: TrainingOptions, count: usize) -> Vec<Batch> {
    TrainingBatches::new(data.clone(), options).unwrap().take(count).map(|batch| batch.unwrap()).collect()
}

#[test]
fn every_epoch_shows_every_image_once_in_a_new_order() {
    let (_folder, data) = numbered_folder(12, SMALL);
    let batches = batches(&data, PLAIN, 9);
    let orders: Vec<Vec<usize>> = batches
        .chunks(3)
        .map(|epoch| epoch.iter().flat_map(|batch| batch.indices.clone()).collect())
        .collect();
    for order in &orders {
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..12).collect());
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    assert_eq!(batches.iter().map(|batch| batch.number).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
}

#[test]
fn without_augmentation_pixels_are_the_images() {
    let (_folder, data) = numbered_folder(10, SMALL);
    for batch in batches(&data, PLAIN, 5) {
        assert!(batch.labels.is_empty());
        let expected: Vec<u8> = batch.indices.iter().flat_map(|&i| pattern(SMALL, i)).collect();
        assert_eq!(batch.pixels, expected);
    }
}

/// Order and augmentation of an image depend on its position in the batch alone.
#[test]
fn rows_are_slices_of_batches() {
    let (_folder, data) = numbered_folder(11, SMALL);
    let reference = batches(&data, AUGMENTED, 6);
    let image = SMALL.len();
    for rows in [0..4, 0..2, 2..4, 3..4, 1..9, 4..4] {
        let end = rows.end.min(4);
        let stream = TrainingBatches::of_rows(data.clone(), AUGMENTED, rows.clone()).unwrap();
        for (batch, whole) in stream.take(6).map(Result::unwrap).zip(&reference) {
            assert_eq!(batch.number, whole.number);
            assert_eq!(batch.indices, whole.indices[rows.start..end]);
            assert_eq!(batch.pixels, whole.pixels[rows.start * image..end * image]);
        }
    }
}

#[test]
fn threads_and_resumption_change_nothing() {
    let (_folder, data) = numbered_folder(11, SMALL);
    let reference = batches(&data, AUGMENTED, 20);
    for threads in [0, 1, 3, 7] {
        for start_at in [0, 1, 5, 13] {
            let options = TrainingOptions { threads, start_at, ..AUGMENTED };
            assert_eq!(batches(&data, options, 7), reference[start_at as usize..][..7]);
        }
    }
    assert_ne!(batches(&data, TrainingOptions { seed: 2, ..AUGMENTED }, 20), reference);
}

#[test]
fn any_batch_number_can_be_the_first() {
    let (_folder, data) = numbered_folder(4, SMALL);
    let options = TrainingOptions { start_at: u64::MAX, ..AUGMENTED };
    assert_eq!(batches(&data, options, 1)[0].number, u64::MAX);
}

#[test]
fn a_seed_gives_the_same_order_in_every_version() {
    let (_folder, data) = numbered_folder(8, SMALL);
    let indices: Vec<_> = batches(&data, PLAIN, 2).into_iter().flat_map(|batch| batch.indices).collect();
    assert_eq!(indices, [4, 6, 0, 3, 7, 2, 5, 1]);
}

/// The image shifted and optionally mirrored, pixel by pixel.
fn moved(image: &[u8], shape: ImageShape, edge: Edge, down: i32, right: i32, flip: bool) -> Vec<u8> {
    let beyond = |at: i32, size: usize| {
        let last = size as i32 - 1;
        match edge {
            Edge::Replicate => at.max(0).min(last),
            Edge::Reflect if at < 0 => -at,
            Edge::Reflect if at > last => 2 * last - at,
            Edge::Reflect => at,
        }
    };
    let mut moved = Vec::new();
    for y in 0..shape.height as i32 {
        for x in 0..shape.width as i32 {
            let (y, x) = (beyond(y - down, shape.height), beyond(x - right, shape.width));
            let x = if flip { shape.width as i32 - 1 - x } else { x };
            let at = (y as usize * shape.width + x as usize) * shape.channels;
            moved.extend(&image[at..at + shape.channels]);
        }
    }
    moved
}

#[test]
fn all_shifts_and_flips_occur_and_move_pixels_as_documented() {
    for (shape, edge) in [(shape(10, 5, 3), Edge::Replicate), (shape(10, 5, 1), Edge::Reflect)] {
        let (_folder, data) = numbered_folder(1, shape);
        let image = pattern(shape, 0);
        // Up to 2 rows and 1 column.
        let augment = Augment { shift: 0.2, edge, flip: true };
        let options = TrainingOptions { batch_size: 1, augment, ..PLAIN };
        let mut missing = Vec::new();
        for (down, right) in (-2..=2).flat_map(|down| (-1..=1).map(move |right| (down, right))) {
            for flip in [false, true] {
                missing.push(moved(&image, shape, edge, down, right, flip));
            }
        }
        let possible = missing.clone();
        let count = 400;
        let mut mirrored = 0;
        for batch in batches(&data, options, count) {
            let which = possible.iter().position(|p| *p == batch.pixels).expect("an impossible image");
            mirrored += which % 2;
            missing.retain(|p| *p != batch.pixels);
        }
        assert!(missing.is_empty(), "{} of {} never occurred", missing.len(), possible.len());
        assert!((150..250).contains(&mirrored), "{mirrored} of {count} were mirrored");
    }
}

#[test]
fn the_largest_shift_suits_the_smallest_image() {
    let (_folder, data) = numbered_folder(1, shape(1, 2, 3));
    for edge in [Edge::Replicate, Edge::Reflect] {
        let augment = Augment { shift: 0.5, edge, flip: true };
        batches(&data, TrainingOptions { batch_size: 1, augment, ..PLAIN }, 20);
    }
}

#[test]
fn a_broken_image_is_replaced_by_the_next() {
    let (folder, _) = numbered_folder(8, SMALL);
    for name in ["0003.png", "0004.png", "0007.png"] {
        std::fs::write(folder.path().join(name), "text").unwrap();
    }
    for threads in [1, 4] {
        let data = open_as(folder.path(), SMALL).train;
        let batches = batches(&data, TrainingOptions { threads, ..PLAIN }, 2);
        let mut indices: Vec<_> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        for (&index, pixels) in indices.iter().zip(batches.iter().flat_map(|b| b.pixels.chunks(SMALL.len())))
        {
            assert_eq!(pixels, pattern(SMALL, index));
        }
        indices.sort();
        assert_eq!(indices, [0, 0, 1, 2, 5, 5, 5, 6]);
        assert_eq!(data.broken().len(), 3);
    }
}

#[test]
fn nothing_but_broken_images_is_an_error() {
    let (folder, _) = numbered_folder(4, SMALL);
    for i in 0..4 {
        std::fs::write(folder.path().join(format!("{i:04}.png")), "text").unwrap();
    }
    let data = open_as(folder.path(), SMALL).train;
    let first = TrainingBatches::new(data.clone(), PLAIN).unwrap().next().unwrap();
    assert!(matches!(first, Err(Error::AllBroken { images: 4, .. })), "{first:?}");
    let mut in_order = batches_in_order(data, 3, 2).unwrap();
    assert!(matches!(in_order.next(), Some(Err(Error::AllBroken { images: 4, .. }))));
    assert!(in_order.next().is_none());
}

#[test]
fn impossible_options_are_refused() {
    let (_folder, data) = numbered_folder(4, SMALL);
    let shift = |shift| TrainingOptions { augment: Augment { shift, ..Default::default() }, ..PLAIN };
    for (options, expected) in [
        (TrainingOptions { batch_size: 5, ..PLAIN }, "4 training images are fewer than one batch of 5"),
        (TrainingOptions { batch_size: 0, ..PLAIN }, "train.batch"),
        (shift(0.6), "0.6"),
        (shift(-0.1), "-0.1"),
        (shift(f64::NAN), "NaN"),
    ] {
        let error = TrainingBatches::new(data.clone(), options).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(batches_in_order(data, 0, 1).is_err());
}

#[test]
fn batches_in_order_visit_every_image_once() {
    let (_folder, data) = numbered_folder(11, SMALL);
    for threads in [0, 1, 3, 20] {
        let batches: Vec<Batch> =
            batches_in_order(data.clone(), 4, threads).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(|b| b.indices.len()).collect::<Vec<_>>(), [4, 4, 3]);
        assert!(batches.iter().flat_map(|b| &b.indices).copied().eq(0..11));
        let expected: Vec<u8> = (0..11).flat_map(|i| pattern(SMALL, i)).collect();
        assert_eq!(batches.into_iter().flat_map(|b| b.pixels).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn labels_go_with_their_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("six.bin");
    let records: Vec<u8> = (0..6u8).flat_map(|label| [vec![label], vec![label; 3072]].concat()).collect();
    std::fs::write(&path, records).unwrap();
    for batch in batches(&open_default(&path).train, AUGMENTED, 5) {
        assert_eq!(batch.labels, batch.indices);
        assert!(
            batch
                .pixels
                .chunks(3072)
                .zip(&batch.labels)
                .all(|(p, &l)| p.iter().all(|&v| usize::from(v) == l))
        );
    }
}

#[test]
fn dropping_a_stream_ends_its_threads() {
    let (folder, data) = numbered_folder(4, SMALL);
    save_png(&folder.path().join("more.png"), SMALL, &pattern(SMALL, 9)).unwrap();
    let mut stream = TrainingBatches::new(data.clone(), TrainingOptions { threads: 5, ..PLAIN }).unwrap();
    stream.next().unwrap().unwrap();
    drop(stream);
    // Every thread held a reference to the dataset.
    assert_eq!(Arc::strong_count(&data), 1);
}
