//! An observer sees each step and checkpoint of a run, and can end it.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use glowflow::Error;
use glowflow::train::{Limits, Options, RunConfig, StepDone, Watch, train};
use glowflow_kernels::Cpu;
use glowflow_report::progress::Display;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Notes what it sees, and ends the run after a step.
struct Notes {
    last: u64,
    steps: RefCell<Vec<StepDone>>,
    saved: RefCell<Vec<u64>>,
    lines: RefCell<Vec<String>>,
}

impl Watch for Notes {
    fn step(&self, step: &StepDone) -> ControlFlow<()> {
        self.steps.borrow_mut().push(*step);
        if step.step == self.last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn saved(&self, step: u64) -> Result<(), Error> {
        self.saved.borrow_mut().push(step);
        Ok(())
    }

    fn say(&self, line: &str) {
        self.lines.borrow_mut().push(line.into());
    }
}

fn config() -> RunConfig {
    let overrides = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.eval_images=8",
        "train.checkpoint_every=2",
        "data.path=portraits",
    ];
    RunConfig::resolve(None, None, &overrides.map(str::to_owned)).unwrap()
}

#[test]
fn a_run_ends_when_its_observer_says_so() {
    let watch = Notes { last: 5, steps: vec![].into(), saved: vec![].into(), lines: vec![].into() };
    let folder = tempfile::tempdir().unwrap();
    let train = |out: &str, watch: Option<&dyn Watch>, steps: u64| {
        let limits = Limits { steps: Some(steps), ..Limits::default() };
        let options = Options { limits, display: Display::Quiet, faces: None, watch, stop: &NEVER };
        train(Cpu::<f32>::new(), config(), &folder.path().join(out), options).unwrap()
    };
    let summary = train("watched", Some(&watch), 100);
    assert_eq!((summary.steps, summary.interrupted), (5, false));
    let steps = watch.steps.into_inner();
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(steps.iter().all(|step| step.seconds > 0.0 && step.bits_per_dim.is_finite()), "{steps:?}");
    // Before the first step, every second step, and at the end.
    assert_eq!(watch.saved.into_inner(), [0, 2, 4, 5]);
    let lines = watch.lines.into_inner();
    assert!(lines[0].contains("parameters") && lines[1].contains("step 5: test"), "{lines:?}");

    // It is the run that a limit ends there.
    train("limited", None, 5);
    for name in ["model.safetensors", "metrics.jsonl"] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(name)).unwrap();
        assert!(read("watched") == read("limited"), "{name} has other bytes");
    }
}
