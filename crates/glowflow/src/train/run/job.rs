//! The ranks of a run, and the messages with which they stay together.
//!
//! Rank 0 owns the folder, the records and the clock. All ranks exchange one control message before each
//! step, so that they make the same steps and stop after the same one. Before work that only rank 0 does,
//! such as an evaluation or a checkpoint, it announces a pause, and the others wait longer than usual. Messages
//! also carry the broken images that a rank found, for rank 0 to report. A rank alone exchanges nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glowflow_data::Broken;
use glowflow_ranks::{Alone, Ranks};

use crate::Error;

/// Longest time that ranks wait while rank 0 evaluates, draws or saves.
const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The ranks that train a model together.
#[derive(Clone)]
pub struct Job {
    ranks: Arc<dyn Ranks>,
    limit: Duration,
    /// Whether all ranks have begun to train.
    begun: Arc<AtomicBool>,
    /// Whether they ended before that.
    refused: Arc<AtomicBool>,
}

impl Job {
    /// A job of these ranks. In a step, each waits for the others up to `limit`.
    pub fn new(ranks: Arc<dyn Ranks>, limit: Duration) -> Self {
        Self { ranks, limit, begun: Arc::default(), refused: Arc::default() }
    }

    /// This process alone.
    pub fn alone() -> Self {
        Self::new(Arc::new(Alone::new()), Duration::MAX)
    }

    /// The ranks.
    pub fn ranks(&self) -> &Arc<dyn Ranks> {
        &self.ranks
    }

    /// Longest time that ranks wait for each other in a step.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether there are other ranks.
    pub fn is_shared(&self) -> bool {
        self.ranks.size() > 1
    }

    /// Whether rank 0 has let the other ranks begin. After a failure from then on, [`Ranks::abort`] ends
    /// them.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends the other ranks if they have not begun and not ended: rank 0 cannot begin a run.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing.
    pub fn refuse(&self) -> Result<(), Error> {
        if self.is_shared() && !self.has_begun() && !self.refused.swap(true, Ordering::Relaxed) {
            super::start::refuse(self)?;
            self.ranks.finish()?;
        }
        Ok(())
    }

    /// Lets the other ranks begin.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Waits longer than usual from here on.
    pub(super) fn wait_long(&self) {
        self.ranks.set_limit(self.limit.max(MAX_PAUSE));
    }

    /// Waits as long as rank 0 may take for the images of all ranks.
    pub(super) fn wait_for_whole_batch(&self) {
        let ranks = u32::try_from(self.ranks.size()).unwrap_or(u32::MAX);
        self.ranks.set_limit(self.limit.saturating_mul(ranks));
    }

    /// Waits as long as usual from here on.
    pub(super) fn wait_as_usual(&self) {
        self.ranks.set_limit(self.limit);
    }

    /// Checks that something worked on all ranks. Otherwise all get an error, which names the rank to the
    /// others.
    pub(super) fn all_done<T>(&self, mine: Result<T, Error>) -> Result<T, Error> {
        let text = mine.as_ref().err().map_or(String::new(), Error::to_string);
        let all = self.ranks.gather(text.as_bytes())?;
        let done = mine?;
        match all.iter().position(|text| !text.is_empty()) {
            Some(rank) => Err(failure(rank, &all[rank])),
            None => Ok(done),
        }
    }
}

/// What a rank wants to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A step.
    Step,
    /// Work that only rank 0 does.
    Pause,
    /// The end of training; only rank 0 decides it.
    End,
    /// The end of training on request.
    Stop,
    /// The end of training because of an error.
    Fail(String),
}

impl Wish {
    /// A byte for the wish, then the error's text, or broken images.
    fn message(&self, broken: &[Broken]) -> Vec<u8> {
        let kind = match self {
            Self::Step => 0,
            Self::Pause => 1,
            Self::End => 2,
            Self::Stop => 3,
            Self::Fail(_) => FAILED,
        };
        let mut message = vec![kind];
        match self {
            Self::Fail(text) => message.extend_from_slice(text.as_bytes()),
            _ if broken.is_empty() => {}
            _ => {
                let broken: Vec<_> =
                    broken.iter().map(|image| (image.index, &image.name, &image.reason)).collect();
                message.extend(serde_json::to_vec(&broken).unwrap_or_default());
            }
        }
        message
    }
}

/// The first byte of a message of a rank that failed.
const FAILED: u8 = 4;

/// The broken images in a message.
fn broken(message: &[u8]) -> Vec<Broken> {
    let images: Vec<(usize, String, String)> = match message {
        [kind, images @ ..] if *kind != FAILED => serde_json::from_slice(images).unwrap_or_default(),
        _ => vec![],
    };
    images.into_iter().map(|(index, name, reason)| Broken { index, name, reason }).collect()
}

/// What all ranks do next, given their messages.
///
/// # Errors
/// The failure of the first rank that failed.
fn agreed(messages: &[Vec<u8>]) -> Result<Wish, Error> {
    let kind = |message: &Vec<u8>| message.first().copied().unwrap_or(FAILED);
    if let Some(rank) = messages.iter().position(|message| kind(message) >= FAILED) {
        return Err(failure(rank, messages[rank].get(1..).unwrap_or_default()));
    }
    // During a pause, others repeat their wishes.
    if messages.first().is_some_and(|first| kind(first) == 1) {
        return Ok(Wish::Pause);
    }
    Ok(match messages.iter().map(kind).max() {
        Some(3) => Wish::Stop,
        Some(2) => Wish::End,
        _ => Wish::Step,
    })
}

