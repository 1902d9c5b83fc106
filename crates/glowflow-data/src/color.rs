//! Converts colours to sRGB.
//!
//! A matrix/TRC colour profile (Display P3, Adobe RGB, ProPhoto) is converted with relative colorimetric
//! intent, a grey profile by its curve. For a PNG without a profile the declared code points apply, or else
//! its gamma and chromaticities. Pixels stay unchanged if the profile is within one level of sRGB, damaged,
//! or based on lookup tables.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use moxcms::{
    Chromaticity, CicpProfile, ColorPrimaries, ColorProfile, DataColorSpace, Layout, RenderingIntent,
    ToneReprCurve, Transform8BitExecutor, TransformOptions, curve_from_gamma,
};

use crate::png_chunks::PngChunks;

/// Maximum difference from sRGB, in levels, at which a profile is ignored.
const TOLERANCE: u8 = 1;
/// The gamma that sRGB encoders write, and the deviation up to which a gamma means sRGB's curve.
const SRGB_GAMMA: u32 = 45_455;
const SRGB_GAMMA_TOLERANCE: u32 = 1_000;

/// Converts 8-bit pixels.
type Transform = Arc<Transform8BitExecutor>;

/// Channel layout of 8-bit pixels: grey or RGB, with or without alpha.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channels {
    pub color: bool,
    pub alpha: bool,
}

impl Channels {
    fn layout(self) -> Layout {
        match (self.color, self.alpha) {
            (false, false) => Layout::Gray,
            (false, true) => Layout::GrayAlpha,
            (true, false) => Layout::Rgb,
            (true, true) => Layout::Rgba,
        }
    }
}

/// Converts pixels to sRGB by the ICC profile `icc`, or else by the chunks of a PNG.
pub(crate) fn to_srgb(
    pixels: Vec<u8>,
    channels: Channels,
    icc: Option<&[u8]>,
    png: Option<&PngChunks>,
) -> Vec<u8> {
    if icc.is_none() && png.is_none_or(|png| !png.declares_colors()) {
        return pixels;
    }
    // A damaged profile must not make the image unreadable, even if the library panics.
    let converted = catch_unwind(AssertUnwindSafe(|| {
        let transform = recent_transform(channels, icc, png)?;
        let mut converted = vec![0; pixels.len()];
        transform.transform(&pixels, &mut converted).ok()?;
        Some(converted)
    }));
    converted.ok().flatten().unwrap_or(pixels)
}

/// The transform from an image's colours to sRGB. Most images of a folder share a profile, so recent
/// transforms are cached.
fn recent_transform(channels: Channels, icc: Option<&[u8]>, png: Option<&PngChunks>) -> Option<Transform> {
    type Known = (Channels, Option<Vec<u8>>, Option<PngChunks>, Option<Transform>);
    static RECENT: Mutex<VecDeque<Known>> = Mutex::new(VecDeque::new());
    const KEPT: usize = 8;
    let recent = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let is_this = |known: &&Known| (known.0, known.1.as_deref(), known.2.as_ref()) == (channels, icc, png);
    if let Some((.., known)) = recent().iter().find(is_this) {
        return known.clone();
    }
    let transform = profile(icc, png).and_then(|profile| transform(&profile, channels));
    let mut recent = recent();
    recent.truncate(KEPT - 1);
    recent.push_front((channels, icc.map(<[u8]>::to_vec), png.cloned(), transform.clone()));
    transform
}

/// The profile of an image, unless it is sRGB by declaration or default.
fn profile(icc: Option<&[u8]>, png: Option<&PngChunks>) -> Option<ColorProfile> {
    let declared = png.and_then(|png| png.code_points).map(profile_of_code_points);
    match (declared, icc, png) {
        (Some(declared), ..) => declared,
        (None, Some(icc), _) => profile_of_icc(icc),
        (None, None, Some(png)) if !png.srgb => profile_of_gamma(png),
        _ => None,
    }
}

