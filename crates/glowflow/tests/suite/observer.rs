//! Observers follow a run, can end it, and do not change its results.

use std::ops::ControlFlow;
use std::path::Path;

use crate::common::NEVER;
use glowflow::train::observer::{Event, Observer, Outbox, StepDone};
use glowflow::train::{Changes, Limits, Options, RunConfig, Summary, checkpoint, observers, resume, train};
use glowflow::{Error, Model};
use glowflow_kernels::Cpu;

/// Files that contain a run's results.
const RESULTS: [&str; 3] = ["model.safetensors", "best.safetensors", "checkpoint.safetensors"];

/// The answer to an event, which is specified by its name and step.
type Answer<'a> = &'a dyn Fn(&str) -> Result<ControlFlow<()>, Error>;

/// Records the events of a run.
struct Notes<'a> {
    events: Vec<String>,
    lines: Vec<String>,
    steps: Vec<StepDone>,
    /// Fingerprint of the last model whose images were due.
    model: Option<u32>,
    answer: Answer<'a>,
    flushed: usize,
    flush: fn(usize) -> Result<(), Error>,
}

impl<'a> Notes<'a> {
    fn new(answer: Answer<'a>) -> Self {
        Self {
            events: vec![],
            lines: vec![],
            steps: vec![],
            model: None,
            answer,
            flushed: 0,
            flush: |_| Ok(()),
        }
    }
}

impl Observer for Notes<'_> {
    fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        self.lines.extend(event.lines());
        let name = match event {
            Event::Opened(opened) => format!("opened {}", opened.step),
            Event::Began(began) => format!("began {}", began.step),
            Event::Step(step) => {
                self.steps.push(*step);
                format!("step {}", step.step)
            }
            Event::Record(record) => format!("record {}", record.step),
            Event::Evaluated(evaluated) => format!("evaluated {}", evaluated.step),
            Event::PicturesDue(due) => {
                self.model = Some(due.model.get()?.fingerprint());
                format!("pictures {}", due.step)
            }
            Event::Picture(picture) => format!("{} {}", picture.name, picture.step),
            Event::Saved { step } => format!("saved {step}"),
            Event::Notice(_) => "notice".to_owned(),
            Event::Ended(Ok(summary)) => format!("ended {}", summary.steps),
            Event::Ended(Err(_)) => "failed".to_owned(),
            _ => "other".to_owned(),
        };
        self.events.push(name.clone());
        (self.answer)(&name)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.flushed += 1;
        (self.flush)(self.flushed)
    }
}

fn goes_on(_: &str) -> Result<ControlFlow<()>, Error> {
    Ok(ControlFlow::Continue(()))
}

/// A model that trains in milliseconds, on built-in portraits.
fn config() -> RunConfig {
    let overrides = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.eval_images=8",
        "train.eval_every=3",
        "train.log_every=3",
        "train.checkpoint_every=2",
        "data.path=portraits",
    ];
    RunConfig::resolve(None, None, &overrides.map(str::to_owned)).unwrap()
}

fn options<'a>(observers: Vec<Box<dyn Observer + 'a>>, steps: u64) -> Options<'a> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers, faces: None, stop: &NEVER }
}

/// The observers that write files, followed by these.
fn with<'a>(notes: impl IntoIterator<Item = &'a mut Notes<'a>>) -> Vec<Box<dyn Observer + 'a>> {
    let mut list = observers::files();
    for notes in notes {
        list.push(Box::new(notes));
    }
    list
}

fn begin(run: &Path, observers: Vec<Box<dyn Observer + '_>>, steps: u64) -> Result<Summary, Error> {
    train(Cpu::<f32>::new(), config(), run, options(observers, steps))
}

fn go_on(run: &Path, observers: Vec<Box<dyn Observer + '_>>, steps: u64) -> Result<Summary, Error> {
    resume(|_| Ok(Cpu::<f32>::new()), run, Changes::default(), options(observers, steps))
}

fn step_of(run: &Path) -> u64 {
    checkpoint::load(&checkpoint::find(run).unwrap()).unwrap().1.progress.step
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_equal(a: &Path, b: &Path, names: &[&str]) {
    for name in names {
        let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(read(a) == read(b), "{name} has other bytes in {}", b.display());
    }
}

#[test]
fn events_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let mut notes = Notes::new(&goes_on);
    begin(run, vec![Box::new(&mut notes)], 4).unwrap();
    let order = [
        "opened 0",
        "began 0",
        "saved 0",
        "step 1",
        "step 2",
        "saved 2",
        "step 3",
        "record 3",
        "evaluated 3",
        "pictures 3",
        "step 4",
        "saved 4",
        "evaluated 4",
        "pictures 4",
        "saved 4",
        "ended 4",
    ];
    assert_eq!(notes.events, order);
    // Before each checkpoint.
    assert_eq!(notes.flushed, 4);
    assert_eq!(notes.model, Some(Model::load(run).unwrap().fingerprint()));
    for step in &notes.steps {
        assert!(step.applied && step.images == 4 && step.seconds > 0.0 && step.learning_rate > 0.0);
        assert!(step.bits_per_dim.is_finite() && step.gradient_norm > 0.0, "{step:?}");
    }
    let lines = &notes.lines;
    assert!(lines[0].contains("parameters") && lines[1].contains("step 3: test"), "{lines:?}");

    // An image drawn by the standard observer is an event for the others.
    let mut notes = Notes::new(&goes_on);
    let mut list = observers::files();
    list.push(Box::new(&mut notes));
    go_on(run, list, 5).unwrap();
    let order =
        ["opened 4", "began 4", "step 5", "evaluated 5", "samples 5", "pictures 5", "saved 5", "ended 5"];
    assert_eq!(notes.events, order);
}

