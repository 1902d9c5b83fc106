//! `manipulate`: amounts beyond 1, and frames of the transition.

use super::*;

const PATH: &str = "/api/v1/manipulate";

/// The frames of a strip.
fn cut(strip: &RgbImage) -> Vec<RgbImage> {
    assert_eq!(strip.height(), SIZE as u32);
    let frames = strip.width() / strip.height();
    (0..frames).map(|i| image::imageops::crop_imm(strip, i * SIZE as u32, 0, 16, 16).to_image()).collect()
}

#[tokio::test]
async fn amounts_reach_from_minus_3_to_3() {
    let served = whole();
    let id = served.encode(&portrait(3)).await;
    let request = |amount: f64| json!({ "id": id, "amounts": { "Smiling": amount } });
    let pictures = [served.post(PATH, request(3.0)).await, served.post(PATH, request(-3.0)).await];
    assert_ne!(pictures[0].picture(), pictures[1].picture());
    for amount in [3.01, -3.01] {
        served.post(PATH, request(amount)).await.problem(422, &[&amount.to_string(), "−3 to 3"]);
    }
}

#[tokio::test]
async fn frames_lead_from_one_amount_to_the_other() {
    let served = whole();
    let image = portrait(3);
    let id = served.encode(&image).await;
    let to = json!({ "Smiling": 3, "Blond_Hair": 0.5 });
    let request = json!({ "id": id, "amounts": to, "frames": 3 });
    let frames = cut(&served.post(PATH, request).await.picture());
    assert_eq!((frames.len(), &frames[0]), (3, &image));
    let half = json!({ "id": id, "amounts": { "Smiling": 1.5, "Blond_Hair": 0.25 } });
    assert_eq!(frames[1], served.post(PATH, half).await.picture());
    assert_eq!(frames[2], served.post(PATH, json!({ "id": id, "amounts": to })).await.picture());

    let from = json!({ "Smiling": -3, "Blond_Hair": 0.5 });
    let request = json!({ "id": id, "from": from, "amounts": to, "frames": 5 });
    let frames = cut(&served.post(PATH, request).await.picture());
    assert_eq!(frames[0], served.post(PATH, json!({ "id": id, "amounts": from })).await.picture());
    let middle = json!({ "id": id, "amounts": { "Blond_Hair": 0.5 } });
    assert_eq!(frames[2], served.post(PATH, middle).await.picture());
}

#[tokio::test]
async fn frames_are_animated_on_request() {
    let served = whole();
    let id = served.encode(&portrait(3)).await;
    let request =
        |format: &str| json!({ "id": id, "amounts": { "Smiling": 1 }, "frames": 4, "format": format });
    let gif = served.post(PATH, request("gif")).await;
    assert_eq!((gif.status, &*gif.kind), (StatusCode::OK, "image/gif"));
    let gif = image::codecs::gif::GifDecoder::new(Cursor::new(gif.body)).unwrap();
    assert_eq!(gif.into_frames().collect_frames().unwrap().len(), 4);
    let apng = served.post(PATH, request("apng")).await;
    assert_eq!((apng.status, &*apng.kind), (StatusCode::OK, "image/apng"));
    let apng = image::codecs::png::PngDecoder::new(Cursor::new(apng.body)).unwrap();
    assert_eq!(apng.apng().unwrap().into_frames().collect_frames().unwrap().len(), 4);
}

#[tokio::test]
async fn impossible_frames_are_refused() {
    let served = whole();
    let id = served.encode(&portrait(3)).await;
    let amounts = json!({ "Smiling": 1 });
    for (request, words) in [
        (json!({ "id": id, "amounts": amounts, "frames": 1 }), &["1 frames", "2 to 64"][..]),
        (json!({ "id": id, "amounts": amounts, "frames": 65 }), &["65 frames", "2 to 64", "16×16"]),
        (json!({ "id": id, "amounts": amounts, "from": {} }), &["frames"]),
        (json!({ "id": id, "amounts": { "Smiling": 5 }, "frames": 9 }), &["by 5 ", "−3 to 3"]),
        (
            json!({ "id": id, "amounts": amounts, "from": { "Smiling": 5 }, "frames": 9 }),
            &["by 5 ", "−3 to 3"],
        ),
        (json!({ "id": id, "amounts": amounts, "from": { "Hat": 1 }, "frames": 9 }), &["Hat"]),
    ] {
        served.post(PATH, request).await.problem(422, words);
    }
}