fn failure(rank: usize, text: &[u8]) -> Error {
    Error::Input(format!("rank {rank}: {}", String::from_utf8_lossy(text)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Others expect a step.
    Steps,
    /// Others wait for rank 0.
    Paused,
    /// Training is over, or a rank is missing: no message is exchanged any more.
    Ended,
}

/// The exchange of control messages.
pub(super) struct Control {
    job: Job,
    phase: Phase,
    /// Broken images that the next message reports.
    found: Vec<Broken>,
    /// Broken images that others reported.
    heard: Vec<Broken>,
}

impl Control {
    /// Before the first step.
    pub fn new(job: Job) -> Self {
        let phase = if job.is_shared() { Phase::Steps } else { Phase::Ended };
        Self { job, phase, found: vec![], heard: vec![] }
    }

    /// Reports a broken image to the other ranks with the next message.
    pub fn report(&mut self, image: Broken) {
        self.found.push(image);
    }

    /// Broken images that other ranks reported since the last call.
    pub fn take_reported(&mut self) -> Vec<Broken> {
        std::mem::take(&mut self.heard)
    }

    /// Exchanges wishes before a step. All ranks get the same answer: a step, the end, or a stop.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing, and the failure of another rank. No message is exchanged after
    /// it.
    pub fn agree(&mut self, wish: Wish, step: u64) -> Result<Wish, Error> {
        if self.phase == Phase::Ended {
            return Ok(wish);
        }
        self.job.ranks.at(step);
        loop {
            match self.exchange(&wish)? {
                Wish::Pause => self.job.wait_long(),
                agreed => {
                    self.job.wait_as_usual();
                    self.phase = if agreed == Wish::Step { Phase::Steps } else { Phase::Ended };
                    return Ok(agreed);
                }
            }
        }
    }

    /// Announces work of rank 0 that others wait for. It lasts until the next [`agree`](Self::agree).
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn pause(&mut self) -> Result<(), Error> {
        if self.phase == Phase::Steps {
            self.exchange(&Wish::Pause)?;
            self.phase = Phase::Paused;
        }
        Ok(())
    }

    /// Lets the other ranks end, unless they have ended already.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn dismiss(&mut self) -> Result<(), Error> {
        if self.phase != Phase::Ended {
            self.exchange(&Wish::End)?;
            self.phase = Phase::Ended;
        }
        Ok(())
    }

    /// Exchanges no further messages: a step failed on this rank.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    fn exchange(&mut self, wish: &Wish) -> Result<Wish, Error> {
        let all = self.job.ranks.gather(&wish.message(&self.found)).map_err(Error::from);
        if let Ok(all) = &all {
            self.found.clear();
            let others = all.iter().enumerate().filter(|(rank, _)| *rank != self.job.ranks.rank());
            self.heard.extend(others.flat_map(|(_, message)| broken(message)));
        }
        all.and_then(|all| agreed(&all)).inspect_err(|_| self.end())
    }
}

#[cfg(test)]
mod tests {
    use glowflow_ranks::Local;

    use super::*;

    fn of(wishes: &[Wish]) -> Result<Wish, String> {
        let messages: Vec<_> = wishes.iter().map(|wish| wish.message(&[])).collect();
        agreed(&messages).map_err(|error| error.to_string())
    }

    #[test]
    fn ranks_agree() {
        use Wish::{End, Pause, Step, Stop};
        assert_eq!(of(&[Step, Step]), Ok(Step));
        assert_eq!(of(&[End, Step]), Ok(End));
        assert_eq!(of(&[Step, Stop, Step]), Ok(Stop));
        assert_eq!(of(&[End, Stop]), Ok(Stop));
        assert_eq!(of(&[Pause, Stop]), Ok(Pause));
        let failed = of(&[Pause, Wish::Fail("no such file".into())]);
        assert_eq!(failed, Err("rank 1: no such file".into()));
    }

    #[test]
    fn broken_images_arrive_once() {
        let image = || Broken { index: 3, name: "a/b.png".into(), reason: "no \"PNG\"".into() };
        let mut controls = Local::job(2, Duration::from_secs(60)).into_iter().map(|ranks| {
            let job = Job::new(Arc::new(ranks), Duration::from_secs(60));
            Control::new(job)
        });
        let [mut root, mut other] = [(); 2].map(|()| controls.next().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                other.report(image());
                for step in 0..2 {
                    assert_eq!(other.agree(Wish::Step, step).unwrap(), Wish::Step);
                }
                assert_eq!(other.take_reported(), []);
            });
            assert_eq!(root.agree(Wish::Step, 0).unwrap(), Wish::Step);
            assert_eq!(root.take_reported(), [image()]);
            assert_eq!(root.agree(Wish::Step, 1).unwrap(), Wish::Step);
            assert_eq!(root.take_reported(), []);
        });
    }

    #[test]
    fn a_rank_alone_exchanges_nothing() {
        let mut control = Control::new(Job::alone());
        control.pause().unwrap();
        assert_eq!(control.agree(Wish::Step, 1).unwrap(), Wish::Step);
        assert_eq!(control.agree(Wish::End, 1).unwrap(), Wish::End);
    }
}
