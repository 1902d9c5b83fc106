//! The HTTP API under `/api/v1`.
//!
//! `encode` takes a picture and `sample` draws some; both answer with ids. `decode`, `manipulate` and `mix` take ids and
//! answer with pictures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use glowflow::faces::Faces;
use glowflow::latent::{self, About, Walk, between};
use glowflow::{Dequantization, Draws, Glow, Latents, ModelConfig};
use glowflow_data::{ImageShape, image_of_bytes};
use glowflow_report::{animation, picture};
use http_body_util::BodyExt;
use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use uuid::Uuid;

use crate::gate::Client;
use crate::store::Stored;
use crate::{Demo, Problem};

/// How long a frame of an animation is shown.
const MILLISECONDS: u16 = 80;

/// Header of pictures: false if the numbers behind their pixels are not all finite.
const FINITE: HeaderName = HeaderName::from_static("glowflow-finite");

type Shared = State<Arc<Demo>>;

/// All paths and what answers them.
pub(crate) fn routes(demo: &Demo) -> Vec<(&'static str, MethodRouter<Arc<Demo>>)> {
    let json = DefaultBodyLimit::max(demo.limits.json_bytes);
    vec![
        ("/api/v1/openapi.json", get(|| async { Json(openapi()) })),
        ("/api/v1/info", get(info)),
        ("/api/v1/encode", post(encode)),
        ("/api/v1/decode/{id}", get(decode)),
        ("/api/v1/manipulate", post(manipulate).layer(json)),
        ("/api/v1/mix", post(mix).layer(json)),
        ("/api/v1/sample", post(sample).layer(json)),
    ]
}

/// The API's description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(
        info(
            title = "glowflow",
            description = "Images in the latent space of a Glow model: encode, change, mix, draw. Latents stay on the \
                           server, which forgets images that nobody asks about for a while."
        ),
        paths(info, encode, decode, manipulate, mix, sample),
        // Relative to the description, which may be below a path that a proxy strips.
        servers((url = "../..", description = "The server that this description is from")),
        security((), ("token" = [])),
        modifiers(&TokenScheme)
    )]
    struct Api;
    Api::openapi()
}

/// Describes the token, which some servers demand.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// What the model is and what can be asked of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    /// Architecture: `image` (height, width, channels), `bits`, `levels`, `steps`, `hidden`, `coupling`, `permutation`,
    /// `classes`.
    #[schema(value_type = Object)]
    config: ModelConfig,
    /// Number of trained parameters.
    parameters: usize,
    /// Bits per dimension on test images, when the model's run was last evaluated.
    bits_per_dim: Option<f64>,
    /// Largest difference between a test image and its decoded latents.
    inverse_error: Option<f64>,
    /// Attributes that can be changed.
    attributes: Vec<Attribute>,
    /// Whether the model's images show faces; null if that is unknown.
    faces: Option<bool>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height; null if they are
    /// unknown.
    eyes: Option<[[f64; 2]; 2]>,
    /// The largest upload, in bytes.
    upload_bytes: usize,
    /// The largest upload, in pixels.
    upload_pixels: u64,
    /// The largest number of images in one request.
    images: usize,
}

/// An attribute that can be changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Attribute {
    /// Its name.
    name: String,
    /// Labelled images with it.
    positives: usize,
    /// Labelled images without it.
    negatives: usize,
    /// How well its direction tells held-out images apart: 0.5 is chance, 1 perfect.
    auc: Option<f64>,
}

impl From<&About> for Attribute {
    fn from(about: &About) -> Self {
        let About { name, positives, negatives, auc } = about.clone();
        Self { name, positives, negatives, auc: auc.map(|auc| auc.value) }
    }
}

/// The model.
#[utoipa::path(
    get,
    path = "/api/v1/info",
    responses(
        (status = 200, body = Info),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No access"),
        (status = "5XX", body = Problem, content_type = "application/problem+json", description = "Too busy")
    )
)]
async fn info(State(demo): Shared) -> Json<Info> {
    let directions = demo.directions.iter().flat_map(|directions| &directions.list);
    Json(Info {
        config: demo.config.clone(),
        parameters: demo.parameters,
        bits_per_dim: demo.evaluation.map(|evaluation| evaluation.bits_per_dim),
        inverse_error: demo.evaluation.map(|evaluation| evaluation.inverse_error),
        attributes: directions.map(|direction| (&direction.about).into()).collect(),
        faces: demo.faces.map(|faces| matches!(faces, Faces::Aligned(_))),
        eyes: match demo.faces {
            Some(Faces::Aligned(eyes)) => Some([eyes.left(), eyes.right()]),
            Some(Faces::None) | None => None,
        },
        upload_bytes: demo.limits.upload_bytes,
        upload_pixels: demo.limits.upload_pixels,
        images: demo.images(),
    })
}

