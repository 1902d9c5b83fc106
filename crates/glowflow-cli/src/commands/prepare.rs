//! `align` and `crop`: prepare all pictures of a folder for training, in a new folder.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::Context;
use glowflow::faces::{self, Faces};
use glowflow::model::MODEL;
use glowflow_data::{
    ImageList, ImageShape, align as align_picture, crop as crop_picture, encode_png, find_images, fit_image,
    load_picture,
};
use glowflow_report::file;
use serde_json::json;

use super::delayed_progress::DelayedProgress;
use super::face_paths::FacePaths;
use super::finder::Detector;
use super::verdict::skipped;
use super::{check_folder_output, check_outside, counted, named, print_json, say, tell, verdict};
use crate::ExitCode;
use crate::args::{Align, Common, Crop, FacesArg};
use crate::signals;

pub fn align(args: &Align, common: &Common) -> anyhow::Result<ExitCode> {
    let detector = Detector::new()?;
    let list = listed(&args.data, &args.out)?;
    let side = usize::from(args.size);
    let make = |pixels: &[u8], shape: ImageShape| -> anyhow::Result<Outcome> {
        let to = ImageShape { height: side, width: side, channels: shape.channels };
        let mut found = detector.detect(pixels, shape)?;
        if args.faces == FacesArg::Main {
            found.truncate(1);
        }
        if found.is_empty() && args.keep_faceless {
            return Ok(Outcome { pictures: vec![(fit_image(pixels, shape, to)?, to)], faces: Some(vec![]) });
        }
        let aligned = |eyes| {
            let mut out = vec![0; to.len()];
            align_picture(pixels, shape, eyes, args.eyes, to, &mut out)?;
            anyhow::Ok((out, to))
        };
        let pictures = found.iter().map(|face| aligned(face.eyes)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Outcome { pictures, faces: Some(found.iter().map(|face| face.eyes).collect()) })
    };
    let done = each(&list, &args.out, make)?;
    if !done.faces.is_empty() {
        faces::write(&args.out, Faces::Aligned(args.eyes))?;
    }
    if done.stopped {
        tell(&stopped(&args.out, &done, &list));
        return Ok(signals::status());
    }
    let (faces, faceless) = (done.faces.len(), done.faceless.len());
    if faces == 0 && faceless > 0 && !args.keep_faceless {
        let photographs = match faceless {
            1 => done.faceless[0].clone(),
            _ => format!("any of {faceless} photographs, such as {}", done.faceless[0]),
        };
        anyhow::bail!("no face was found in {photographs}; for other subjects, use `glowflow crop`");
    }
    done.check_any_read()?;
    if faceless > 0 {
        let what = if args.keep_faceless {
            "were centre-cropped"
        } else {
            "were skipped; pass --keep-faceless to centre-crop them"
        };
        tell(&format!(
            "no face was found in {faceless} of {} photographs, which {what}: {}",
            list.images.len(),
            named(&done.faceless)
        ));
    }
    if common.json {
        let found: Vec<_> =
            done.faces.iter().map(|(image, eyes)| json!({ "image": image, "eyes": eyes })).collect();
        print_json(&json!({
            "aligned": faces, "faces": found, "faceless": done.faceless, "broken": done.broken,
        }))?;
    } else {
        let faceless = counted(faceless, "photograph");
        say!(
            "aligned {}, {faceless} without a face; written to {}",
            counted(faces, "face"),
            args.out.display()
        );
    }
    verdict([skipped(done.broken, list.images.len(), args.allow_broken)])
}

pub fn crop(args: &Crop, common: &Common) -> anyhow::Result<ExitCode> {
    let list = listed(&args.data, &args.out)?;
    let make = |pixels: &[u8], shape: ImageShape| -> anyhow::Result<Outcome> {
        let (cut, shape) = crop_picture(pixels, shape, args.part)?;
        let picture = match args.size {
            None => (cut, shape),
            Some(size) => {
                let scale = f64::from(size) / shape.width.min(shape.height) as f64;
                let resized = |length: usize| ((length as f64 * scale).round() as usize).max(1);
                let to = ImageShape { height: resized(shape.height), width: resized(shape.width), ..shape };
                (fit_image(&cut, shape, to)?, to)
            }
        };
        Ok(Outcome { pictures: vec![picture], faces: None })
    };
    let done = each(&list, &args.out, make)?;
    if done.stopped {
        tell(&stopped(&args.out, &done, &list));
        return Ok(signals::status());
    }
    done.check_any_read()?;
    let cropped = done.made;
    if common.json {
        print_json(&json!({ "cropped": cropped, "broken": done.broken }))?;
    } else {
        say!("cropped {}; written to {}", counted(cropped, "picture"), args.out.display());
    }
    verdict([skipped(done.broken, list.images.len(), args.allow_broken)])
}