#[test]
fn an_observer_can_end_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let limited = folder.path().join("limited");
    begin(&limited, observers::files(), 3).unwrap();
    for event in ["step 3", "record 3", "evaluated 3", "samples 3"] {
        let run = folder.path().join(event);
        let ends =
            |name: &str| Ok(if name == event { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        let summary = begin(&run, with([&mut Notes::new(&ends)]), 100).unwrap();
        assert_eq!((summary.steps, summary.interrupted), (3, false), "{event}");
        // It equals a run that a limit ends at that step.
        assert_equal(&limited, &run, &[&RESULTS[..], &["metrics.jsonl", "samples.png"]].concat());
    }
}

#[test]
fn an_error_of_an_observer_ends_the_run_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    begin(&whole, observers::files(), 7).unwrap();
    // A failed record is written again.
    let saved = [("step 3", 3), ("record 3", 2), ("evaluated 3", 3), ("pictures 3", 3), ("saved 2", 2)];
    for (event, saved) in saved {
        let run = folder.path().join(event);
        let fails = |name: &str| {
            if name == event { Err(Error::Observer("no more paper".into())) } else { goes_on(name) }
        };
        let (mut failing, mut after) = (Notes::new(&fails), Notes::new(&goes_on));
        let mut list = observers::files();
        list.push(Box::new(&mut failing));
        list.push(Box::new(&mut after));
        let error = begin(&run, list, 100).unwrap_err();
        assert!(matches!(error, Error::Observer(_)) && error.to_string() == "no more paper", "{error:?}");
        assert_eq!(step_of(&run), saved, "{event}");
        assert_eq!(failing.events.last().unwrap(), event, "it gets no further events");
        assert!(!after.events.contains(&event.to_owned()), "{event}");
        assert_eq!(after.events.last().unwrap(), "failed");
        let line = after.lines.last().unwrap();
        assert!(line.contains(&format!("the last checkpoint is of step {saved}")), "{line}");

        go_on(&run, observers::files(), 7).unwrap();
        assert_equal(&whole, &run, &[&RESULTS[..], &["metrics.jsonl"]].concat());
    }
}

/// If an observer fails before training, no run is created.
#[test]
fn an_observer_may_refuse_a_run() {
    let folder = tempfile::tempdir().unwrap();
    for event in ["opened 0", "began 0"] {
        let fails = |name: &str| {
            if name == event { Err(Error::Observer("no paper".into())) } else { goes_on(name) }
        };
        begin(&folder.path().join("run"), with([&mut Notes::new(&fails)]), 3).unwrap_err();
        assert!(names(folder.path()).is_empty(), "{event}: {:?}", names(folder.path()));
    }
}

/// No checkpoint is written without durable records.
#[test]
fn records_that_cannot_be_flushed_end_the_run_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let flush = |number| if number < 2 { Ok(()) } else { Err(Error::Observer("no disk".into())) };
    let mut notes = Notes { flush, ..Notes::new(&goes_on) };
    let error = begin(folder.path(), vec![Box::new(&mut notes)], 100).unwrap_err();
    assert_eq!(error.to_string(), "no disk");
    assert_eq!(step_of(folder.path()), 0);
    let line = notes.lines.last().unwrap();
    assert!(line.contains("is of step 0; step 2 is not saved: no disk"), "{line}");
}

/// A run without observers has the same results, and writes nothing else.
#[test]
fn results_do_not_depend_on_observers() {
    let folder = tempfile::tempdir().unwrap();
    let [observed, headless, resumed] =
        ["observed", "headless", "resumed"].map(|name| folder.path().join(name));
    begin(&observed, observers::files(), 7).unwrap();
    begin(&headless, vec![], 7).unwrap();
    begin(&resumed, vec![], 3).unwrap();
    go_on(&resumed, vec![], 7).unwrap();
    for run in [&headless, &resumed] {
        assert_equal(&observed, run, &RESULTS);
        let files = [
            "README.md",
            "best.safetensors",
            "checkpoint.previous.safetensors",
            "checkpoint.safetensors",
            "config.json",
            "config.toml",
            "eyes.toml",
            "model.safetensors",
        ];
        assert_eq!(names(run), files);
    }
}