/// The class of an image.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Class {
    /// Needed where the model has classes.
    class: Option<usize>,
}

/// An image that the server keeps.
#[derive(Serialize, ToSchema)]
pub(crate) struct Encoded {
    /// Its id.
    id: Uuid,
    /// Bits per dimension by which the model describes it: the less, the more like what it was trained on.
    bits_per_dim: f64,
    /// Whether its latents decode to the very same pixels, in the model's bits and size.
    exact: bool,
    /// How many of its pixels do not come back.
    differing_pixels: usize,
}

/// Turns a picture (PNG, JPEG, WebP or BMP) into latents, cropped to the middle and resized to the model's size.
#[utoipa::path(
    post,
    path = "/api/v1/encode",
    params(("class" = Option<usize>, Query, description = "Class of the image, where the model has classes")),
    request_body(
        description = "The picture",
        content(
            (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"), (Vec<u8> = "image/bmp")
        )
    ),
    responses(
        (status = 200, body = Encoded),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "Sent too slowly"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Too many bytes"),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No picture"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
async fn encode(
    State(demo): Shared,
    class: Result<Query<Class>, QueryRejection>,
    body: Body,
) -> Result<Json<Encoded>, Problem> {
    let Query(Class { class }) = class?;
    let upload = Upload::read(&demo, body).await?;
    let at = Arc::clone(&demo);
    let work = move |glow: &Glow, client: &Client| {
        let [height, width, channels] = glow.config().image;
        let shape = ImageShape { height, width, channels };
        let pixels = image_of_bytes(&upload.bytes, shape, at.limits.upload_pixels)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        drop(upload);
        let labels: Vec<usize> = class.into_iter().collect();
        let image = Array4::from_shape_vec((1, height, width, channels), pixels)
            .map_err(|e| Problem::unprocessable(e.to_string()))?;
        let encoded = glow.encode(image.view(), &labels, Dequantization::Midpoint)?;
        let bits_per_dim = glow.bits_per_dim(image.view(), &labels, Draws::default())?[0];
        if !bits_per_dim.is_finite() {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model's numbers for this picture are not finite; the model may be damaged, or its training \
                 diverged",
            ));
        }
        let Decoded { pixels, finite } = decoded(glow, &encoded.latents, &labels, client)?;
        let shift = 8 - glow.config().bits;
        let differ = |(a, b): (&[u8], &[u8])| a.iter().zip(b).any(|(a, b)| a >> shift != b >> shift);
        let original = image.as_slice().unwrap_or_default();
        let differing_pixels =
            original.chunks(channels).zip(pixels.chunks(channels)).filter(|&pair| differ(pair)).count();
        let (exact, finite) = (differing_pixels == 0 && finite[0], finite[0]);
        let id = at.store.put(Stored { latents: encoded.latents, pixels, finite, labels });
        Ok(Json(Encoded { id, bits_per_dim, exact, differing_pixels }))
    };
    demo.compute(work).await
}

/// The bytes of a picture, and their part of the room that all uploads share.
struct Upload {
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

impl Upload {
    async fn read(demo: &Demo, mut body: Body) -> Result<Self, Problem> {
        let limit = demo.limits.upload_bytes;
        let room = |bytes: usize| {
            let permits = u32::try_from(bytes).map_err(|_| Problem::busy())?;
            Arc::clone(&demo.uploads).try_acquire_many_owned(permits).map_err(|_| Problem::busy())
        };
        let mut upload = Self { bytes: vec![], room: room(0)? };
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("the upload broke off: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > limit - upload.bytes.len() {
                let detail = format!("the picture has more than {limit} bytes; send a smaller one");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            upload.room.merge(room(data.len())?);
            upload.bytes.extend_from_slice(&data);
        }
        Ok(upload)
    }
}

/// The image of an id.
fn stored(demo: &Demo, id: Uuid) -> Result<Arc<Stored>, Problem> {
    demo.store.get(id).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no image {id}, or no longer; encode it again"))
    })
}