/// Lists the input pictures, after creating the output folder.
fn listed(data: &Path, out: &Path) -> anyhow::Result<ImageList> {
    check_folder_output(out)?;
    let list = find_images(data, Some(MODEL))?;
    list.notices.iter().for_each(|notice| tell(notice));
    let taken = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => out.exists(),
    };
    anyhow::ensure!(
        !taken,
        "{} exists and is not an empty folder: give a new folder with --out",
        out.display()
    );
    check_outside(out, data, "--out")?;
    std::fs::create_dir_all(out).with_context(|| format!("creating the folder {}", out.display()))?;
    Ok(list)
}

/// The outputs for one input picture.
struct Outcome {
    pictures: Vec<(Vec<u8>, ImageShape)>,
    /// Eyes of the detected faces, if there was a search.
    faces: Option<Vec<Eyes>>,
}

/// Positions of two eyes in a photograph, as fractions of its width and height.
type Eyes = [[f64; 2]; 2];

/// Results of processing a folder.
#[derive(Default)]
struct Done {
    /// Number of pictures that were read.
    made: usize,
    /// Names of pictures, and the eyes of a face in each.
    faces: Vec<(String, Eyes)>,
    /// Names of the pictures without a detected face.
    faceless: Vec<String>,
    /// Number of files that could not be read, or whose result would be too large.
    broken: usize,
    stopped: bool,
}

impl Done {
    fn read(&self) -> usize {
        self.made + self.broken
    }

    /// Fails if nothing was written because all pictures were skipped.
    fn check_any_read(&self) -> anyhow::Result<()> {
        let broken = self.broken;
        anyhow::ensure!(self.made > 0, "nothing was written: {} skipped", counted(broken, "picture"));
        Ok(())
    }
}

/// Processes each picture of a list and writes the results, in all available threads, until a signal requests
/// a stop.
fn each(
    list: &ImageList,
    out: &Path,
    make: impl Fn(&[u8], ImageShape) -> anyhow::Result<Outcome> + Sync,
) -> anyhow::Result<Done> {
    let stop = signals::stop_flag()?;
    let paths = FacePaths::new(&list.images);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, outcomes) = mpsc::channel();
    let work = |sender: mpsc::Sender<_>| {
        while !stop.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(image) = list.images.get(index) else { return };
            let result = match load_picture(&list.root.join(image)) {
                Ok((pixels, shape)) => match make(&pixels, shape) {
                    // The result of an elongated picture can be too large.
                    Err(error) if matches!(error.downcast_ref(), Some(glowflow_data::Error::Shape(_))) => {
                        Ok(Err(format!("{}: {error}", image.display())))
                    }
                    outcome => outcome
                        .with_context(|| image.display().to_string())
                        .and_then(|outcome| write(out, &paths, index, outcome))
                        .map(Ok),
                },
                Err(broken) => Ok(Err(broken.to_string())),
            };
            // Fails only if the main thread is gone.
            let _ = sender.send((index, result));
        }
    };
    let mut done = Done::default();
    let mut trouble = None;
    std::thread::scope(|scope| {
        for _ in 0..rayon::current_num_threads() {
            let sender = sender.clone();
            let work = &work;
            scope.spawn(move || work(sender));
        }
        // The receiver ends when all threads have finished.
        drop(sender);
        let mut watch = DelayedProgress::new(list.images.len());
        for (index, result) in outcomes {
            match result {
                Ok(Ok(faces)) => {
                    done.made += 1;
                    let name = || list.images[index].display().to_string();
                    if faces.as_ref().is_some_and(Vec::is_empty) {
                        done.faceless.push(name());
                    }
                    done.faces.extend(faces.into_iter().flatten().map(|eyes| (name(), eyes)));
                }
                Ok(Err(broken)) => {
                    watch.tell(&format!("skipped: {broken}"));
                    done.broken += 1;
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    trouble.get_or_insert(error);
                }
            }
            watch.update(done.read());
        }
    });
    // Fails unless the folder is empty.
    let _ = std::fs::remove_dir(out);
    if let Some(error) = trouble {
        return Err(error);
    }
    done.stopped = done.read() < list.images.len();
    done.faceless.sort();
    done.faces.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(done)
}

/// Writes the outputs of an image. Returns the eyes of the faces.
fn write(out: &Path, paths: &FacePaths, image: usize, outcome: Outcome) -> anyhow::Result<Option<Vec<Eyes>>> {
    for (face, (pixels, shape)) in outcome.pictures.iter().enumerate() {
        let path = out.join(paths.of(image, face));
        let parent = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(parent)
            .with_context(|| format!("creating the folder {}", parent.display()))?;
        file::replace(&path, &encode_png(*shape, pixels)?)?;
    }
    Ok(outcome.faces)
}

fn stopped(out: &Path, done: &Done, list: &ImageList) -> String {
    format!(
        "stopped: {} is incomplete; {} of {} pictures were read",
        out.display(),
        done.read(),
        list.images.len()
    )
}
