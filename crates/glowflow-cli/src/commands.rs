//! One function a command: from arguments to a library call to lines on the screen.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use glowflow::bench::Bench;
use glowflow::evaluate::{Draws, evaluate};
use glowflow::latent::interpolate as interpolate_images;
use glowflow::latents_file::LatentsFile;
use glowflow::train::{Limits, Options, RunConfig, Summary};
use glowflow::{Glow, data, train};
use glowflow_data::{Dataset, ImageShape, Subset, load_image, save_png};
use glowflow_kernels::Cpu;
use glowflow_report::progress::Display;
use glowflow_report::{animation, picture};
use serde_json::json;

use crate::args;

/// Exit status of a run that a signal ended, as shells have it for Ctrl-C.
const INTERRUPTED: u8 = 130;

/// A flag that Ctrl-C and SIGTERM set. A second signal ends the program at once.
fn stop_flag() -> anyhow::Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("stopping after this step; once more to stop at once");
    })
    .context("waiting for signals")?;
    Ok(&STOP)
}

/// As `println!`, but a reader that went away is an error to pass on and not a panic.
macro_rules! say {
    ($($line:tt)*) => {
        writeln!(std::io::stdout(), $($line)*).context("writing the result")?
    };
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}").context("writing the result")
}

fn print_summary(summary: &Summary, run: &Path, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(&serde_json::to_value(summary)?)?;
    } else {
        let test = summary.evaluation.map_or(String::new(), |evaluation| {
            format!(
                ": test {:.3} ± {:.3} bits/dim, inverse error {:.1e}",
                evaluation.bits_per_dim, evaluation.standard_error, evaluation.inverse_error
            )
        });
        say!("{} steps{test}", summary.steps);
        if summary.skipped > 0 {
            say!("{} steps were skipped: loss or gradient was not finite", summary.skipped);
        }
        if summary.broken > 0 {
            say!("{} images could not be read", summary.broken);
        }
        if summary.interrupted {
            say!("stopped; continue with: glowflow train --resume {}", run.display());
        }
    }
    Ok(if summary.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

pub fn quickstart(args: &args::Quickstart, json: bool) -> anyhow::Result<ExitCode> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => new_folder("quickstart"),
    };
    let limits = Limits { minutes: Some(args.minutes), ..Limits::default() };
    let options = Options { limits, display: Display::detect(), stop: stop_flag()? };
    let done = glowflow::quickstart::quickstart(&out, args.seed, options)?;
    let status = print_summary(&done.summary, &out, json)?;
    if !json {
        say!("\nLook at");
        for picture in &done.pictures {
            say!("  {}", picture.display());
        }
        let run = out.display();
        say!("\nThen try");
        say!("  glowflow sample --model {run} --temperature 1.0 --seed 1 --out more.png");
        say!("  glowflow train --resume {run} --minutes 10");
        say!("  glowflow train --data FOLDER_OF_PHOTOGRAPHS --preset faces32 --minutes 60 --out my-run");
    }
    Ok(status)
}

/// `name`, or `name-2` and so on where that is taken.
fn new_folder(name: &str) -> PathBuf {
    let numbered = (2..).map(|i| PathBuf::from(format!("{name}-{i}")));
    std::iter::once(PathBuf::from(name))
        .chain(numbered)
        .find(|path| !path.exists())
        .unwrap_or_else(|| name.into())
}

/// An absolute path, so that a run can be resumed from anywhere; the built-in data's name stays as it is.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    if path == Path::new(data::PORTRAITS) && !path.exists() {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

pub fn train(args: &args::Train, json: bool) -> anyhow::Result<ExitCode> {
    let limits = Limits { steps: args.steps, images: args.images, minutes: args.minutes };
    let options = Options { limits, display: Display::detect(), stop: stop_flag()? };
    let (summary, run) = match (&args.resume, &args.out) {
        (Some(run), _) => (train::resume(Cpu::<f32>::new(), run, options)?, run),
        (None, Some(out)) => {
            let mut config =
                RunConfig::resolve(args.preset.as_deref(), args.config.as_deref(), &args.overrides)?;
            let data = &mut config.data;
            for (from, to) in [(&args.data, &mut data.path), (&args.test_data, &mut data.test)] {
                if let Some(path) = from.as_ref().or(to.as_ref()) {
                    *to = Some(absolute(path)?);
                }
            }
            data.test_fraction = args.test_fraction.or(data.test_fraction);
            config.train.seed = args.seed.unwrap_or(config.train.seed);
            config.train.backprop = args.backprop.map_or(config.train.backprop, Into::into);
            (train::train(Cpu::<f32>::new(), config, out, options)?, out)
        }
        (None, None) => bail!("say where the run goes with --out, or which one to continue with --resume"),
    };
    print_summary(&summary, run, json)
}

