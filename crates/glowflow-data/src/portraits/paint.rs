//! Renders a sitter: a stack of anti-aliased shapes from the background forwards.
//!
//! Shapes are in units of the image's side, x to the right and y downwards; those of the head are relative to
//! the centre of the face, see [`Easel::head`].

use super::sitter::{CENTRE, Rgb, SCALES, Sitter, mix};
use crate::Eyes;
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, Paint, Path, PathBuilder, Pixmap, Point, RadialGradient, Rect,
    Shader, SpreadMode, Stroke, Transform,
};

/// Half the usual width and height of a face.
const FACE: (f32, f32) = (0.205, 0.25);
/// Position of the right eye relative to the centre of the face; the left one mirrors it.
const EYE: (f32, f32) = (0.092, -0.01);
/// Mean eye positions, to four decimals.
pub(super) const EYES: Eyes = {
    let scale = (SCALES.0 + SCALES.1) as f64 / 2.0;
    let left = [CENTRE.0 as f64 - scale * EYE.0 as f64, CENTRE.1 as f64 + scale * EYE.1 as f64];
    Eyes::mirrored([(left[0] * 1e4).round() / 1e4, (left[1] * 1e4).round() / 1e4])
};
/// Radius of the frames of glasses.
const FRAME: f32 = 0.079;
/// Position of the middle of the mouth relative to the centre of the face.
const MOUTH: (f32, f32) = (0.0, 0.14);

const INK: Rgb = [0.10, 0.08, 0.10];
const WHITE: Rgb = [1.0, 1.0, 1.0];

/// Renders `sitter` into `pixels`, `size` × `size` × 3 bytes (HWC).
pub(super) fn portrait(sitter: &Sitter, size: usize, pixels: &mut [u8]) {
    let mut easel = Easel::new(sitter, size);
    background(&mut easel, sitter);
    shirt(&mut easel, sitter);
    back_hair(&mut easel, sitter);
    neck(&mut easel, sitter);
    face(&mut easel, sitter);
    front_hair(&mut easel, sitter);
    eyes(&mut easel, sitter);
    mouth(&mut easel, sitter);
    if sitter.glasses {
        glasses(&mut easel);
    }
    easel.copy_to(pixels);
}

fn background(easel: &mut Easel, sitter: &Sitter) {
    let light = mix(sitter.background, WHITE, 0.35);
    let paint = radial((0.4, 0.25), 0.9, &[(0.0, light), (1.0, sitter.background)]);
    let everything = Rect::from_ltrb(0.0, 0.0, 1.0, 1.0).expect("a unit square");
    easel.fill(easel.page, PathBuilder::from_rect(everything), paint);
}

fn shirt(easel: &mut Easel, sitter: &Sitter) {
    let light = mix(sitter.shirt, WHITE, 0.2);
    let dark = mix(sitter.shirt, INK, 0.25);
    let paint = radial((0.4, 0.82), 0.5, &[(0.0, light), (1.0, dark)]);
    easel.fill(easel.page, oval(0.5, 1.06, 0.40, 0.28), paint);
}

/// Shapes behind the face: the crown and, if it is long, the hair that falls to the shoulders.
fn back_hair(easel: &mut Easel, sitter: &Sitter) {
    let paint = hair_paint(sitter);
    if sitter.long_hair {
        let mut path = PathBuilder::new();
        path.move_to(0.0, -0.33);
        path.cubic_to(0.19, -0.33, 0.27, -0.18, 0.265, 0.0);
        path.cubic_to(0.26, 0.14, 0.30, 0.24, 0.27, 0.36);
        path.cubic_to(0.20, 0.42, 0.10, 0.40, 0.0, 0.36);
        path.cubic_to(-0.10, 0.40, -0.20, 0.42, -0.27, 0.36);
        path.cubic_to(-0.30, 0.24, -0.26, 0.14, -0.265, 0.0);
        path.cubic_to(-0.27, -0.18, -0.19, -0.33, 0.0, -0.33);
        easel.fill(easel.head, finish(path), paint);
    } else {
        easel.fill(easel.head, oval(0.0, -0.1, 0.245, 0.235), paint);
    }
}

fn neck(easel: &mut Easel, sitter: &Sitter) {
    let mut path = PathBuilder::new();
    path.move_to(-0.085, 0.12);
    path.line_to(0.085, 0.12);
    path.line_to(0.09, 0.32);
    path.cubic_to(0.13, 0.36, 0.06, 0.42, 0.0, 0.42);
    path.cubic_to(-0.06, 0.42, -0.13, 0.36, -0.09, 0.32);
    easel.fill(easel.head, finish(path), solid(shade_of(sitter.skin)));
}

