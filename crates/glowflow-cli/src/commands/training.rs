//! `quickstart` and `train`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::evaluate::Evaluation;
use glowflow::faces::Faces;
use glowflow::latent::DIRECTIONS;
use glowflow::quickstart::EFFECT_PORTRAITS;
use glowflow::train::{Adapt, BEST, CONFIG, Changes, Job, Limits, Options, RunConfig, Summary, observers};
use glowflow::{AnyDevice, Cpu, Error, ModelConfig, Precision, data, train};
use glowflow_report::progress::Display;

use super::new_folder::NewFolder;
use super::ranks;
use super::resuming::{device_option, failed, limit_options, resume_command};
use super::{
    check_folder_output, check_given_once, counted, plus_minus, print_json, quoted, say, tell, verdict,
};
use crate::{ExitCode, args, signals, words};

/// The reason why a resumed run accepts no other configuration.
const CONFIGURED: &str = "a run continues with the configuration in its checkpoint: change individual values with --set, such as \
                          --set train.lr=5e-4";
/// Difference in bits/dim between the last and the best model above which the user is notified.
const MIN_LOSS: f64 = 0.01;
/// Training time in minutes below which samples are rough, on any device and data.
const ROUGH_MINUTES: f64 = 10.0;

fn print_summary(summary: &Summary, run: &Path, common: &args::Common, limits: Limits) -> anyhow::Result<()> {
    if common.json {
        let mut value = serde_json::to_value(summary)?;
        if let Some(evaluation) = value.get_mut("evaluation").and_then(|value| value.as_object_mut()) {
            // JSON cannot represent non-finite numbers.
            evaluation.retain(|_, value| !value.is_null());
        }
        print_json(&value)?;
    } else {
        let finite = summary.evaluation.as_ref().filter(|evaluation| is_finite(evaluation));
        let test = finite.map_or(String::new(), |evaluation| {
            format!(
                ": test {:.3}{} bits/dim, {}, inverse error {:.1e}",
                evaluation.bits_per_dim,
                plus_minus(evaluation.standard_error, 3),
                evaluation.estimate,
                evaluation.inverse_error
            )
        });
        say!("{}{test}", counted(summary.steps as usize, "step"));
        if let (Some(last), Some(best)) = (finite, summary.best)
            && last.bits_per_dim > best.bits_per_dim + MIN_LOSS
        {
            let file = run.join(BEST);
            say!(
                "the best model on test images is {}, from step {} ({:.3} bits/dim)",
                file.display(),
                best.step,
                best.bits_per_dim
            );
        }
        if summary.skipped > 0 {
            let verb = if summary.skipped == 1 { "was" } else { "were" };
            let skipped = counted(summary.skipped as usize, "step");
            say!("{skipped} {verb} skipped: loss or gradient was not finite");
        }
        if summary.broken > 0 {
            say!("{} could not be read", counted(summary.broken, "image"));
        }
        if summary.interrupted {
            let limits = limit_options(limits, summary.trained_for);
            say!("stopped; continue with: {}{limits}", resume_command(run, common));
            say!("samples.png and curve.png in {} show the last step", run.display());
        }
    }
    Ok(())
}

/// Returns whether all numbers of an evaluation are finite.
fn is_finite(evaluation: &Evaluation) -> bool {
    evaluation.bits_per_dim.is_finite() && evaluation.inverse_error.is_finite()
}

/// Prints the summary of a run with these limits, and returns its exit status.
fn finish(summary: &Summary, run: &Path, common: &args::Common, limits: Limits) -> anyhow::Result<ExitCode> {
    let printed = print_summary(summary, run, common, limits);
    let unsound = summary.evaluation.as_ref().filter(|evaluation| !is_finite(evaluation)).map(|_| {
        "the last evaluation is not finite: the model may be damaged, or its training diverged".to_owned()
    });
    if summary.interrupted {
        unsound.iter().for_each(|trouble| tell(trouble));
        // The terminal may have closed.
        return Ok(signals::status());
    }
    printed?;
    verdict([unsound])
}

