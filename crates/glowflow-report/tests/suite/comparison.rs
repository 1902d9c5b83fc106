//! The comparison figure shows each line and its band, and accepts any numbers.

use glowflow_report::comparison::{Comparison, Line, Spread};
use image::RgbImage;

const BLUE: [u8; 3] = [0, 114, 178];
const VERMILION: [u8; 3] = [213, 94, 0];

fn drawn(lines: &[Line]) -> RgbImage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.png");
    let figure =
        Comparison { title: "Permutations", note: "a note", x_label: "images", y_label: "bits/dim", lines };
    figure.save(&path).unwrap();
    image::open(&path).unwrap().to_rgb8()
}

/// A curve that falls to `end`, with values up to `width` around the mean.
fn falling(end: f64, width: f64) -> Vec<Spread> {
    (1..=10)
        .map(|i| {
            let (x, mean) = (1e4 * f64::from(i), end + 0.8 / f64::from(i));
            Spread { x, low: mean - width, mean, high: mean + width }
        })
        .collect()
}

/// Columns and rows of pixels of a colour.
fn pixels(picture: &RgbImage, colour: [u8; 3]) -> Vec<(u32, u32)> {
    picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == colour).map(|(x, y, _)| (x, y)).collect()
}

/// The mean row of a colour's pixels in the right part of the plot, and in the legend.
fn rows(picture: &RgbImage, colour: [u8; 3]) -> [f64; 2] {
    let last = pixels(picture, colour).iter().map(|at| at.0).max().unwrap();
    // The legend's line is 30 pixels wide.
    let mean = |range: std::ops::Range<u32>| {
        let rows: Vec<_> =
            pixels(picture, colour).into_iter().filter(|at| range.contains(&at.0)).map(|at| at.1).collect();
        assert!(!rows.is_empty(), "{colour:?} {range:?}");
        rows.iter().map(|&y| f64::from(y)).sum::<f64>() / rows.len() as f64
    };
    [mean(last - 150..last - 60), mean(last - 25..last + 1)]
}

#[test]
fn lines_and_names_have_the_same_order() {
    let (low, high) = (falling(3.3, 0.0), falling(3.5, 0.0));
    let lines =
        [Line { name: "conv1x1-affine", points: &low }, Line { name: "reverse-affine", points: &high }];
    let picture = drawn(&lines);
    assert_eq!(picture.dimensions(), (960, 560));
    let [[low, low_name], [high, high_name]] = [BLUE, VERMILION].map(|colour| rows(&picture, colour));
    assert!(low > high + 20.0, "{low} {high}");
    assert!(low_name > high_name + 20.0, "{low_name} {high_name}");
    let ink = picture.pixels().filter(|pixel| pixel.0[0] < 60 && pixel.0[2] < 60).count();
    assert!(ink > 1500, "axes, numbers and names: {ink}");
}

#[test]
fn a_band_is_a_light_area_around_its_line() {
    let light = |width: f64| {
        let points = falling(3.3, width);
        let picture = drawn(&[Line { name: "a", points: &points }]);
        let tinted = |pixel: &&image::Rgb<u8>| pixel.0[0] < 220 && pixel.0[2] > 230 && pixel.0[1] > 200;
        picture.pixels().filter(tinted).count()
    };
    let (none, narrow, wide) = (light(0.0), light(0.02), light(0.06));
    assert!(narrow > none + 1000 && wide > narrow + 1000, "{none} {narrow} {wide}");
}

#[test]
fn any_number_of_lines_and_points_is_accepted() {
    let odd = [f64::NAN, f64::INFINITY, 1e300, -1e300, 1e30, 3.0].map(|value| Spread {
        x: 1.0,
        low: value,
        mean: value,
        high: value,
    });
    let one = [Spread { x: 0.0, low: 3.0, mean: 3.0, high: 3.0 }];
    let points = falling(3.3, 0.1);
    let long = "a configuration with a name of more than thirty characters";
    let many: Vec<_> = (0..30).map(|_| Line { name: long, points: &points }).collect();
    for lines in [
        vec![],
        vec![Line { name: "", points: &[] }],
        vec![Line { name: "odd", points: &odd }],
        vec![Line { name: "one", points: &one }],
        many,
    ] {
        let picture = drawn(&lines);
        assert!(picture.pixels().any(|pixel| pixel.0[0] < 90), "{lines:?}");
    }
}

#[test]
fn every_line_is_in_the_legend() {
    let names: Vec<String> = (0..30).map(|arm| format!("arm-{arm:02}")).collect();
    let points: Vec<_> = (0..30).map(|arm| falling(3.3 + 0.01 * f64::from(arm), 0.0)).collect();
    for count in [1, 18, 30] {
        let lines: Vec<_> =
            names.iter().zip(&points).take(count).map(|(name, points)| Line { name, points }).collect();
        let picture = drawn(&lines);
        // A column through the line samples, left of their markers: the legend is 44 + 6·8 + 16 pixels wide.
        let x = picture.width() - 108 + 8;
        let ink: Vec<bool> = (70..picture.height()).map(|y| picture.get_pixel(x, y).0 != [255; 3]).collect();
        let samples = ink.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert_eq!(samples, count);
    }
}