fn face(easel: &mut Easel, sitter: &Sitter) {
    let (rx, ry) = (FACE.0 * sitter.breadth, FACE.1);
    let light = mix(sitter.skin, WHITE, 0.12);
    let shade = shade_of(sitter.skin);
    let paint = radial((-0.05, -0.06), 0.34, &[(0.0, light), (0.45, sitter.skin), (1.0, shade)]);
    if !sitter.long_hair {
        for side in [-1.0, 1.0] {
            let ear = oval(side * (rx + 0.005), 0.01, 0.04, 0.055);
            easel.fill(easel.head, ear, solid(shade));
        }
    }
    easel.fill(easel.head, oval(0.0, 0.0, rx, ry), paint);
    for side in [-1.0, 1.0] {
        let cheek = (side * 0.125, 0.085);
        let paint = blob(cheek, 0.075, [0.93, 0.35, 0.30], 0.4 * sitter.blush);
        easel.fill(easel.head, oval(cheek.0, cheek.1, 0.075, 0.075), paint);
    }
    let nose = (0.0, 0.06);
    let paint = blob(nose, 0.04, shade, 0.9);
    easel.fill(easel.head, oval(nose.0, nose.1, 0.032, 0.024), paint);
}

/// The fringe: from temple to temple over the crown, and back along a hairline with a parting.
fn front_hair(easel: &mut Easel, sitter: &Sitter) {
    let part = 0.09 * sitter.parting;
    let mut path = PathBuilder::new();
    path.move_to(-0.235, 0.0);
    path.cubic_to(-0.27, -0.20, -0.17, -0.335, 0.0, -0.335);
    path.cubic_to(0.17, -0.335, 0.27, -0.20, 0.235, 0.0);
    path.cubic_to(0.20, -0.04, 0.19, -0.08, 0.17, -0.11);
    path.cubic_to(0.10, -0.12, part + 0.04, -0.15, part, -0.19);
    path.cubic_to(part - 0.04, -0.15, -0.10, -0.12, -0.17, -0.11);
    path.cubic_to(-0.19, -0.08, -0.20, -0.04, -0.235, 0.0);
    easel.fill(easel.head, finish(path), hair_paint(sitter));
}

fn eyes(easel: &mut Easel, sitter: &Sitter) {
    let brow = mix(mix(sitter.hair, INK, 0.35), sitter.skin, 0.1);
    for side in [-1.0, 1.0] {
        let (x, y) = (side * EYE.0, EYE.1);
        easel.fill(easel.head, oval(x, y, 0.05, 0.042), solid(WHITE));
        let pupil = x + 0.012 * sitter.gaze;
        easel.fill(easel.head, oval(pupil, y, 0.03, 0.034), solid(INK));
        let mut path = PathBuilder::new();
        path.move_to(x - 0.045, y - 0.072);
        path.quad_to(x, y - 0.092, x + 0.045, y - 0.072);
        easel.stroke(finish(path), brow, 0.022);
    }
}

/// A smile is an open crescent with teeth, well below the line of a straight mouth.
fn mouth(easel: &mut Easel, sitter: &Sitter) {
    let lips = mix(sitter.skin, [0.60, 0.08, 0.12], 0.75);
    let (x, y) = MOUTH;
    let mut path = PathBuilder::new();
    if sitter.smiling {
        path.move_to(x - 0.1, y - 0.025);
        path.quad_to(x, y + 0.01, x + 0.1, y - 0.025);
        path.cubic_to(x + 0.07, y + 0.11, x - 0.07, y + 0.11, x - 0.1, y - 0.025);
        let path = finish(path);
        easel.fill(easel.head, path.clone(), solid([0.62, 0.10, 0.14]));
        let mut teeth = PathBuilder::new();
        teeth.move_to(x - 0.085, y - 0.014);
        teeth.quad_to(x, y + 0.012, x + 0.085, y - 0.014);
        teeth.quad_to(x, y + 0.06, x - 0.085, y - 0.014);
        easel.fill(easel.head, finish(teeth), solid(WHITE));
        easel.stroke(path, lips, 0.012);
    } else {
        path.move_to(x - 0.06, y);
        path.line_to(x + 0.06, y);
        easel.stroke(finish(path), lips, 0.03);
    }
}