pub fn quickstart(args: &args::Quickstart, common: &args::Common) -> anyhow::Result<ExitCode> {
    let (out, _claimed) = match &args.out {
        Some(out) => (out.clone(), None),
        None => {
            let folder = NewFolder::create("quickstart")?;
            (folder.path().to_owned(), Some(folder))
        }
    };
    check_folder_output(&out)?;
    let limits = Limits { minutes: Some(args.minutes), ..Limits::default() };
    let (observers, stop) = (observers::standard(Display::detect()), signals::stop_flag()?);
    let options = Options { limits, observers, faces: None, stop };
    let done = match glowflow::quickstart::quickstart(
        |precision| common.open(precision),
        &out,
        args.seed,
        options,
    ) {
        Ok(done) => done,
        Err(error) => return failed(error, &out, common, limits),
    };
    let status = finish(&done.summary, &out, common, limits)?;
    if !done.summary.interrupted {
        tell_if_rough(args.minutes, &out, common);
    }
    if !common.json && !done.summary.interrupted {
        say!("\nLook at:");
        for picture in &done.pictures {
            say!("  {}", picture.display());
        }
        say!("\nEffect of moving {EFFECT_PORTRAITS} test portraits along the direction of an attribute:");
        for effect in &done.effects {
            say!(
                "  {:16} changed in {:3.0} %, every other attribute unchanged in at least {:3.0} %",
                effect.attribute,
                100.0 * effect.changed,
                100.0 * effect.kept
            );
        }
        let run = quoted(&out);
        let program = words::program();
        let program = quoted(&program);
        let device = device_option(common);
        say!("\nTo open the demo with sliders for these attributes, run");
        say!("  {program} serve --model {run}");
        say!("\nOther commands to try:");
        say!("  {program} sample --model {run} --temperature 1.0 --seed 1 --out more.png");
        say!("  {program} train --resume {run}{device} --minutes 10");
        say!(
            "  {program} attributes --model {run} --data {}    # afterwards, for the sliders",
            data::PORTRAITS
        );
        say!("  {program} train --data FOLDER_OF_PHOTOGRAPHS --preset faces32 --minutes 60 --out my-run");
    }
    Ok(status)
}

/// The absolute path, so that a run can be resumed from any folder; the name of the built-in data is kept.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    if data::is_portraits(path) {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

pub fn train(args: &args::Train, common: &args::Common) -> anyhow::Result<ExitCode> {
    let job = ranks::connect(args.ranks_limit)?;
    if job.ranks().rank() > 0 {
        return ranks::follow(&job, args.ranks_limit, common);
    }
    let limits = Limits { steps: args.steps, images: args.images, minutes: args.minutes };
    let (done, run, _claimed) = match start(args, common, limits, &job) {
        Ok(started) => started,
        Err(error) => {
            // The first error is the one to report.
            let _ = job.refuse();
            return Err(error);
        }
    };
    let summary = match done {
        Ok(summary) => summary,
        Err(error) => {
            let _ = job.refuse();
            if job.has_begun() && !matches!(error, Error::Stopped) {
                return Ok(ranks::abort(&job, error, &run, common, limits));
            }
            return failed(error, &run, common, limits);
        }
    };
    let status = finish(&summary, &run, common, limits)?;
    if !common.json && !summary.interrupted {
        if args.resume.is_some() && run.join(DIRECTIONS).exists() {
            say!(
                "the directions in {} belong to the model before this training: compute them again with `glowflow attributes`",
                run.display()
            );
        }
        next_steps(&run, summary.steps, common)?;
    }
    Ok(status)
}

