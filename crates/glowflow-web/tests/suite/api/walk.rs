//! `walk` and `blend`: several images at once.

use glowflow::latent::between;

use super::*;

const PATH: &str = "/api/v1/walk";
const BLEND: &str = "/api/v1/blend";
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// The frames of a strip.
fn cut(answer: &Answer) -> Vec<RgbImage> {
    let strip = answer.picture();
    assert_eq!(strip.height(), SIZE as u32);
    let frames = strip.width() / strip.height();
    (0..frames).map(|i| image::imageops::crop_imm(&strip, i * SIZE as u32, 0, 16, 16).to_image()).collect()
}

async fn three(served: &Served) -> ([RgbImage; 3], [String; 3]) {
    let images = [portrait(1), portrait(2), portrait(3)];
    let mut ids = [const { String::new() }; 3];
    for (id, image) in ids.iter_mut().zip(&images) {
        *id = served.encode(image).await;
    }
    (images, ids)
}

#[tokio::test]
async fn a_walk_passes_all_images_in_order() {
    let served = whole();
    let (images, ids) = three(&served).await;
    let open = cut(&served.post(PATH, json!({ "ids": ids, "frames": 4 })).await);
    assert_eq!(open.len(), 9);
    assert_eq!([&open[0], &open[4], &open[8]], images.each_ref());
    let request = json!({ "ids": ids, "frames": 2, "closed": true, "path": "spherical" });
    let closed = cut(&served.post(PATH, request.clone()).await);
    assert_eq!(closed.len(), 6);
    assert_eq!([&closed[0], &closed[2], &closed[4]], images.each_ref());
    assert_eq!(cut(&served.post(PATH, request).await), closed, "equal requests have equal answers");

    let latents =
        images.each_ref().map(|image| served.glow.encode(array(image).view(), &[], Dequantization::Midpoint));
    let [_, b, c] = latents.map(|encoded| encoded.unwrap().latents);
    let expected = served.glow.decode(&between(&b, &c, 0.5, Interpolation::Linear), &[]).unwrap().pixels;
    assert!(open[6].as_raw().iter().eq(&expected));
    let expected = served.glow.decode(&between(&b, &c, 0.5, Interpolation::Spherical), &[]).unwrap().pixels;
    assert!(closed[3].as_raw().iter().eq(&expected));
}

#[tokio::test]
async fn walks_are_animated_on_request() {
    let served = whole();
    let (_, ids) = three(&served).await;
    let request = |format: &str| json!({ "ids": ids, "frames": 3, "closed": true, "format": format });
    let gif = served.post(PATH, request("gif")).await;
    assert_eq!(&*gif.kind, "image/gif");
    let gif = image::codecs::gif::GifDecoder::new(Cursor::new(gif.body)).unwrap();
    assert_eq!(gif.into_frames().collect_frames().unwrap().len(), 9);
    let apng = served.post(PATH, request("apng")).await;
    assert_eq!(&*apng.kind, "image/apng");
    let apng = image::codecs::png::PngDecoder::new(Cursor::new(apng.body)).unwrap();
    assert_eq!(apng.apng().unwrap().into_frames().collect_frames().unwrap().len(), 9);
}

#[tokio::test]
async fn impossible_walks_are_refused() {
    let served = whole();
    let (_, ids) = three(&served).await;
    let [a, b, _] = &ids;
    for (request, status, words) in [
        (json!({ "ids": [a], "frames": 2 }), 422, &["1 images", "2 to 8"][..]),
        (json!({ "ids": vec![a; 9], "frames": 2 }), 422, &["9 images", "2 to 8"]),
        (json!({ "ids": ids, "frames": 0 }), 422, &["0 frames", "1 to 31"]),
        (json!({ "ids": ids, "frames": 32 }), 422, &["32 frames", "1 to 31", "16×16"]),
        (json!({ "ids": ids, "frames": 22, "closed": true }), 422, &["22 frames", "1 to 21"]),
        (json!({ "ids": [a, NOBODY], "frames": 2 }), 404, &[NOBODY]),
        (json!({ "ids": [a, b], "frames": 2, "path": "winding" }), 422, &["winding", "spherical"]),
        (json!({ "ids": [a, b], "frames": 2, "format": "mp4" }), 422, &["mp4", "apng"]),
        (json!({ "ids": [a, b], "frames": 2, "speed": 2 }), 422, &["speed"]),
    ] {
        served.post(PATH, request).await.problem(status, words);
    }
    assert_eq!(cut(&served.post(PATH, json!({ "ids": ids, "frames": 31 })).await).len(), 63);

    // A limit of two images per request: enough for a walk from one image to another, but not through three.
    let served = super::served(config(), Limits { pixels: 2 * SIZE * SIZE, ..Limits::default() });
    let (_, ids) = three(&served).await;
    let [a, b, _] = &ids;
    served
        .post(PATH, json!({ "ids": ids, "frames": 1 }))
        .await
        .problem(422, &["3 frames or more", "2 images"]);
    assert_eq!(cut(&served.post(PATH, json!({ "ids": [a, b], "frames": 1 })).await).len(), 2);
}

#[tokio::test]
async fn walks_and_blends_keep_classes() {
    let served = served(GlowConfig { classes: 2, ..config() }, Limits::default());
    let mut ids = vec![];
    for (class, index) in [(0, 1), (1, 2)] {
        let png = encoded(&portrait(index), ImageFormat::Png);
        ids.push(id(&served.upload(&format!("/api/v1/encode?class={class}"), png).await));
    }
    let frames = cut(&served.post(PATH, json!({ "ids": ids, "frames": 3 })).await);
    assert_eq!((&frames[0], &frames[3]), (&portrait(1), &portrait(2)));
    for (weights, index) in [([1, 0], 1), ([0, 1], 2)] {
        let blend = served.post(BLEND, json!({ "ids": ids, "weights": weights })).await;
        assert_eq!(blend.picture(), portrait(index));
    }
}

#[tokio::test]
async fn a_blend_is_the_weighted_mean() {
    let served = whole();
    let (images, ids) = three(&served).await;
    let blend =
        async |weights: Value| served.post(BLEND, json!({ "ids": ids, "weights": weights })).await.picture();
    assert_eq!(blend(json!([0, 5, 0])).await, images[1]);
    assert_eq!(blend(json!([1, 2, 1])).await, blend(json!([0.25, 0.5, 0.25])).await);
    let two = served.post("/api/v1/mix", json!({ "a": ids[0], "b": ids[2], "at": [0.75] })).await.picture();
    assert_eq!(blend(json!([1, 0, 3])).await, two);
}

#[tokio::test]
async fn impossible_blends_are_refused() {
    let served = whole();
    let id = served.encode(&portrait(1)).await;
    for (ids, weights, status, words) in [
        (json!([]), json!([]), 422, &["0 images", "1 to 8"][..]),
        (json!(vec![&id; 9]), json!(vec![1; 9]), 422, &["9 images", "1 to 8"]),
        (json!([id, id]), json!([1]), 422, &["2 images", "1 weights"]),
        (json!([id, id]), json!([1, -1]), 422, &["-1", "none negative"]),
        (json!([id, id]), json!([0, 0]), 422, &["one above 0"]),
        (json!([id, id]), json!([1e308, 1e308]), 422, &["weights"]),
        (json!([id, NOBODY]), json!([1, 1]), 404, &[NOBODY]),
    ] {
        served.post(BLEND, json!({ "ids": ids, "weights": weights })).await.problem(status, words);
    }
}
