//! Generated portraits depend only on seed and index, and show their attributes.

use glowflow_data::Dataset;
use glowflow_data::portraits::{ATTRIBUTES, EYES, Portraits, measure};

fn picture(portraits: &Portraits, index: usize) -> Vec<u8> {
    let mut pixels = vec![0; portraits.shape().len()];
    portraits.read(index, &mut pixels).unwrap();
    pixels
}

#[test]
fn a_picture_depends_only_on_seed_number_and_size() {
    let few = Portraits::new(10, 32, 3);
    let many = Portraits::new(1000, 32, 3);
    let fourth = picture(&few, 4);
    assert_eq!(picture(&many, 4), fourth);
    assert_ne!(picture(&many, 5), fourth);
    assert_ne!(picture(&Portraits::new(10, 32, 4), 4), fourth);
    let elsewhere = std::thread::spawn(move || picture(&few, 4));
    assert_eq!(elsewhere.join().unwrap(), fourth);
}

#[test]
fn the_same_people_at_another_size() {
    let small = Portraits::new(20, 32, 3);
    let large = Portraits::new(20, 64, 3);
    for index in 0..20 {
        assert_eq!(small.attributes(index), large.attributes(index));
    }
    assert_eq!(picture(&large, 0).len(), 64 * 64 * 3);
}

#[test]
fn attributes_are_even_and_uncorrelated() {
    let count = 4000;
    let portraits = Portraits::new(count, 32, 3);
    let signs: Vec<[f64; ATTRIBUTES.len()]> = (0..count)
        .map(|i| portraits.attributes(i).map(|(_, present)| if present { 1.0 } else { -1.0 }))
        .collect();
    let mean = |product: &dyn Fn(&[f64; ATTRIBUTES.len()]) -> f64| {
        signs.iter().map(product).sum::<f64>() / count as f64
    };
    for a in 0..ATTRIBUTES.len() {
        assert!(mean(&|s| s[a]).abs() < 0.06, "{}", ATTRIBUTES[a]);
        for b in 0..a {
            let correlation = mean(&|s| s[a] * s[b]);
            assert!(correlation.abs() < 0.06, "{} {}", ATTRIBUTES[a], ATTRIBUTES[b]);
        }
    }
}

#[test]
fn measured_attributes_are_those_drawn() {
    let count = 1000;
    for size in [32, 64] {
        let portraits = Portraits::new(count, size, 11);
        let mut right = [0; ATTRIBUTES.len()];
        for index in 0..count {
            let scores = measure(&picture(&portraits, index), size);
            for (a, (_, present)) in portraits.attributes(index).into_iter().enumerate() {
                right[a] += usize::from((scores[a] > 0.0) == present);
            }
        }
        for (name, right) in ATTRIBUTES.iter().zip(right) {
            let share = right as f64 / count as f64;
            assert!(share >= 0.97, "{name} at {size} pixels: {share}");
        }
    }
}

#[test]
fn eyes_are_on_average_at_the_drawn_positions() {
    const SIZE: usize = 100;
    let portraits = Portraits::new(400, SIZE, 3);
    let mut sum = vec![0.0; SIZE * SIZE];
    let mut pixels = vec![0; portraits.shape().len()];
    for index in 0..portraits.len() {
        portraits.read(index, &mut pixels).unwrap();
        for (sum, pixel) in sum.iter_mut().zip(pixels.chunks(3)) {
            *sum += pixel.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
    }
    // The pupil is the darkest pixel between brow and cheek.
    let darkest = |columns: std::ops::Range<usize>| {
        let places = columns.flat_map(|x| (42..56).map(move |y| (x, y)));
        let patch = |(x, y): (usize, usize)| {
            (y - 2..=y + 2)
                .flat_map(move |y| (x - 2..=x + 2).map(move |x| (x, y)))
                .map(|(x, y)| sum[y * SIZE + x])
        };
        let (x, y) = places.min_by(|&a, &b| patch(a).sum::<f64>().total_cmp(&patch(b).sum())).unwrap();
        [(x as f64 + 0.5) / SIZE as f64, (y as f64 + 0.5) / SIZE as f64]
    };
    for (found, expected) in [(darkest(33..47), EYES.left()), (darkest(53..67), EYES.right())] {
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.012, "{found} is not {expected}");
        }
    }
}