fn profile_of_icc(icc: &[u8]) -> Option<ColorProfile> {
    let mut profile = ColorProfile::new_from_slice(icc).ok()?;
    // If a profile has both, the tables hold renderings for print.
    profile.lut_a_to_b_perceptual = None;
    profile.lut_a_to_b_colorimetric = None;
    profile.lut_a_to_b_saturation = None;
    Some(profile)
}

/// The profile given by the cICP chunk. HDR transfer functions have no counterpart in sRGB.
fn profile_of_code_points([primaries, transfer, matrix, _]: [u8; 4]) -> Option<ColorProfile> {
    const PQ: u8 = 16;
    const HLG: u8 = 18;
    if matches!(transfer, PQ | HLG) || matrix != 0 {
        return None;
    }
    let profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries: primaries.try_into().ok()?,
        transfer_characteristics: transfer.try_into().ok()?,
        matrix_coefficients: matrix.try_into().ok()?,
        full_range: true,
    });
    profile.red_trc.is_some().then_some(profile)
}

/// The profile given by the gAMA and cHRM chunks, as in browsers.
fn profile_of_gamma(png: &PngChunks) -> Option<ColorProfile> {
    if png.gamma.is_none() && png.chromaticities.is_none() {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    if let Some([white_x, white_y, colors @ ..]) = png.chromaticities {
        let point = |x: u32, y: u32| Chromaticity::new(x as f32 / 1e5, y as f32 / 1e5);
        let [red_x, red_y, green_x, green_y, blue_x, blue_y] = colors;
        let primaries = ColorPrimaries {
            red: point(red_x, red_y),
            green: point(green_x, green_y),
            blue: point(blue_x, blue_y),
        };
        profile.update_rgb_colorimetry(point(white_x, white_y).to_xyyb(), primaries);
    }
    let gamma = png.gamma.unwrap_or(SRGB_GAMMA);
    if gamma.abs_diff(SRGB_GAMMA) > SRGB_GAMMA_TOLERANCE {
        // Other values are writer errors.
        const SENSIBLE: std::ops::RangeInclusive<u32> = 20_000..=200_000;
        let curve = SENSIBLE.contains(&gamma).then(|| curve_from_gamma(1e5 / gamma as f32))?;
        profile.red_trc = Some(curve.clone());
        profile.green_trc = Some(curve.clone());
        profile.blue_trc = Some(curve);
    }
    Some(profile)
}

/// The transform from a profile to sRGB, unless it is the identity.
fn transform(profile: &ColorProfile, channels: Channels) -> Option<Transform> {
    let mut srgb = ColorProfile::new_srgb();
    let mut profile = profile.clone();
    if !channels.color {
        // Grey pixels of a PNG with a gamma.
        let curve = profile.gray_trc.take().or_else(|| profile.red_trc.take())?;
        profile = gray(curve);
        srgb = gray(srgb.red_trc?);
    } else if profile.color_space != DataColorSpace::Rgb || profile.red_trc.is_none() {
        return None;
    }
    let layout = channels.layout();
    let options = TransformOptions {
        rendering_intent: RenderingIntent::RelativeColorimetric,
        allow_use_cicp_transfer: false,
        ..Default::default()
    };
    let transform = |layout| profile.create_transform_8bit(layout, &srgb, layout, options).ok();
    let samples = samples(channels.color);
    let mut converted = vec![0; samples.len()];
    transform(Channels { alpha: false, ..channels }.layout())?.transform(&samples, &mut converted).ok()?;
    let differs = samples.iter().zip(&converted).any(|(a, b)| a.abs_diff(*b) > TOLERANCE);
    if differs { transform(layout) } else { None }
}

fn gray(curve: ToneReprCurve) -> ColorProfile {
    let mut profile = ColorProfile::new_gray_with_gamma(1.0);
    profile.gray_trc = Some(curve);
    profile
}

/// All greys, or a grid of colours.
fn samples(color: bool) -> Vec<u8> {
    if !color {
        return (0..=255).collect();
    }
    let levels = || (0..=255).step_by(15);
    let greens = move |red| levels().flat_map(move |green| levels().flat_map(move |blue| [red, green, blue]));
    levels().flat_map(greens).collect()
}
