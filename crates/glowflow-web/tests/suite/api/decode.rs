//! `decode`: the reconstruction, the original and their difference.

use super::*;

async fn shown(served: &Served, id: &str, show: &str) -> Answer {
    served.get(&format!("/api/v1/decode/{id}?show={show}")).await
}

#[tokio::test]
async fn the_original_is_in_the_models_bits() {
    let served = served(GlowConfig { bits: 5, ..config() }, Limits::default());
    let image = portrait(1);
    let id = served.encode(&image).await;
    let five_bits = RgbImage::from_raw(16, 16, image.iter().map(|pixel| pixel & 0xf8).collect()).unwrap();
    assert_eq!(shown(&served, &id, "original").await.picture(), five_bits);
    assert_eq!(shown(&served, &id, "reconstruction").await.picture(), five_bits);
    let difference = shown(&served, &id, "difference").await;
    assert!(difference.picture().iter().all(|pixel| *pixel == 0));
    assert_eq!(difference.head.headers()["glowflow-gain"], "1");
    shown(&served, &id, "negative").await.problem(400, &["negative", "original"]);
}

#[tokio::test]
async fn differences_are_amplified_until_they_can_be_seen() {
    let served = spoilt("levels.0.steps.0.actnorm.bias", 1e6);
    let image = portrait(1);
    let id = served.encode(&image).await;
    assert_eq!(shown(&served, &id, "original").await.picture(), image);
    let back = shown(&served, &id, "reconstruction").await.picture();
    let differences: Vec<u8> = image.iter().zip(back.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let gain = 255 / differences.iter().max().unwrap();
    let answer = shown(&served, &id, "difference").await;
    assert_eq!(answer.head.headers()["glowflow-gain"], gain.to_string().as_str());
    let expected: Vec<u8> = differences.iter().map(|difference| difference * gain).collect();
    assert_eq!(*answer.picture().as_raw(), expected);
    assert!(expected.iter().any(|pixel| *pixel > 127));
}

#[tokio::test]
async fn samples_are_their_own_originals() {
    let served = whole();
    let request = json!({ "count": 1, "temperature": 0.7, "seed": 1 });
    let ids = served.post("/api/v1/sample", request).await.json()["ids"].clone();
    let id = ids[0].as_str().unwrap();
    let picture = shown(&served, id, "reconstruction").await.picture();
    assert_eq!(shown(&served, id, "original").await.picture(), picture);
    assert!(shown(&served, id, "difference").await.picture().iter().all(|pixel| *pixel == 0));
}