/// Trains, and returns the outcome, the run, and the folder if it is new. Returns an error if the run could
/// not start.
fn start(
    args: &args::Train,
    common: &args::Common,
    limits: Limits,
    job: &Job,
) -> anyhow::Result<(Done, PathBuf, Option<NewFolder>)> {
    let given = [
        (args.data.is_some(), "--data", "data.path"),
        (args.test_data.is_some(), "--test-data", "data.test"),
        (args.test_fraction.is_some(), "--test-fraction", "data.test_fraction"),
        (args.seed.is_some(), "--seed", "train.seed"),
        (args.backprop.is_some(), "--backprop", "train.backprop"),
        (args.precision.is_some(), "--precision", "train.precision"),
    ];
    check_given_once(&args.overrides, &given)?;
    let faces = args.eyes.map(Faces::Aligned);
    let (observers, stop) = (observers::standard(Display::detect()), signals::stop_flag()?);
    let options = Options { limits, observers, faces, stop };
    Ok(match (&args.resume, &args.out) {
        (Some(run), _) => (resume(args, common, run, options, job)?, train::run_folder(run).to_owned(), None),
        (None, Some(out)) => (begin(args, common, out, options, job)?, out.clone(), None),
        (None, None) => {
            let folder = NewFolder::create("run")?;
            let out = folder.path().to_owned();
            (begin(args, common, &out, options, job)?, out, Some(folder))
        }
    })
}

/// Prints commands to try with a trained model.
fn next_steps(run: &Path, steps: u64, common: &args::Common) -> anyhow::Result<()> {
    let config = RunConfig::read(&run.join(CONFIG)).unwrap_or_default();
    // After train.steps, nothing is left to train.
    let longer = match config.train.steps {
        Some(end) if steps >= end => format!("--set train.steps={}", steps.saturating_mul(2)),
        _ => "--minutes 60".into(),
    };
    let data = config.data;
    let class = data.classes.first().map_or(String::new(), |name| format!(" --class {}", quoted(name)));
    let data = data.path.unwrap_or("DATA".into());
    let labels = if data::is_portraits(&data) { "" } else { " --labels attributes.csv" };
    say!("\nLook at {0}/samples.png and {0}/curve.png, then try", run.display());
    let resume = resume_command(run, common);
    let (run, data) = (quoted(run), quoted(&data));
    say!("  glowflow sample --model {run}{class} --count 64 --temperature 0.7 --out more.png");
    say!("  glowflow attributes --model {run} --data {data}{labels}    # sliders for the demo");
    say!("  glowflow serve --model {run}");
    say!("  {resume} {longer}");
    Ok(())
}

type Done = Result<Summary, Error>;

fn begin(
    args: &args::Train,
    common: &args::Common,
    out: &Path,
    options: Options<'_>,
    job: &Job,
) -> anyhow::Result<Done> {
    check_folder_output(out)?;
    let (preset, file) = (args.preset.as_deref(), args.config.as_deref());
    let (mut config, image_is_set) = match &args.from {
        Some(model) => (RunConfig::fine_tune(model, preset, file, &args.overrides)?, true),
        None => RunConfig::resolve_noting_image(preset, file, &args.overrides)?,
    };
    anyhow::ensure!(
        !(args.classes && args.from.is_some() && config.model.classes() == 0),
        "the model of --from has no classes: omit --classes"
    );
    let data = &mut config.data;
    for (from, to) in [(&args.data, &mut data.path), (&args.test_data, &mut data.test)] {
        if let Some(path) = from.as_ref().or(to.as_ref()) {
            *to = Some(absolute(path)?);
        }
    }
    data.test_fraction = args.test_fraction.or(data.test_fraction);
    config.train.seed = args.seed.unwrap_or(config.train.seed);
    config.train.backprop = args.backprop.unwrap_or(config.train.backprop);
    config.train.precision = args.precision.unwrap_or(config.train.precision);
    let device = ranks::open(job, common, config.train.precision)?;
    let adapt = Adapt { channels: !image_is_set && config.train.from.is_none(), classes: args.classes };
    match train::adapt(&mut config, adapt, options.stop) {
        Ok(adapted) => {
            adapted.notices.iter().for_each(|notice| tell(notice));
            if adapted.unused_classes > 0 && config.train.from.is_none() {
                let count = adapted.unused_classes;
                tell(&format!(
                    "the labels of {count} classes are not used; pass --classes to train with them"
                ));
            }
        }
        Err(error) => return Ok(Err(error)),
    }
    if args.precision.is_none() {
        offer_bf16(&config, &device);
    }
    if let (Some(minutes), None, false) =
        (options.limits.minutes, &config.train.from, out.join(CONFIG).exists())
    {
        tell_if_rough(minutes, out, common);
    }
    if args.out.is_none() {
        tell(&format!("writing to the new folder {}", out.display()));
    }
    ranks::report(job, config.train.batch);
    Ok(train::train_as(job, device, config, out, options))
}