/// The images to look at: the test set where there is one. Where `label` stands for all labels, the data need
/// have none.
fn test_data(path: &Path, glow: &Glow, label: Option<usize>) -> anyhow::Result<Arc<dyn Dataset>> {
    let mut config = glow.config().clone();
    if label.is_some() {
        config.classes = 0;
    }
    let splits = data::open(path, &config)?;
    Ok(splits.test.unwrap_or(splits.train))
}

fn draws(scoring: &args::Scoring) -> Draws {
    match scoring.dequantization {
        args::DequantizationArg::Midpoint => Draws::Midpoint,
        args::DequantizationArg::Uniform => Draws::Uniform { draws: scoring.draws, seed: scoring.seed },
    }
}

/// Names what a dataset could not read.
fn report_broken(dataset: &Arc<dyn Dataset>) {
    for image in dataset.broken() {
        eprintln!("skipped {}: {}", image.name, image.reason);
    }
}

pub fn eval(args: &args::Eval, json: bool) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let mut dataset = test_data(&args.data, &glow, None)?;
    if let Some(images) = args.images {
        anyhow::ensure!(images > 0, "--images 0 leaves nothing to evaluate; leave it out for all images");
        dataset = Arc::new(Subset::new(Arc::clone(&dataset), (0..images.min(dataset.len())).collect()));
    }
    let evaluation = evaluate(&glow, &dataset, draws(&args.scoring))?;
    report_broken(&dataset);
    if json {
        print_json(&serde_json::to_value(evaluation)?)?;
    } else {
        say!("bits/dim       {:.4} ± {:.4}", evaluation.bits_per_dim, evaluation.standard_error);
        say!("images         {}", evaluation.images);
        say!("inverse error  {:.2e}", evaluation.inverse_error);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn score(args: &args::Score) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let dataset = test_data(&args.data, &glow, args.label)?;
    let to: Box<dyn Write> = if args.csv == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        Box::new(
            std::fs::File::create(&args.csv).with_context(|| format!("creating {}", args.csv.display()))?,
        )
    };
    let mut csv = csv::Writer::from_writer(to);
    let mut failed = None;
    glowflow::evaluate::score(&glow, &dataset, draws(&args.scoring), args.label, |score| {
        if failed.is_none() {
            failed = csv.serialize(score).err();
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error).with_context(|| format!("writing {}", args.csv.display()));
    }
    csv.flush().with_context(|| format!("writing {}", args.csv.display()))?;
    report_broken(&dataset);
    Ok(ExitCode::SUCCESS)
}

fn image_shape(glow: &Glow) -> ImageShape {
    let [height, width, channels] = glow.config().image;
    ImageShape { height, width, channels }
}

/// Writes one PNG for each image and name.
fn save_images(
    glow: &Glow,
    images: &ndarray::Array4<u8>,
    folder: &Path,
    name: impl Fn(usize) -> PathBuf,
) -> anyhow::Result<()> {
    for (i, image) in images.outer_iter().enumerate() {
        let path = folder.join(name(i));
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        let pixels: Vec<u8> = image.iter().copied().collect();
        save_png(&path, image_shape(glow), &pixels)?;
    }
    Ok(())
}

pub fn sample(args: &args::Sample) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    anyhow::ensure!(args.count > 0, "--count 0 leaves nothing to draw");
    let classes = glow.config().classes;
    anyhow::ensure!(
        classes == 0 || args.class.is_some(),
        "the model has {classes} classes: say which one to draw with --class 0 to {}",
        classes.saturating_sub(1)
    );
    let labels = args.class.map_or(vec![], |class| vec![class; args.count]);
    let samples = glow.sample(args.count, args.temperature, &labels, args.seed)?;
    if let Some(folder) = &args.out_dir {
        save_images(&glow, &samples, folder, |i| format!("{i:05}.png").into())?;
    }
    if let Some(path) = &args.out {
        let columns = (1..).find(|c| c * c >= args.count).unwrap_or(1);
        let picture = picture::grid(&samples.into_raw_vec_and_offset().0, glow.config().image, columns);
        picture::save_png(path, &picture)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn encode(args: &args::Encode, json: bool) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let dataset = test_data(&args.data, &glow, args.label)?;
    let latents = LatentsFile::encode(&glow, &dataset, args.label)?;
    latents.write(&args.out)?;
    report_broken(&dataset);
    count(latents.images.len(), json)
}

