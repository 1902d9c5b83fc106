//! `eval` and `score`.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::Context;
use glowflow::evaluate::{Draws, Inversion, NoiseKind, evaluate};
use glowflow::{AnyDevice, Architecture, Model, Precision};
use glowflow_data::Dataset;
use glowflow_report::file;
use serde_json::json;

use super::{
    check_output, class_of, is_stdout, left_out, named, plus_minus, print_json, report_broken, sample_images,
    say, test_data, verdict, watched,
};
use crate::{ExitCode, args};

/// The likelihood estimate requested by the arguments, for a model trained with this noise.
fn draws(scoring: &args::Scoring, trained: NoiseKind) -> anyhow::Result<Draws> {
    let &args::Scoring { draws, importance, seed, .. } = scoring;
    let noise = match scoring.dequantization {
        Some(args::DequantizationArg::Midpoint) => {
            anyhow::ensure!(
                importance.is_none(),
                "--importance needs draws of noise, and the midpoint has none: omit --dequantization midpoint"
            );
            return Ok(Draws::Midpoint);
        }
        Some(args::DequantizationArg::Uniform) => NoiseKind::Uniform,
        Some(args::DequantizationArg::Variational) => NoiseKind::Variational,
        None => trained,
    };
    Ok(match importance {
        Some(draws) => Draws::Importance { noise, draws, seed },
        None => Draws::mean(noise, draws, seed),
    })
}

pub fn eval(args: &args::Eval, common: &args::Common) -> anyhow::Result<ExitCode> {
    let device = common.open(args.scoring.precision)?;
    let full = match args.scoring.precision {
        Precision::Auto => matches!(device, AnyDevice::Cpu(_)),
        precision => matches!(precision, Precision::F32),
    };
    let glow = Model::load_on(device, &args.model)?;
    let draws = draws(&args.scoring, glow.config().noise())?;
    let dataset = test_data(&args.data, &args.model, &glow, None)?;
    let dataset = watched(Arc::new(sample_images(dataset, args.images, args.scoring.seed)?));
    let inversion = Inversion { images: args.invert, seed: args.scoring.seed };
    let evaluation = evaluate(&glow, &dataset, draws, inversion, |_| Ok(()))?;
    report_broken(&dataset);
    if common.json {
        let mut value = serde_json::to_value(&evaluation)?;
        if let Some(object) = value.as_object_mut() {
            // JSON cannot represent non-finite numbers.
            object.retain(|_, value| !value.is_null());
        }
        print_json(&value)?;
    } else {
        if evaluation.bits_per_dim.is_finite() {
            let error = plus_minus(evaluation.standard_error, 4);
            say!("bits/dim       {:.4}{error}, {draws}", evaluation.bits_per_dim);
        }
        say!("images         {}", evaluation.images);
        if evaluation.inverted > 0 {
            let drawn = if evaluation.inverted < evaluation.images { " drawn at random" } else { "" };
            let remark = if full { "" } else { ", at this precision (encode and decode use f32)" };
            say!("exact          {} of {} images{drawn}{remark}", evaluation.exact, evaluation.inverted);
        }
        if evaluation.inverted > 0 && evaluation.inverse_error.is_finite() {
            say!("inverse error  {:.2e}", evaluation.inverse_error);
        }
    }
    verdict([
        not_finite("bits/dim", &evaluation.not_finite, evaluation.images),
        (!evaluation.inverse_error.is_finite()).then(|| {
            "the inverse error is not finite: some images cannot be recovered from their latents".to_owned()
        }),
        left_out(&*dataset, args.allow_broken),
    ])
}

/// A message about images without a finite score.
fn not_finite(what: &str, names: &[String], images: usize) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "the {what} of {} of {images} images are not finite: {}; the model may be damaged, or its training diverged",
            names.len(),
            named(names)
        )
    })
}

pub fn score(args: &args::Score, common: &args::Common) -> anyhow::Result<ExitCode> {
    if !is_stdout(&args.csv) {
        check_output(&args.csv, &args.model, &[&args.data])?;
    }
    let glow = common.load(args.scoring.precision, &args.model)?;
    let draws = draws(&args.scoring, glow.config().noise())?;
    let label = class_of(args.class.as_deref(), &args.model, &glow)?;
    let mut dataset = test_data(&args.data, &args.model, &glow, label)?;
    // On a terminal the scores themselves show the progress.
    if !is_stdout(&args.csv) || !std::io::stdout().is_terminal() {
        dataset = watched(dataset);
    }
    let write = |to: &mut dyn Write| write_scores(&glow, &dataset, draws, label, common.json, to);
    let failed = if is_stdout(&args.csv) {
        write(&mut std::io::stdout())?
    } else {
        // The file is replaced only after all scores have been computed.
        let mut scores = vec![];
        let failed = write(&mut scores)?;
        file::replace(&args.csv, &scores)?;
        failed
    };
    report_broken(&dataset);
    let scored = dataset.len() - dataset.broken().len();
    verdict([not_finite("log-likelihoods", &failed, scored), left_out(&*dataset, args.allow_broken)])
}

/// Writes the scores as they arrive, as a table or as one JSON object per line. Returns the images without a
/// finite score.
fn write_scores(
    glow: &Model,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    label: Option<usize>,
    json: bool,
    to: &mut dyn Write,
) -> anyhow::Result<Vec<String>> {
    let mut first = true;
    let mut not_finite = vec![];
    glowflow::evaluate::score(glow, dataset, draws, label, |score| {
        let written = match (json, score.is_finite()) {
            (true, true) => {
                serde_json::to_string(&score).map_err(Into::into).and_then(|line| writeln!(to, "{line}"))
            }
            (true, false) => {
                writeln!(
                    to,
                    "{}",
                    json!({ "image": score.image, "error": "the log-likelihood is not finite" })
                )
            }
            (false, _) => {
                let mut row = csv::WriterBuilder::new().has_headers(first).from_writer(&mut *to);
                row.serialize(&score).map_err(Into::into).and_then(|()| row.flush())
            }
        };
        first = false;
        if !score.is_finite() {
            not_finite.push(score.image);
        }
        written.context("writing the scores").map_err(|error| glowflow::Error::Observer(error.into()))
    })?;
    Ok(not_finite)
}