fn glasses(easel: &mut Easel) {
    for side in [-1.0, 1.0] {
        let (x, y) = (side * EYE.0, EYE.1);
        let lens = oval(x, y, FRAME, FRAME);
        let mut paint = solid(WHITE);
        paint.shader.apply_opacity(0.1);
        easel.fill(easel.head, lens.clone(), paint);
        easel.stroke(lens, INK, 0.034);
    }
    let mut path = PathBuilder::new();
    path.move_to(-EYE.0 + FRAME, EYE.1 - 0.015);
    path.line_to(EYE.0 - FRAME, EYE.1 - 0.015);
    for side in [-1.0, 1.0] {
        path.move_to(side * (EYE.0 + FRAME), EYE.1 - 0.015);
        path.line_to(side * 0.215, EYE.1 - 0.03);
    }
    easel.stroke(finish(path), INK, 0.034);
}

/// The colour of shaded skin.
fn shade_of(skin: Rgb) -> Rgb {
    mix(skin, [0.45, 0.15, 0.10], 0.2)
}

/// Hair with a sheen at the upper left; the same for front and back, so that they blend.
fn hair_paint(sitter: &Sitter) -> Paint<'static> {
    let sheen = mix(sitter.hair, WHITE, 0.18);
    let shade = mix(sitter.hair, INK, 0.22);
    radial((-0.07, -0.25), 0.65, &[(0.0, sheen), (0.35, sitter.hair), (1.0, shade)])
}

/// The canvas and its coordinate systems.
struct Easel {
    canvas: Pixmap,
    /// From units of the image's side to pixels.
    page: Transform,
    /// From units around the centre of the face to pixels.
    head: Transform,
}

impl Easel {
    fn new(sitter: &Sitter, size: usize) -> Self {
        let side = size as u32;
        let page = Transform::from_scale(size as f32, size as f32);
        Easel {
            canvas: Pixmap::new(side, side).expect("a picture has pixels"),
            page,
            head: page.pre_translate(sitter.centre.0, sitter.centre.1).pre_scale(sitter.scale, sitter.scale),
        }
    }

    fn fill(&mut self, place: Transform, path: Path, paint: Paint) {
        self.canvas.fill_path(&path, &paint, FillRule::Winding, place, None);
    }

    /// Draws a line with round ends on the head.
    fn stroke(&mut self, path: Path, colour: Rgb, width: f32) {
        let stroke = Stroke { width, line_cap: LineCap::Round, ..Stroke::default() };
        self.canvas.stroke_path(&path, &solid(colour), &stroke, self.head, None);
    }

    /// Converts RGBA to RGB; everything is opaque because the background covers the canvas.
    fn copy_to(&self, pixels: &mut [u8]) {
        let (to, _) = pixels.as_chunks_mut::<3>();
        let (from, _) = self.canvas.data().as_chunks::<4>();
        assert_eq!(to.len(), from.len(), "the buffer fits the picture");
        for (to, from) in to.iter_mut().zip(from) {
            to.copy_from_slice(&from[..3]);
        }
    }
}

fn oval(x: f32, y: f32, rx: f32, ry: f32) -> Path {
    let bounds = Rect::from_ltrb(x - rx, y - ry, x + rx, y + ry);
    PathBuilder::from_oval(bounds.expect("positive radii")).expect("an oval has area")
}

fn finish(path: PathBuilder) -> Path {
    path.finish().expect("a path has points")
}

fn colour([red, green, blue]: Rgb, opacity: f32) -> Color {
    Color::from_rgba(red, green, blue, opacity).expect("a mix of colours is a colour")
}

fn solid(rgb: Rgb) -> Paint<'static> {
    shaded(Shader::SolidColor(colour(rgb, 1.0)))
}

/// A radial gradient: colours by distance from `centre` in units of `radius`.
fn radial(centre: (f32, f32), radius: f32, stops: &[(f32, Rgb)]) -> Paint<'static> {
    let stops = stops.iter().map(|&(at, rgb)| GradientStop::new(at, colour(rgb, 1.0)));
    shaded(radial_shader(centre, radius, stops.collect()))
}

/// A colour that fades out towards `radius`.
fn blob(centre: (f32, f32), radius: f32, rgb: Rgb, opacity: f32) -> Paint<'static> {
    let stops = vec![GradientStop::new(0.0, colour(rgb, opacity)), GradientStop::new(1.0, colour(rgb, 0.0))];
    shaded(radial_shader(centre, radius, stops))
}

fn radial_shader((x, y): (f32, f32), radius: f32, stops: Vec<GradientStop>) -> Shader<'static> {
    let centre = Point::from_xy(x, y);
    let spread = SpreadMode::Pad;
    RadialGradient::new(centre, 0.0, centre, radius, stops, spread, Transform::identity())
        .expect("a gradient with stops and a radius")
}

fn shaded(shader: Shader<'static>) -> Paint<'static> {
    Paint { shader, anti_alias: true, ..Paint::default() }
}
