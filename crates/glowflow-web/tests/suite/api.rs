//! The HTTP API from the client's side: valid requests get correct answers, and all others a problem
//! document.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use glowflow::latent::{DIRECTIONS, Interpolation, find_directions, interpolate, manipulate};
use glowflow::model::ModelFile;
use glowflow::{Dequantization, GlowConfig, Model};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Attributes, Dataset};
use glowflow_web::{Access, Demo, Limits, openapi, router};
use http_body_util::BodyExt;
use image::{AnimationDecoder, DynamicImage, ImageFormat, RgbImage};
use ndarray::{Array4, Axis};
use serde_json::{Value, json};
use tower::ServiceExt;

mod decode;
mod eyes;
mod faces;
mod info;
mod manipulate;
mod scores;
mod walk;

const SIZE: usize = 16;

fn config() -> GlowConfig {
    GlowConfig { image: [SIZE, SIZE, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() }
}

/// A served model with its files.
struct Served {
    app: Router,
    glow: Model,
    _folder: tempfile::TempDir,
}

fn load(model: &Path, limits: Limits) -> Result<Demo, glowflow::Error> {
    Demo::load(Model::load(model)?, model, None, None, limits)
}

/// Serves a demo from files in `folder`.
fn serve(demo: Demo, folder: tempfile::TempDir) -> Served {
    let glow = Model::load(folder.path()).unwrap();
    Served { app: router(Arc::new(demo), Access::default()), glow, _folder: folder }
}

/// A folder with the test model for directions, but without directions.
fn bare() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ModelFile::new(config(), 1).unwrap().write(&folder.path().join("model.safetensors")).unwrap();
    folder
}

fn served(config: GlowConfig, limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    ModelFile::new(config, 1).unwrap().write(&model).unwrap();
    let glow = Model::load(&model).unwrap();
    if glow.config().image() == [SIZE, SIZE, 3] && glow.config().classes() == 0 {
        let portraits = Arc::new(Portraits::new(200, SIZE, 1));
        let attributes = Attributes::of_portraits(&portraits);
        let dataset: Arc<dyn Dataset> = portraits;
        let found = find_directions(&glow, &dataset, &attributes, &[], None).unwrap();
        found.directions.write(&folder.path().join(DIRECTIONS)).unwrap();
    }
    let demo = load(folder.path(), limits).unwrap();
    Served { app: router(Arc::new(demo), Access::default()), glow, _folder: folder }
}

fn whole() -> Served {
    served(config(), Limits::default())
}