/// The picture that latents decode to, as PNG.
#[utoipa::path(
    get,
    path = "/api/v1/decode/{id}",
    params(("id" = Uuid, Path, description = "From encode or sample")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/png",
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
async fn decode(State(demo): Shared, id: Result<Path<Uuid>, PathRejection>) -> Result<Response, Problem> {
    let Path(id) = id?;
    let image = stored(&demo, id)?;
    let shape = demo.config.image;
    demo.gate.run(move |_| png(&image.pixels, shape, image.finite)).await
}

/// How to change an image.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manipulate {
    /// The image.
    id: Uuid,
    /// How far to move along each attribute's direction, −1 to 1.
    #[schema(example = json!({ "Smiling": 0.7 }))]
    amounts: BTreeMap<String, f64>,
}

/// Changes attributes of an image; answers with a PNG.
#[utoipa::path(
    post,
    path = "/api/v1/manipulate",
    request_body = Manipulate,
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/png",
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image, or \
            no such attribute"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
async fn manipulate(
    State(demo): Shared,
    request: Result<Json<Manipulate>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Manipulate { id, amounts }) = request?;
    let image = stored(&demo, id)?;
    let at = Arc::clone(&demo);
    let work = move |glow: &Glow, client: &Client| {
        let directions = at.directions.as_ref().ok_or_else(|| {
            Problem::unprocessable("this model has no directions, so nothing can be changed")
        })?;
        let moves = amounts.iter().map(|(name, &amount)| Ok((directions.get(name)?, amount)));
        let moved = latent::manipulate(&image.latents, &moves.collect::<Result<Vec<_>, glowflow::Error>>()?)?;
        let moved = decoded(glow, &moved, &image.labels, client)?;
        png(&moved.pixels, glow.config().image, moved.all_finite())
    };
    demo.compute(work).await
}

/// How to mix two images.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mix {
    /// The first image.
    a: Uuid,
    /// The second.
    b: Uuid,
    /// How far from the first to the second: one number for a picture, several for a strip or an animation.
    #[schema(min_items = 1, example = json!([0.5]))]
    at: Vec<f64>,
    /// Straight, or along the great circle.
    #[serde(default)]
    path: Course,
    /// What to answer with.
    #[serde(default)]
    format: Format,
}

/// The way from one image to the other.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Walk)]
pub(crate) enum Course {
    #[default]
    Linear,
    Spherical,
}

/// Pictures side by side as PNG, or one after the other as GIF.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
    Gif,
}

