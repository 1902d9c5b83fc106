//! Progress as lines, captured by a writer.

use glowflow_report::progress::{Display, Goal, Progress};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines(goal: Goal, every: Duration, run: impl FnOnce(Progress)) -> Vec<String> {
    let written = Shared::default();
    run(Progress::lines(goal, Box::new(written.clone()), every));
    let bytes = written.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(String::from).collect()
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_unit_can_differ_from_steps() {
    let lines = lines(Goal::Steps(20), HOUR, |progress| {
        let mut progress = progress.counting("image");
        progress.update(7, "");
        progress.finish();
    });
    assert_eq!(lines, ["image 7/20"]);
}

#[test]
fn lines_are_periodic_and_end_with_the_last_update() {
    let lines = lines(Goal::Steps(1000), HOUR, |mut progress| {
        for step in 1..=1000 {
            progress.update(step, "3.41 bits/dim");
            if step == 500 {
                progress.println("saved");
            }
        }
        progress.finish();
    });
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "step 1/1000 · 3.41 bits/dim");
    assert_eq!(lines[1], "saved");
    assert_eq!(lines[2], "step 1000/1000 · 3.41 bits/dim · 0 s left");
}

#[test]
fn time_left_follows_the_steps_made_since_the_start() {
    let lines = lines(Goal::Steps(1_000_000), Duration::ZERO, |mut progress| {
        // Resumed at step 900 000; ten steps take at least 20 ms.
        progress.update(900_000, "");
        std::thread::sleep(Duration::from_millis(20));
        progress.update(900_010, "");
    });
    assert_eq!(lines[0], "step 900000/1000000");
    // 99 990 steps to go, so at least 199 s; a busy machine may have slept for longer.
    assert!(lines[1].starts_with("step 900010/1000000 · "), "{lines:?}");
    assert!(lines[1].ends_with(" left") && lines[1].contains(" min "));
}

#[test]
fn time_left_of_a_task_with_a_time_limit() {
    let lines = lines(Goal::Until(HOUR), Duration::ZERO, |mut progress| {
        progress.update(1, "a");
    });
    assert_eq!(lines, ["step 1 · a · 1 h 0 min left"]);
}

#[test]
fn of_two_limits_the_sooner_determines_the_time_left() {
    let lines = lines(Goal::Sooner(4, HOUR), Duration::ZERO, |mut progress| {
        progress.update(1, "");
        progress.update(2, "");
    });
    assert_eq!(lines, ["step 1/4 · 1 h 0 min left", "step 2/4 · 0 s left"]);
}

#[test]
fn an_open_goal_has_no_time_left() {
    let lines = lines(Goal::Open, Duration::ZERO, |mut progress| {
        progress.update(7, "a");
    });
    assert_eq!(lines, ["step 7 · a"]);
}

#[test]
fn a_bar_and_the_quiet_display_accept_the_same_calls() {
    for display in [Display::Bar, Display::Quiet] {
        for goal in [Goal::Steps(2), Goal::Until(HOUR), Goal::Sooner(2, HOUR), Goal::Open] {
            let mut progress = Progress::new(goal, display);
            progress.update(1, "a");
            progress.update(2, "b");
            progress.finish();
        }
    }
}