/// A complete answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    kind: String,
    head: Response<()>,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn picture(&self) -> RgbImage {
        assert_eq!((self.status, &*self.kind), (StatusCode::OK, "image/png"), "{self:?}");
        image::load_from_memory_with_format(&self.body, ImageFormat::Png).unwrap().to_rgb8()
    }

    /// Asserts a problem document of this status that contains all of `words`.
    #[track_caller]
    fn problem(&self, status: u16, words: &[&str]) {
        assert_eq!((self.status.as_u16(), &*self.kind), (status, "application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)));
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        let detail = problem["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
    }
}

impl Served {
    async fn ask(&self, method: Method, path: &str, kind: &str, body: impl Into<Body>) -> Answer {
        let request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind).body(body.into());
        let (head, body) = self.app.clone().oneshot(request.unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let kind =
            head.headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap()).to_owned();
        Answer { status: head.status, kind, head: Response::from_parts(head, ()), body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "", Body::empty()).await
    }

    async fn post(&self, path: &str, request: Value) -> Answer {
        self.ask(Method::POST, path, "application/json", request.to_string()).await
    }

    async fn upload(&self, path: &str, bytes: Vec<u8>) -> Answer {
        self.ask(Method::POST, path, "image/png", bytes).await
    }

    /// The id of an uploaded image.
    async fn encode(&self, image: &RgbImage) -> String {
        id(&self.upload("/api/v1/encode", encoded(image, ImageFormat::Png)).await)
    }
}

#[track_caller]
fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// A model in which all weights of one tensor are `value`.
fn spoilt(tensor: &str, value: f32) -> Served {
    let mut file = ModelFile::new(config(), 1).unwrap();
    let parameter = file.layout().parameters.into_iter().find(|parameter| parameter.name == tensor).unwrap();
    file.weights[parameter.span.range()].fill(value);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    file.write(&model).unwrap();
    let app = router(Arc::new(load(&model, Limits::default()).unwrap()), Access::default());
    Served { app, glow: Model::load(&model).unwrap(), _folder: folder }
}

#[tokio::test]
async fn inexact_reconstructions_are_reported() {
    // So large that the last bits of the pixels are lost in f32.
    let served = spoilt("levels.0.steps.0.actnorm.bias", 1e6);
    let image = portrait(1);
    let answer = served.upload("/api/v1/encode", encoded(&image, ImageFormat::Png)).await;
    let back = served.get(&format!("/api/v1/decode/{}", id(&answer))).await.picture();
    let differing = image.pixels().zip(back.pixels()).filter(|(a, b)| a != b).count();
    assert!(differing > 0);
    assert_eq!(
        (&answer.json()["exact"], &answer.json()["differing_pixels"]),
        (&json!(false), &json!(differing))
    );
}

#[tokio::test]
async fn values_that_are_not_finite_are_reported() {
    // Finite itself, but not the values computed from it.
    let served = spoilt("prior.mean", 1e38);
    let upload = served.upload("/api/v1/encode", encoded(&portrait(1), ImageFormat::Png)).await;
    upload.problem(500, &["not finite"]);
    // Its inverse exceeds f32.
    let served = spoilt("levels.0.steps.0.actnorm.logs", -100.0);
    let request = json!({ "count": 2, "temperature": 0.7, "seed": 1, "score": true });
    let drawn = served.post("/api/v1/sample", request).await.json();
    assert_eq!(drawn["finite"], json!([false, false]), "{drawn}");
    assert_eq!(drawn["bits_per_dim"], json!([null, null]));
    let id = &drawn["ids"][0];
    let path = format!("/api/v1/decode/{}", id.as_str().unwrap());
    let mix = json!({ "a": id, "b": id, "at": [0, 1] });
    for answer in [served.get(&path).await, served.post("/api/v1/mix", mix).await] {
        answer.picture();
        assert_eq!(answer.head.headers()["glowflow-finite"], "false");
    }
    // Other answers are unaffected.
    let sound = whole();
    let id = sound.encode(&portrait(1)).await;
    let decoded = sound.get(&format!("/api/v1/decode/{id}")).await;
    assert_eq!(decoded.head.headers()["glowflow-finite"], "true");
}

/// A portrait of the model's size.
fn portrait(index: usize) -> RgbImage {
    let mut pixels = vec![0; SIZE * SIZE * 3];
    Portraits::new(100, SIZE, 9).read(index, &mut pixels).unwrap();
    RgbImage::from_raw(SIZE as u32, SIZE as u32, pixels).unwrap()
}

fn array(image: &RgbImage) -> Array4<u8> {
    Array4::from_shape_vec((1, SIZE, SIZE, 3), image.as_raw().clone()).unwrap()
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_picture_is_reconstructed_exactly() {
    let served = whole();
    for index in 0..5 {
        let image = portrait(index);
        let answer = served.upload("/api/v1/encode", encoded(&image, ImageFormat::Png)).await;
        assert_eq!(answer.json()["exact"], true);
        assert_eq!(answer.json()["differing_pixels"], 0);
        assert_eq!(served.get(&format!("/api/v1/decode/{}", id(&answer))).await.picture(), image);
    }
    // Any size and format is accepted; the content determines the format, not the declared type.
    let large = RgbImage::from_fn(400, 300, |x, y| image::Rgb([x as u8, y as u8, 7]));
    let answer = served.upload("/api/v1/encode", encoded(&large, ImageFormat::Jpeg)).await;
    let picture = served.get(&format!("/api/v1/decode/{}", id(&answer))).await.picture();
    assert_eq!(picture.dimensions(), (SIZE as u32, SIZE as u32));
}

#[tokio::test]
async fn manipulations_match_the_library() {
    let served = whole();
    let image = portrait(3);
    let id = served.encode(&image).await;
    let request = |amounts: Value| json!({ "id": id, "amounts": amounts });
    for still in [json!({}), json!({ "Smiling": 0.0 })] {
        assert_eq!(served.post("/api/v1/manipulate", request(still)).await.picture(), image);
    }
    let moved = served.post("/api/v1/manipulate", request(json!({ "Smiling": 0.7, "Blond_Hair": -1 }))).await;
    let directions =
        glowflow::latent::Directions::read(&served._folder.path().join(DIRECTIONS), &served.glow).unwrap();
    let latents = served.glow.encode(array(&image).view(), &[], Dequantization::Midpoint).unwrap().latents;
    let moves = [(directions.get("Smiling").unwrap(), 0.7), (directions.get("Blond_Hair").unwrap(), -1.0)];
    let expected = served.glow.decode(&manipulate(&latents, &moves).unwrap(), &[]).unwrap();
    assert_eq!(*moved.picture().as_raw(), expected.into_bytes());
    assert_ne!(moved.picture(), image);
}

#[tokio::test]
async fn mixtures_match_the_library() {
    let served = whole();
    let (first, second) = (portrait(3), portrait(4));
    let (a, b) = (served.encode(&first).await, served.encode(&second).await);
    let mix = async |at: Value, more: Value| {
        let mut request = json!({ "a": a, "b": b, "at": at });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        served.post("/api/v1/mix", request).await
    };
    assert_eq!(mix(json!([0]), json!({})).await.picture(), first);
    assert_eq!(mix(json!([1]), json!({ "path": "spherical" })).await.picture(), second);

    let both = ndarray::concatenate![Axis(0), array(&first), array(&second)];
    for (path, walk) in [("linear", Interpolation::Linear), ("spherical", Interpolation::Spherical)] {
        let frames = interpolate(&served.glow, both.view(), &[], 5, walk).unwrap().pixels;
        for (frame, at) in [(1, 0.25), (2, 0.5)] {
            let picture = mix(json!([at]), json!({ "path": path })).await.picture();
            assert!(picture.as_raw().iter().eq(frames.index_axis(Axis(0), frame)), "{path} at {at}");
        }
    }
    let strip = mix(json!([0, 0.5, 1]), json!({})).await.picture();
    assert!(strip.width() > 3 * strip.height(), "side by side");
    let gif = mix(json!([0, 0.5, 1, 0.5]), json!({ "format": "gif" })).await;
    assert_eq!((gif.status, &*gif.kind), (StatusCode::OK, "image/gif"));
    let gif = image::codecs::gif::GifDecoder::new(Cursor::new(gif.body)).unwrap();
    assert_eq!(gif.into_frames().collect_frames().unwrap().len(), 4);
}

#[tokio::test]
async fn samples_depend_on_the_seed() {
    let served = whole();
    let request = json!({ "count": 3, "temperature": 0.7, "seed": 5 });
    let ids = served.post("/api/v1/sample", request.clone()).await.json()["ids"].as_array().unwrap().clone();
    let expected = served.glow.sample(3, 0.7, &[], 5).unwrap().pixels;
    assert_eq!(ids.len(), 3);
    assert_eq!(ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 3);
    for (id, expected) in ids.iter().zip(expected.outer_iter()) {
        let id = id.as_str().unwrap();
        let picture = served.get(&format!("/api/v1/decode/{id}")).await.picture();
        assert!(picture.as_raw().iter().eq(&expected));
        // A sample is an image like any other.
        let still = served.post("/api/v1/manipulate", json!({ "id": id, "amounts": {} })).await;
        assert_eq!(still.picture(), picture);
    }
    let again = served.post("/api/v1/sample", request).await.json();
    assert!(again.get("bits_per_dim").is_none() && again["finite"] == json!([true, true, true]), "{again}");
    assert_ne!(again["ids"], json!(ids), "ids are never given twice");
}

#[tokio::test]
async fn classes_must_be_specified() {
    let served = served(GlowConfig { classes: 2, ..config() }, Limits::default());
    let image = encoded(&portrait(1), ImageFormat::Png);
    served.upload("/api/v1/encode", image.clone()).await.problem(422, &["2 classes"]);
    served.upload("/api/v1/encode?class=2", image.clone()).await.problem(422, &["label 2", "0 to 1"]);
    served.upload("/api/v1/encode?class=one", image.clone()).await.problem(400, &["class"]);
    let [a, b] = [0, 1].map(|class| (class, image.clone()));
    let mut ids = vec![];
    for (class, image) in [a, b] {
        ids.push(id(&served.upload(&format!("/api/v1/encode?class={class}"), image).await));
    }
    // Each image keeps its class.
    for id in &ids {
        assert_eq!(served.get(&format!("/api/v1/decode/{id}")).await.picture(), portrait(1));
    }
    served.post("/api/v1/mix", json!({ "a": ids[0], "b": ids[1], "at": [0, 0.5, 1] })).await.picture();
    let sample = |class: Value| json!({ "count": 1, "temperature": 0.7, "seed": 5, "class": class });
    served.post("/api/v1/sample", sample(Value::Null)).await.problem(422, &["2 classes"]);
    served.post("/api/v1/sample", sample(json!(1))).await.json();
    // It has no directions.
    let nothing =
        served.post("/api/v1/manipulate", json!({ "id": ids[0], "amounts": { "Smiling": 1 } })).await;
    nothing.problem(422, &["no directions"]);
}

#[tokio::test]
async fn grey_models_show_grey_pictures() {
    let served = served(GlowConfig { image: [SIZE, SIZE, 1], ..config() }, Limits::default());
    let id = served.encode(&portrait(1)).await;
    let picture = served.get(&format!("/api/v1/decode/{id}")).await.picture();
    assert!(picture.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    let grey = served.encode(&picture).await;
    assert_eq!(served.get(&format!("/api/v1/decode/{grey}")).await.picture(), picture);
}

#[test]
fn models_that_cannot_be_shown_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    ModelFile::new(GlowConfig { image: [SIZE, SIZE, 2], ..config() }, 1).unwrap().write(&model).unwrap();
    let refused = load(&model, Limits::default()).err().unwrap().to_string();
    assert!(refused.contains("2 channels") && refused.contains("1 or 3"), "{refused}");
}

#[test]
fn models_of_images_too_large_to_be_drawn_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let write = |size| {
        ModelFile::new(GlowConfig { image: [size, size, 3], ..config() }, 1).unwrap().write(&model).unwrap();
    };
    for (size, limits, words) in [
        (65536, Limits::default(), ["65536×65536", "1048576 pixels", "model.safetensors"]),
        (2048, Limits::default(), ["2048×2048", "1048576 pixels", "sampled to files"]),
        (32, Limits { pixels: 1023, ..Limits::default() }, ["32×32", "1023 pixels", "model.safetensors"]),
    ] {
        write(size);
        let refused = load(&model, limits).err().unwrap().to_string();
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
    write(1024);
    load(&model, Limits::default()).ok().unwrap();
}

#[tokio::test]
async fn requests_are_limited_to_fewer_large_images() {
    for (size, most) in [(16, 64), (128, 64), (256, 16), (512, 4), (1024, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.safetensors");
        let large = GlowConfig { image: [size, size, 3], levels: 2, steps: 1, hidden: 2, ..config() };
        ModelFile::new(large, 1).unwrap().write(&model).unwrap();
        let demo = load(&model, Limits::default()).unwrap();
        let served = Served {
            app: router(Arc::new(demo), Access::default()),
            glow: Model::load(&model).unwrap(),
            _folder: folder,
        };
        assert_eq!(served.get("/api/v1/info").await.json()["images"], most);
        let words = [&*format!("1 to {most}"), &*format!("{size}×{size}")];
        let sample = |count| json!({ "count": count, "temperature": 0.7, "seed": 1 });
        served.post("/api/v1/sample", sample(most + 1)).await.problem(422, &words);
        let ids = served.post("/api/v1/sample", sample(most)).await.json()["ids"].clone();
        assert_eq!(ids.as_array().unwrap().len(), most);
        let mix = |count| json!({ "a": ids[0], "b": ids[0], "at": vec![0.5; count] });
        served.post("/api/v1/mix", mix(most + 1)).await.problem(422, &words);
        served.post("/api/v1/mix", mix(most)).await.picture();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_holds_one_slot_and_releases_it_when_the_client_is_gone() {
    let request = Duration::from_secs(120);
    let limits = Limits { computing: 1, waiting: 0, request, ..Limits::default() };
    // Enough images, and enough work per image, that drawing latents and restarting cost little.
    let served = served(GlowConfig { image: [256, 256, 3], steps: 8, hidden: 64, ..config() }, limits);
    let sample =
        |count| served.post("/api/v1/sample", json!({ "count": count, "temperature": 0.7, "seed": 1 }));
    let image = sample(1).await.json()["ids"][0].as_str().unwrap().to_owned();
    let started = Instant::now();
    sample(16).await.json();
    let whole = started.elapsed();
    let meanwhile = async {
        tokio::time::sleep(whole / 20).await;
        served.get(&format!("/api/v1/decode/{image}")).await
    };
    let (samples, meanwhile) = tokio::join!(sample(16), meanwhile);
    samples.json();
    meanwhile.problem(503, &["try again"]);
    let given_up = tokio::time::timeout(whole / 20, sample(16)).await;
    assert!(given_up.is_err());
    let started = Instant::now();
    while sample(1).await.status == StatusCode::SERVICE_UNAVAILABLE {
        tokio::time::sleep(whole / 100).await;
    }
    // With no client gone, it would take the whole time.
    assert!(started.elapsed() < whole * 3 / 4, "{:?} of {whole:?}", started.elapsed());
}

#[tokio::test]
async fn invalid_requests_are_explained() {
    let served = whole();
    let id = served.encode(&portrait(1)).await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    let manipulate = "/api/v1/manipulate";
    let mix = "/api/v1/mix";
    let sample = "/api/v1/sample";
    for (path, request, status, words) in [
        (manipulate, json!({ "id": nobody, "amounts": {} }), 404, &[nobody, "encode it again"][..]),
        (manipulate, json!({ "id": "../../etc/passwd", "amounts": {} }), 422, &["id"]),
        (manipulate, json!({ "id": id, "amounts": { "Hat": 1 } }), 422, &["Hat", "Smiling"]),
        (manipulate, json!({ "id": id, "amounts": { "Smiling": 3.5 } }), 422, &["3.5", "−3 to 3"]),
        (manipulate, json!({ "id": id, "amounts": { "Smiling": "much" } }), 422, &["amounts"]),
        (manipulate, json!({ "id": id, "amounts": {}, "latents": [1, 2] }), 422, &["latents"]),
        (manipulate, json!({ "id": id }), 422, &["amounts"]),
        (manipulate, json!([]), 422, &[]),
        (mix, json!({ "a": id, "b": nobody, "at": [0.5] }), 404, &[nobody]),
        (mix, json!({ "a": id, "b": id, "at": [] }), 422, &["1 to 64"]),
        (mix, json!({ "a": id, "b": id, "at": vec![0.5; 65] }), 422, &["1 to 64"]),
        (mix, json!({ "a": id, "b": id, "at": [1.1] }), 422, &["0 to 1"]),
        (mix, json!({ "a": id, "b": id, "at": [0.5], "path": "winding" }), 422, &["winding", "spherical"]),
        (mix, json!({ "a": id, "b": id, "at": [0.5], "format": "bmp" }), 422, &["bmp", "gif"]),
        (sample, json!({ "count": 0, "temperature": 0.7, "seed": 1 }), 422, &["0 images", "1 to 64"]),
        (sample, json!({ "count": 65, "temperature": 0.7, "seed": 1 }), 422, &["65", "1 to 64"]),
        (sample, json!({ "count": 1e30, "temperature": 0.7, "seed": 1 }), 422, &["count"]),
        (sample, json!({ "count": 1, "temperature": 2.1, "seed": 1 }), 422, &["2.1", "0 to 2"]),
        (sample, json!({ "count": 1, "temperature": -1, "seed": 1 }), 422, &["-1", "0 to 2"]),
        (sample, json!({ "count": 1, "temperature": 1, "seed": -1 }), 422, &["seed"]),
        (sample, json!({ "count": 1, "temperature": 1, "seed": 1, "class": 3 }), 422, &["without classes"]),
    ] {
        let answer = served.post(path, request.clone()).await;
        println!("{path} {request}: {answer:?}");
        answer.problem(status, words);
    }
    for (text, status) in [("{", 400), ("", 400), ("\u{feff}{}", 400)] {
        served.ask(Method::POST, manipulate, "application/json", text).await.problem(status, &[]);
    }
    served.ask(Method::POST, manipulate, "text/plain", "{}").await.problem(415, &["application/json"]);
    served.get("/api/v1/decode/..%2f..%2fetc%2fpasswd").await.problem(400, &[]);
    served.get(&format!("/api/v1/decode/{nobody}")).await.problem(404, &[nobody]);
    for path in ["/api/v1/", "/api/v2/info", "/index.html", "/../Cargo.toml", "/%2e%2e/etc/passwd", "//"] {
        served.get(path).await.problem(404, &["nothing at"]);
    }
    served.get(manipulate).await.problem(405, &["GET"]);
    served.post("/", json!({})).await.problem(405, &["POST"]);
}

#[tokio::test]
async fn uploads_that_are_not_pictures_are_refused() {
    let served = whole();
    let png = encoded(&portrait(1), ImageFormat::Png);
    let jpeg =
        encoded(&RgbImage::from_fn(300, 300, |x, y| image::Rgb([x as u8, y as u8, 1])), ImageFormat::Jpeg);
    for (bytes, words) in [
        (vec![], &[][..]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[]),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), &[]),
        (png[..png.len() / 2].to_vec(), &[]),
        (png[..30].to_vec(), &[]),
        (jpeg[..200].to_vec(), &[]),
        // Small files of large pictures: the limit is 24 million pixels.
        (encoded(&RgbImage::new(6000, 6000), ImageFormat::Png), &["6000", "24000000"]),
        (encoded(&RgbImage::new(60000, 1), ImageFormat::Png), &["60000"]),
    ] {
        let answer = served.upload("/api/v1/encode", bytes).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        answer.problem(422, words);
    }
    served.encode(&portrait(1)).await;
}

#[tokio::test]
async fn too_many_bytes_are_refused() {
    let limits = Limits { upload_bytes: 1000, json_bytes: 500, ..Limits::default() };
    let served = served(config(), limits);
    let noise =
        RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * y) as u8, (x * 7 + y * 31) as u8, (x ^ y) as u8]));
    served.upload("/api/v1/encode", encoded(&noise, ImageFormat::Bmp)).await.problem(413, &["1000 bytes"]);
    // Much longer ones are not read to the end.
    let endless = Body::from_stream(Always(|| Poll::Ready(Some(Ok(Bytes::from_static(&[0; 4096]))))));
    served.ask(Method::POST, "/api/v1/encode", "image/png", endless).await.problem(413, &["1000 bytes"]);
    let long: Value =
        (0..1000).map(|i| (format!("a{i}"), json!(0))).collect::<serde_json::Map<_, _>>().into();
    served.post("/api/v1/manipulate", long).await.problem(413, &[]);
}

