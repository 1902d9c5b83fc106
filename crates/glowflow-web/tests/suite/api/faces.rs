//! `faces`: a photograph is passed upright to the detector, and its faces are returned.

use glowflow_data::ImageShape;
use glowflow_web::Face;

use super::*;

const PATH: &str = "/api/v1/faces";

/// A demo with a detector.
fn detecting(
    limits: Limits,
    detect: impl Fn(&[u8], ImageShape) -> Result<Vec<Face>, String> + Send + Sync + 'static,
) -> Served {
    let folder = bare();
    let demo = load(folder.path(), limits).unwrap().finding_faces(detect);
    serve(demo, folder)
}

#[tokio::test]
async fn faces_of_a_photograph_are_returned() {
    let face = Face { eyes: [[0.25, 0.5], [0.5, 0.625]], bounds: [-0.125, 0.25, 0.75, 1.0], score: 0.875 };
    let served = detecting(Limits::default(), move |pixels, shape| {
        assert_eq!((shape.width, shape.height, shape.channels), (30, 20, 3));
        assert_eq!(pixels[..6], [7, 0, 1, 7, 1, 1]);
        Ok(vec![face; 40])
    });
    assert_eq!(served.get("/api/v1/info").await.json()["detector"], true);
    let photo = RgbImage::from_fn(30, 20, |x, _| image::Rgb([7, x as u8, 1]));
    let answer = served.upload(PATH, encoded(&photo, ImageFormat::Png)).await.json();
    assert_eq!((&answer["width"], &answer["height"]), (&json!(30), &json!(20)));
    let faces = answer["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 32);
    let expected = json!({
        "eyes": [[0.25, 0.5], [0.5, 0.625]], "box": [-0.125, 0.25, 0.75, 1.0], "score": 0.875
    });
    assert_eq!(faces[0], expected);
}

#[tokio::test]
async fn requests_without_a_detector_or_a_picture_are_explained() {
    let png = encoded(&portrait(1), ImageFormat::Png);
    whole().upload(PATH, png.clone()).await.problem(501, &["without a face detector"]);
    let served = detecting(Limits { upload_bytes: 5000, ..Limits::default() }, |_, _| Ok(vec![]));
    assert_eq!(served.upload(PATH, png.clone()).await.json()["faces"], json!([]));
    served.upload(PATH, b"GIF".to_vec()).await.problem(422, &[]);
    served.upload(PATH, vec![0; 5001]).await.problem(413, &["5000 bytes"]);
    let failing = detecting(Limits::default(), |_, _| Err("no network".into()));
    failing.upload(PATH, png).await.problem(500, &["no network"]);
}

#[tokio::test]
async fn photographs_with_too_many_pixels_are_refused() {
    let served = detecting(Limits::default(), |_, _| Ok(vec![]));
    let large = encoded(&RgbImage::new(6000, 6000), ImageFormat::Png);
    served.upload(PATH, large).await.problem(422, &["6000", "24000000"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_photograph_is_aborted() {
    let served = detecting(Limits::default(), |_, _| Ok(vec![]));
    let never = Body::from_stream(Always(|| Poll::Pending));
    served.ask(Method::POST, PATH, "image/png", never).await.problem(408, &["too long"]);
}

#[tokio::test]
async fn the_server_is_reported_as_slow_once_a_photograph_was_received() {
    let limits = Limits { request: std::time::Duration::from_millis(300), ..Limits::default() };
    let served = detecting(limits, |_, _| {
        std::thread::sleep(std::time::Duration::from_millis(900));
        Ok(vec![])
    });
    let png = encoded(&portrait(1), ImageFormat::Png);
    served.upload(PATH, png).await.problem(503, &["too long"]);
}
