//! `import`: converts checkpoints of other programs.

use std::io::Write;

use anyhow::Context;
use glowflow::{Draws, Model, ModelFile};
use glowflow_data::Dataset;
use glowflow_data::portraits::{MIN_SIZE, Portraits};
use glowflow_import::{Checkpoint, Error, Setting, Settings, import as convert};
use ndarray::Array4;
use serde_json::json;

use super::{check_output, print_json, say, tell, verdict};
use crate::{ExitCode, args};

/// Maximum number of unused tensors to list.
const SHOWN: usize = 8;

pub fn import(args: &args::Import, common: &args::Common) -> anyhow::Result<ExitCode> {
    check_output(&args.out, &args.file, &[])?;
    let settings = Settings { image: args.image, bits: args.bits, permutation: args.permutation };
    let checkpoint = Checkpoint::read(&args.file)?;
    let imported = convert(checkpoint, args.from, &settings).map_err(with_options);
    let imported = imported.with_context(|| args.file.display().to_string())?;
    let file = imported.model().with_context(|| args.file.display().to_string())?;
    file.write(&args.out)?;

    // Reads the file back as written.
    let file = ModelFile::read(&args.out)?;
    let glow = Model::load_on(common.open(glowflow::Precision::F32)?, &args.out)?;
    let pixels = picture(file.config.image())?;
    let labels = if file.config.classes() > 0 { vec![0] } else { vec![] };
    let bits = glow.bits_per_dim(pixels.view(), &labels, Draws::default())?;
    let trip = glow.round_trip(pixels.view(), &labels)?;
    let (bits, error, exact) = (bits[0], trip.errors[0], trip.exact[0]);
    if common.json {
        let finite = |x: f64| x.is_finite().then_some(x);
        print_json(&json!({
            "model": args.out,
            "config": file.config,
            "parameters": glow.parameters(),
            "unused": imported.unused,
            "notes": imported.notes,
            "bits_per_dim": finite(bits),
            "inverse_error": finite(error),
            "exact": exact,
        }))?;
    } else {
        say!("model          {}, {} parameters", args.out.display(), glow.parameters());
        say!("config         {}", serde_json::to_string(&file.config)?);
        if !imported.unused.is_empty() {
            let shown: Vec<&str> = imported.unused.iter().take(SHOWN).map(String::as_str).collect();
            let more = imported.unused.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            say!("unused         {}{more}", shown.join(", "));
        }
        say!("bits/dim       {bits:.4} of a test image ({})", Draws::default());
        say!(
            "inverse error  {error:.2e}, {}",
            if exact { "every pixel exact" } else { "not every pixel exact" }
        );
    }
    imported.notes.iter().for_each(|note| tell(note));
    verdict([(!bits.is_finite() || !error.is_finite()).then(|| {
        "bits/dim or inverse error of the test image are not finite: the model was written, but its training may have diverged"
            .to_owned()
    })])
}

/// Appends the options that supply settings missing from the file.
fn with_options(error: Error) -> anyhow::Error {
    let Error::Missing(settings) = &error else { return error.into() };
    let option = |setting: &Setting| match setting {
        Setting::Image => "--image N",
        Setting::Bits => "--bits N",
        Setting::Permutation => "--permutation reverse",
    };
    let options: Vec<&str> = settings.iter().map(option).collect();
    anyhow::anyhow!("{error}: give {}, as used in training", options.join(" and "))
}

/// One image `[1, H, W, C]`: a portrait if the shape allows it, otherwise a gradient.
fn picture([height, width, channels]: [usize; 3]) -> anyhow::Result<Array4<u8>> {
    let shape = (1, height, width, channels);
    if height == width && height >= MIN_SIZE && channels == 3 {
        let mut pixels = vec![0; height * width * channels];
        Portraits::new(1, height, 0).read(0, &mut pixels)?;
        return Ok(Array4::from_shape_vec(shape, pixels)?);
    }
    Ok(Array4::from_shape_fn(shape, |(_, y, x, c)| {
        (255 * (y + x) / (height + width) + 20 * c).min(255) as u8
    }))
}
