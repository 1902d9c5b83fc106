//! Bits per dimension: bounds with uniform dequantisation, equal for equal pictures.

use glowflow::Draws;

use super::*;

/// Bounds of an image for numbered noise draws.
fn bounds(glow: &Model, image: &RgbImage, draws: u64) -> Vec<f64> {
    let draw =
        |seed| glow.bits_per_dim(array(image).view(), &[], Draws::Uniform { draws: 1, seed }).unwrap()[0];
    (0..draws).map(draw).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[tokio::test]
async fn a_picture_is_scored_by_the_bound() {
    let served = whole();
    let png = encoded(&portrait(2), ImageFormat::Png);
    let answer = served.upload("/api/v1/encode", png.clone()).await.json();
    assert_eq!((&answer["dequantization"], &answer["draws"]), (&json!("uniform"), &json!(8)));
    let bounds = bounds(&served.glow, &portrait(2), 8);
    assert!((answer["bits_per_dim"].as_f64().unwrap() - mean(&bounds)).abs() < 1e-9, "{answer}");
    let squares: f64 = bounds.iter().map(|bits| (bits - mean(&bounds)).powi(2)).sum();
    let standard_error = (squares / 7.0 / 8.0).sqrt();
    assert!((answer["standard_error"].as_f64().unwrap() - standard_error).abs() < 1e-9, "{answer}");
    let again = served.upload("/api/v1/encode", png).await.json();
    assert_eq!(again["bits_per_dim"], answer["bits_per_dim"]);
}

#[tokio::test]
async fn large_images_get_fewer_draws() {
    let large = GlowConfig { image: [256, 256, 3], levels: 2, steps: 1, hidden: 2, ..config() };
    let served = served(large, Limits::default());
    let answer = served.upload("/api/v1/encode", encoded(&portrait(2), ImageFormat::Png)).await.json();
    assert_eq!(answer["draws"], 2);
    let limits = Limits { images: 1, ..Limits::default() };
    let served = super::served(config(), limits);
    let answer = served.upload("/api/v1/encode", encoded(&portrait(2), ImageFormat::Png)).await.json();
    assert_eq!((&answer["draws"], &answer["standard_error"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn samples_are_scored_by_the_bound_if_requested() {
    let served = whole();
    let request = |count| json!({ "count": count, "temperature": 0.7, "seed": 5, "score": true });
    // One draw is enough to rank them.
    for count in [3, 32] {
        let answer = served.post("/api/v1/sample", request(count)).await.json();
        assert_eq!((&answer["dequantization"], &answer["draws"]), (&json!("uniform"), &json!(1)));
        for (i, image) in served.glow.sample(count, 0.7, &[], 5).unwrap().pixels.outer_iter().enumerate() {
            let image =
                RgbImage::from_raw(SIZE as u32, SIZE as u32, image.iter().copied().collect()).unwrap();
            let expected = bounds(&served.glow, &image, 1)[0];
            assert!((answer["bits_per_dim"][i].as_f64().unwrap() - expected).abs() < 1e-9, "{i}");
        }
    }
}

#[tokio::test]
async fn samples_at_temperature_0_are_one_image() {
    let served = whole();
    let mut pictures = vec![];
    for seed in [1, 2] {
        let request = json!({ "count": 1, "temperature": 0, "seed": seed });
        let answer = served.post("/api/v1/sample", request).await.json();
        let path = format!("/api/v1/decode/{}", answer["ids"][0].as_str().unwrap());
        pictures.push(served.get(&path).await.picture());
    }
    assert_eq!(pictures[0], pictures[1]);
}