/// Suggests bf16 if the CPU trains, or may train, faster with it. Without AMX that depends on the processor.
fn offer_bf16(config: &RunConfig, device: &AnyDevice) {
    let full = matches!(config.train.precision, Precision::Auto | Precision::F32);
    // Only Glow's networks have products that gain.
    if !full || !matches!(config.model, ModelConfig::Glow(_)) || !matches!(device, AnyDevice::Cpu(_)) {
        return;
    }
    if Cpu::has_amx() {
        tell("this CPU trains faster with --device cpu:amx --precision bf16");
    } else if Cpu::has_bf16() {
        tell(
            "this CPU may train faster with --precision bf16; to measure it: glowflow bench --precision bf16",
        );
    }
}

/// Prints what to expect of a short training, and the command to continue.
fn tell_if_rough(minutes: f64, run: &Path, common: &args::Common) {
    if (0.0..=ROUGH_MINUTES).contains(&minutes) {
        let unit = if minutes == 1.0 { "minute" } else { "minutes" };
        tell(&format!(
            "samples are rough after {minutes} {unit} of training; to improve them afterwards: {} --minutes 60",
            resume_command(run, common)
        ));
    }
}

fn resume(
    args: &args::Train,
    common: &args::Common,
    run: &Path,
    options: Options<'_>,
    job: &Job,
) -> anyhow::Result<Done> {
    for (given, option, reason) in [
        (args.config.is_some(), "--config", CONFIGURED),
        (args.preset.is_some(), "--preset", CONFIGURED),
        (args.from.is_some(), "--from", "the run already has weights: omit it, or start another run"),
        (args.classes, "--classes", "the weights belong to the model's classes: start another run"),
        (args.out.is_some(), "--out", "a run continues in its own folder: omit it"),
    ] {
        anyhow::ensure!(!given, "{option} is for a new run; with --resume, {reason}");
    }
    let [data, test_data] = [&args.data, &args.test_data].map(|path| path.as_deref().map(absolute));
    let (data, test_data) = (data.transpose()?, test_data.transpose()?);
    let mut overrides = args.overrides.clone();
    let backprop = args.backprop.map(|backprop| args::name(args::BACKPROPS, backprop));
    let precision = args.precision.map(|precision| args::name(args::PRECISIONS, precision));
    overrides.extend(backprop.map(|name| format!("train.backprop={name}")));
    // Rejected with a reason unless they equal the run's values.
    overrides.extend(args.seed.map(|seed| format!("train.seed={seed}")));
    overrides.extend(precision.map(|name| format!("train.precision={name}")));
    overrides.extend(args.test_fraction.map(|fraction| format!("data.test_fraction={fraction:?}")));
    let changes = Changes { data: data.as_deref(), test_data: test_data.as_deref(), overrides: &overrides };
    let device = |config: &RunConfig| {
        ranks::report(job, config.train.batch);
        ranks::open(job, common, config.train.precision)
    };
    Ok(train::resume_as(job, device, run, changes, options))
}
