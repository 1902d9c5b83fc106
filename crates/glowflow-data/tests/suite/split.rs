//! Held-out images.

use crate::common::{numbered_folder, open_as, read, shape};
use glowflow_data::{Dataset, Subset, save_png, split};

const SMALL: glowflow_data::ImageShape = shape(2, 2, 1);

#[test]
fn parts_are_disjoint_complete_and_repeatable() {
    let (_folder, data) = numbered_folder(20, SMALL);
    let (train, test) = split(data.clone(), 0.25, 7).unwrap();
    assert_eq!((train.len(), test.len()), (15, 5));
    let mut all = [train.indices(), test.indices()].concat();
    all.sort();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert!(train.indices().is_sorted() && test.indices().is_sorted());

    assert_eq!(split(data.clone(), 0.25, 7).unwrap().1.indices(), test.indices());
    assert_ne!(split(data, 0.25, 8).unwrap().1.indices(), test.indices());
}

#[test]
fn a_seed_gives_the_same_images_in_every_version() {
    let (_folder, data) = numbered_folder(20, SMALL);
    assert_eq!(split(data, 0.25, 7).unwrap().1.indices(), [3, 9, 12, 16, 17]);
}

#[test]
fn fractions_that_leave_a_side_empty_are_refused() {
    let (_folder, data) = numbered_folder(4, SMALL);
    for fraction in [0.0, 1.0, -0.5, 1.5, 0.01, 0.99, f64::NAN, f64::INFINITY] {
        let error = split(data.clone(), fraction, 1).err().unwrap().to_string();
        assert!(error.contains(&fraction.to_string()) && error.contains("4 images"), "{error}");
    }
}

#[test]
fn a_subset_shows_its_images_and_their_faults() {
    let (folder, _) = numbered_folder(6, SMALL);
    std::fs::write(folder.path().join("0001.png"), "text").unwrap();
    std::fs::write(folder.path().join("0004.png"), "text").unwrap();
    save_png(&folder.path().join("0006.png"), shape(1, 1, 1), &[3]).unwrap();
    let data = open_as(folder.path(), SMALL).train;
    let subset = Subset::new(data.clone(), vec![6, 4, 2]);
    assert_eq!((subset.len(), subset.shape(), subset.name(0).as_str()), (3, SMALL, "0006.png"));
    assert_eq!(read(&subset, 0), [3; 4]);
    for i in 0..7 {
        let _ = data.read(i, &mut [0; 4]);
    }
    let broken: Vec<_> = subset.broken().into_iter().map(|b| (b.index, b.name)).collect();
    assert_eq!(broken, [(1, "0004.png".to_owned())]);
    assert_eq!(data.broken().len(), 2);
}