pub fn decode(args: &args::Decode, json: bool) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let file = LatentsFile::read(&args.latents)?;
    anyhow::ensure!(
        file.model == glow.fingerprint(),
        "{} holds latents of another model than {}: decode with the model that encoded them",
        args.latents.display(),
        args.model.display()
    );
    let images = glow.decode(&file.latents, &file.labels)?;
    save_images(&glow, &images, &args.out_dir, |i| picture_path(&file.images[i]))?;
    count(file.images.len(), json)
}

/// Where a decoded image goes below the output folder: its name's plain parts alone, so that no file of latents can
/// point out of it.
fn picture_path(name: &str) -> PathBuf {
    let parts = Path::new(name).components().filter_map(|part| match part {
        std::path::Component::Normal(part) => Some(part),
        _ => None,
    });
    let path: PathBuf = parts.collect();
    path.with_added_extension("png")
}

/// Picture files as images of the model's shape, `[n, H, W, C]`.
fn load_images(glow: &Glow, paths: &[PathBuf]) -> anyhow::Result<ndarray::Array4<u8>> {
    let shape = image_shape(glow);
    let mut pixels = vec![];
    for path in paths {
        pixels.extend(load_image(path, shape)?);
    }
    Ok(ndarray::Array4::from_shape_vec((paths.len(), shape.height, shape.width, shape.channels), pixels)?)
}

pub fn interpolate(args: &args::Interpolate) -> anyhow::Result<ExitCode> {
    /// How long a frame of an animation is shown.
    const MILLISECONDS: u16 = 80;
    let glow = Glow::load(&args.model)?;
    let moving = animation::Format::of(&args.out);
    let mut paths = args.images.clone();
    if moving.is_some() {
        paths.push(args.images[0].clone());
    }
    let images = load_images(&glow, &paths)?;
    let labels = args.label.map_or(vec![], |label| vec![label; paths.len()]);
    let frames = interpolate_images(&glow, images.view(), &labels, args.frames, args.path.into())?;
    let (pixels, shape) = (frames.into_raw_vec_and_offset().0, glow.config().image);
    match moving {
        Some(format) => animation::save(&args.out, format, &pixels, shape, MILLISECONDS)?,
        None => picture::save_png(&args.out, &picture::grid(&pixels, shape, args.frames))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn count(images: usize, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(&json!({ "images": images }))?;
    } else {
        say!("{images} images");
    }
    Ok(ExitCode::SUCCESS)
}

pub fn info(args: &args::Info, json: bool) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let config = glow.config();
    if json {
        print_json(&json!({
            "config": config,
            "parameters": glow.parameters(),
            "latents": config.latent_shapes(),
        }))?;
    } else {
        let [height, width, channels] = config.image;
        say!("image        {height}×{width}×{channels}, {} bits", config.bits);
        say!("levels       {} of {} steps, hidden {}", config.levels, config.steps, config.hidden);
        say!("coupling     {:?}", config.coupling);
        say!("permutation  {:?}", config.permutation);
        say!("classes      {}", config.classes);
        say!("parameters   {}", glow.parameters());
        say!("latents      {:?}", config.latent_shapes());
    }
    Ok(ExitCode::SUCCESS)
}

pub fn bench(args: &args::Bench, json: bool) -> anyhow::Result<ExitCode> {
    let mut config = RunConfig::resolve(args.preset.as_deref(), args.config.as_deref(), &args.overrides)?;
    config.train.backprop = args.backprop.map_or(config.train.backprop, Into::into);
    let batch = config.train.batch;
    let mut bench = Bench::new(Cpu::<f32>::new(), config)?;
    if args.serve {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("reading a request")?;
            let seconds = match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["train", count] => bench.train(count.parse().context("reading a count")?)?,
                ["sample", count] => bench.sample(count.parse().context("reading a count")?)?,
                _ => bail!("a request is \"train N\" or \"sample N\", not {line:?}"),
            };
            print_json(&json!({ "seconds": seconds }))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.memory {
        bench.train(2)?;
        print_json(&serde_json::to_value(bench.memory())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    bench.train(2)?;
    let (train, sample) = (median(bench.train(args.repeat)?), median(bench.sample(args.repeat)?));
    if json {
        print_json(&json!({ "train_step_seconds": train, "sample_batch_seconds": sample, "batch": batch }))?;
    } else {
        say!("training step  {:8.1} ms, {:8.1} images/s", 1e3 * train, batch as f64 / train);
        say!("sampling       {:8.1} ms, {:8.1} images/s", 1e3 * sample, batch as f64 / sample);
    }
    Ok(ExitCode::SUCCESS)
}