type Chunk = Option<Result<Bytes, std::io::Error>>;

/// An endless stream of the same bytes.
struct Always(fn() -> Poll<Chunk>);

impl futures_core::Stream for Always {
    type Item = Result<Bytes, std::io::Error>;
    fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Chunk> {
        (self.0)()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_aborted() {
    let served = whole();
    let never = Body::from_stream(Always(|| Poll::Pending));
    served.ask(Method::POST, "/api/v1/encode", "image/png", never).await.problem(408, &["too long"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_queue_are_refused_and_no_answer_is_wrong() {
    let limits = Limits { computing: 1, waiting: 2, ..Limits::default() };
    let served = Arc::new(served(config(), limits));
    let image = portrait(3);
    let id = served.encode(&image).await;
    let requests = (0..40).map(|_| {
        let (served, id) = (Arc::clone(&served), id.clone());
        tokio::spawn(async move {
            served
                .post("/api/v1/mix", json!({ "a": id, "b": id, "at": vec![0.5; 64], "format": "gif" }))
                .await
        })
    });
    let mut turned_away = 0;
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.problem(503, &["try again"]);
            assert_eq!(answer.head.headers()[header::RETRY_AFTER], "1");
            turned_away += 1;
        } else {
            let gif = image::codecs::gif::GifDecoder::new(Cursor::new(answer.body)).unwrap();
            let frames = gif.into_frames().collect_frames().unwrap();
            assert_eq!(frames.len(), 64);
            assert_eq!(
                DynamicImage::from(frames[9].buffer().clone()).to_rgb8().dimensions(),
                frames[0].buffer().dimensions()
            );
        }
    }
    assert!((1..40).contains(&turned_away), "{turned_away} of 40");
    // Afterwards the server works as before.
    assert_eq!(served.get(&format!("/api/v1/decode/{id}")).await.picture(), image);
}

#[tokio::test]
async fn images_are_dropped_when_old_or_too_many() {
    // An image and its latents are 3,840 bytes.
    let served_few = served(config(), Limits { stored_bytes: 40_000, ..Limits::default() });
    let first = served_few.encode(&portrait(0)).await;
    let mut last = String::new();
    for index in 0..30 {
        last = served_few.encode(&portrait(index)).await;
    }
    served_few.get(&format!("/api/v1/decode/{first}")).await.problem(404, &["no longer"]);
    assert_eq!(served_few.get(&format!("/api/v1/decode/{last}")).await.picture(), portrait(29));

    let briefly = served(config(), Limits { stored_for: Duration::from_millis(50), ..Limits::default() });
    let id = briefly.encode(&portrait(0)).await;
    std::thread::sleep(Duration::from_millis(60));
    briefly.get(&format!("/api/v1/decode/{id}")).await.problem(404, &["no longer"]);
}

#[tokio::test]
async fn every_answer_has_security_headers() {
    let served = whole();
    for path in ["/", "/app.js", "/api/v1/info", "/api/v1/openapi.json", "/nowhere", "/api/v1/mix"] {
        let answer = served.get(path).await;
        let headers = answer.head.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let served = whole();
    let page = served.get("/").await;
    assert_eq!(page.kind, "text/html; charset=utf-8");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for part in text.split(attribute).skip(1) {
            let target = part.split('"').next().unwrap();
            if target.starts_with("https://") || target.starts_with('#') {
                assert!(attribute == "href=\"", "{target} is elsewhere");
                continue;
            }
            let path = format!("/{}", target.trim_start_matches(['.', '/']));
            assert_eq!(served.get(&path).await.status, StatusCode::OK, "{target}");
            loaded += 1;
        }
    }
    assert!(loaded >= 3, "a page has a script, a style and an icon");
    for script in ["/api.js", "/app.js", "/manipulate.js", "/mix.js", "/range.js", "/sample.js", "/source.js"]
    {
        let script = served.get(script).await;
        assert_eq!(script.kind, "text/javascript; charset=utf-8");
        assert!(!String::from_utf8_lossy(&script.body).contains("://"));
    }
}

#[tokio::test]
async fn the_api_is_described() {
    let served = whole();
    let described = served.get("/api/v1/openapi.json").await.json();
    assert_eq!(described, serde_json::to_value(openapi()).unwrap());
    assert!(described["openapi"].as_str().unwrap().starts_with("3."));
    let paths = described["paths"].as_object().unwrap();
    let expected =
        ["blend", "decode/{id}", "encode", "eyes", "faces", "info", "manipulate", "mix", "sample", "walk"];
    assert!(paths.keys().eq(&expected.map(|path| format!("/api/v1/{path}"))), "{paths:?}");
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            // Every described path exists: an empty request does not get "nothing there" or "method not
            // allowed".
            let id = "00000000-0000-4000-8000-000000000000";
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = served.ask(method, &path.replace("{id}", id), "application/json", "").await;
            let nothing = answer.body.windows(10).any(|part| part == b"nothing at");
            assert!(!nothing && answer.status != StatusCode::METHOD_NOT_ALLOWED, "{path}: {answer:?}");
            assert!(operation["summary"].is_string() || operation["description"].is_string(), "{path}");
            assert!(operation["responses"].as_object().unwrap().contains_key("200"), "{path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
                assert_eq!(parameter["in"], if in_path { "path" } else { "query" }, "{path}: {parameter}");
            }
        }
    }
    assert_eq!(described["components"]["schemas"]["File"]["format"], "binary");
    // Every reference within it resolves.
    let text = described.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(described["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
    for name in [
        "Info",
        "Encoded",
        "Manipulate",
        "Mix",
        "Route",
        "Blend",
        "Sample",
        "Samples",
        "EyesOf",
        "Found",
        "Problem",
    ] {
        assert!(described["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}