/// Decodes points between two images.
#[utoipa::path(
    post,
    path = "/api/v1/mix",
    request_body = Mix,
    responses(
        (status = 200, description = "The pictures, in the format asked for",
            content((Vec<u8> = "image/png"), (Vec<u8> = "image/gif")),
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
async fn mix(State(demo): Shared, request: Result<Json<Mix>, JsonRejection>) -> Result<Response, Problem> {
    let Json(Mix { a, b, at: points, path, format }) = request?;
    let (a, b) = (stored(&demo, a)?, stored(&demo, b)?);
    let most = demo.images();
    if points.is_empty() || points.len() > most || points.iter().any(|t| !(0.0..=1.0).contains(t)) {
        let [height, width, _] = demo.config.image;
        return Err(Problem::unprocessable(format!(
            "\"at\" should hold 1 to {most} numbers from 0 to 1, one for each picture of {width}×{height} pixels"
        )));
    }
    let work = move |glow: &Glow, client: &Client| {
        let walk = match path {
            Course::Linear => Walk::Linear,
            Course::Spherical => Walk::Spherical,
        };
        let parts: Vec<Latents> = points.iter().map(|&t| between(&a.latents, &b.latents, t, walk)).collect();
        let labels: Vec<usize> =
            points.iter().flat_map(|&t| if t > 0.5 { &b.labels } else { &a.labels }).copied().collect();
        let mixed = decoded(glow, &Latents::concatenate(&parts)?, &labels, client)?;
        let (shape, finite, pixels) = (glow.config().image, mixed.all_finite(), mixed.pixels);
        match format {
            Format::Png if points.len() == 1 => png(&pixels, shape, finite),
            Format::Png => {
                answer("image/png", picture::encode_png(&picture::rows(&[&pixels], shape)), finite)
            }
            Format::Gif => {
                let gif = animation::encode(animation::Format::Gif, &pixels, shape, MILLISECONDS);
                answer("image/gif", gif, finite)
            }
        }
    };
    demo.compute(work).await
}

/// What to draw.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// How many images.
    #[schema(minimum = 1)]
    count: usize,
    /// Spread of the latents: 1 is the model's own, less gives smoother images.
    #[schema(minimum = 0, maximum = 2)]
    temperature: f64,
    /// Equal seeds give equal images.
    seed: u64,
    /// Needed where the model has classes.
    class: Option<usize>,
    /// Whether to compute the bits per dimension of each image, which takes about as long as drawing it.
    #[serde(default)]
    score: bool,
}

/// Images that were drawn.
#[derive(Serialize, ToSchema)]
pub(crate) struct Samples {
    /// Their ids.
    ids: Vec<Uuid>,
    /// Whether the numbers behind each image are finite. Pixels of others are black and mean nothing.
    finite: Vec<bool>,
    /// If asked for, bits per dimension of each image: the less, the likelier. Null for numbers that are not
    /// finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_dim: Option<Vec<Option<f64>>>,
}

/// Draws images.
#[utoipa::path(
    post,
    path = "/api/v1/sample",
    request_body = Sample,
    responses(
        (status = 200, body = Samples),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "Impossible"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
async fn sample(
    State(demo): Shared,
    request: Result<Json<Sample>, JsonRejection>,
) -> Result<Json<Samples>, Problem> {
    let Json(Sample { count, temperature, seed, class, score }) = request?;
    let most = demo.images();
    let [height, width, channels] = demo.config.image;
    if !(1..=most).contains(&count) || !(0.0..=2.0).contains(&temperature) {
        return Err(Problem::unprocessable(format!(
            "{count} images at temperature {temperature} are not possible; 1 to {most} of {width}×{height} pixels at 0 to 2 are"
        )));
    }
    let at = Arc::clone(&demo);
    let work = move |glow: &Glow, client: &Client| {
        let labels = class.map_or(vec![], |class| vec![class; count]);
        let latents = glow.draw(count, temperature, seed)?;
        let Decoded { pixels, finite } = decoded(glow, &latents, &labels, client)?;
        let images = || pixels.chunks(pixels.len() / count).zip(&finite);
        let bits_of = |(image, &finite): (&[u8], &bool)| {
            client.check()?;
            let image = ArrayView4::from_shape((1, height, width, channels), image)
                .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
            let label = class.as_slice();
            let bits = glow.bits_per_dim(image, label, Draws::default())?[0];
            Ok((finite && bits.is_finite()).then_some(bits))
        };
        let bits_per_dim =
            score.then(|| images().map(bits_of).collect::<Result<_, Problem>>()).transpose()?;
        let ids = images().enumerate().map(|(i, (image, &finite))| {
            at.store.put(Stored {
                latents: latents.slice(i..i + 1),
                pixels: image.to_vec(),
                finite,
                labels: class.into_iter().collect(),
            })
        });
        Ok(Json(Samples { ids: ids.collect(), finite: finite.clone(), bits_per_dim }))
    };
    demo.compute(work).await
}

/// Images in pixels.
struct Decoded {
    /// Of all images, HWC.
    pixels: Vec<u8>,
    /// Of each image, whether the numbers behind its pixels are finite.
    finite: Vec<bool>,
}

impl Decoded {
    fn all_finite(&self) -> bool {
        self.finite.iter().all(|&finite| finite)
    }
}

/// Decodes images, as many at once as suits the device, as long as somebody waits for them.
fn decoded(glow: &Glow, latents: &Latents, labels: &[usize], client: &Client) -> Result<Decoded, Problem> {
    let at_once = glow.decoded_at_once();
    let (mut pixels, mut finite) = (vec![], vec![]);
    for start in (0..latents.batch()).step_by(at_once) {
        client.check()?;
        let range = start..latents.batch().min(start + at_once);
        let labels_of = |range: Range<usize>| labels.get(range).unwrap_or_default();
        let (images, all_finite) =
            glow.decode_checked(&latents.slice(range.clone()), labels_of(range.clone()))?;
        pixels.extend(images);
        for i in range {
            // The batch has one flag, so each image is decoded alone to find those that are not finite.
            finite.push(all_finite || glow.decode_checked(&latents.slice(i..i + 1), labels_of(i..i + 1))?.1);
        }
    }
    Ok(Decoded { pixels, finite })
}

/// One image in its own size.
fn png(pixels: &[u8], shape: [usize; 3], finite: bool) -> Result<Response, Problem> {
    answer("image/png", picture::encode_png(&picture::single(pixels, shape)), finite)
}

fn answer(kind: &'static str, encoded: Result<Vec<u8>, String>, finite: bool) -> Result<Response, Problem> {
    let bytes = encoded.map_err(|reason| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, reason))?;
    let finite = if finite { "true" } else { "false" };
    Ok(([(header::CONTENT_TYPE, kind), (FINITE, finite)], bytes).into_response())
}
