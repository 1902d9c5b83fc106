//! The learning curve decodes, shows its points, and accepts any numbers that a run produces.

use glowflow_report::curve::Curve;
use image::RgbImage;

fn drawn(train: &[(f64, f64)], test: &[(f64, f64)]) -> RgbImage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curve.png");
    let title = "portraits 32 × 32";
    Curve { title, train, test }.save(&path).unwrap();
    image::open(&path).unwrap().to_rgb8()
}

/// Pixels that are clearly blue (training) and clearly red (test).
fn blue_and_red(picture: &RgbImage) -> [Vec<(u32, u32)>; 2] {
    let of = |strong: usize, weak: usize| {
        let clear =
            picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[strong] > 150 && pixel.0[weak] < 60);
        clear.map(|(x, y, _)| (x, y)).collect()
    };
    [of(2, 0), of(0, 2)]
}

fn falling(count: u32) -> Vec<(f64, f64)> {
    (1..=count)
        .map(|step| {
            let noise = f64::from(step * 7919 % 101) / 500.0;
            (f64::from(step), 3.0 + 40.0 / f64::from(step) + noise)
        })
        .collect()
}

#[test]
fn both_curves_are_visible() {
    let picture = drawn(&falling(2000), &[(500.0, 3.3), (1000.0, 3.2), (2000.0, 3.1)]);
    assert_eq!(picture.dimensions(), (900, 560));
    let [blue, red] = blue_and_red(&picture);
    assert!(blue.len() > 800, "{}", blue.len());
    // Three dots and the one in the legend.
    assert!(red.len() > 120, "{}", red.len());
    let ink = picture.pixels().filter(|pixel| pixel.0[0] < 90).count();
    assert!(ink > 2000, "axes, numbers and title: {ink}");
}

#[test]
fn the_first_values_do_not_flatten_the_rest() {
    let mut train = falling(500);
    for (point, value) in train.iter_mut().zip([1e30, f64::INFINITY, 5e4, f64::NAN, 900.0]) {
        point.1 = value;
    }
    let [blue, _] = blue_and_red(&drawn(&train, &[]));
    // The part after the first third still spans much of the height.
    let late = blue.iter().filter(|(x, _)| (350..650).contains(x));
    let (top, bottom) = late.fold((u32::MAX, 0), |(top, bottom), (_, y)| (top.min(*y), bottom.max(*y)));
    assert!(bottom - top > 20, "{top} to {bottom}");
}

#[test]
fn any_number_of_points_is_accepted() {
    for train in [
        vec![],
        vec![(0.0, 5.0)],
        vec![(10.0, 5.0), (20.0, 5.0)],
        vec![(10.0, f64::NAN)],
        vec![(1.0, 1e300), (2.0, -1e300)],
        vec![(1.0, 1e9), (2.0, 4.0), (3.0, 3.9)],
        (1..100).map(|step| (f64::from(step), if step % 2 == 0 { 1e308 } else { -1e308 })).collect(),
        (1..100).map(|step| (f64::from(step), if step % 2 == 0 { 3e38 } else { -3e38 })).collect(),
        vec![(1.0, 1e30), (2.0, 1e30), (3.0, 1e30)],
        vec![(1.0, 3e38), (2.0, 4.0), (3.0, 3.9), (4.0, 3.9), (5.0, 3.8)],
    ] {
        let picture = drawn(&train, &train);
        assert!(picture.pixels().any(|pixel| pixel.0[0] < 90), "{train:?}");
    }
}
