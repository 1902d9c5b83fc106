//! Delivery of a run's events to its observers.

use crate::Error;
use crate::train::observer::{Event, Observer, Outbox};

/// The observers of a run.
pub struct List<'a> {
    members: Vec<Member<'a>>,
    ends: bool,
}

struct Member<'a> {
    observer: Box<dyn Observer + 'a>,
    failed: bool,
}

impl<'a> List<'a> {
    pub fn new(observers: Vec<Box<dyn Observer + 'a>>) -> Self {
        let members = observers.into_iter().map(|observer| Member { observer, failed: false });
        Self { members: members.collect(), ends: false }
    }

    /// Sends an event to all observers up to the first failure, and after each observer the events in its
    /// outbox.
    pub fn send(&mut self, event: &Event<'_>) -> Result<(), Error> {
        for i in 0..self.members.len() {
            let member = &mut self.members[i];
            if member.failed {
                continue;
            }
            let mut outbox = Outbox::default();
            let answer = member.observer.on(event, &mut outbox);
            member.failed = !matches!(answer, Ok(_) | Err(Error::Stopped));
            let messages = outbox.into_messages();
            let delivered = messages.iter().try_for_each(|message| self.send(&message.event()));
            self.ends |= answer?.is_break();
            delivered?;
        }
        Ok(())
    }

    /// Sends a line for the user.
    pub fn notice(&mut self, line: &str) -> Result<(), Error> {
        self.send(&Event::Notice(line))
    }

    /// Flushes the records of all observers to disk.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.members.iter_mut().try_for_each(|member| member.observer.flush())
    }

    /// Returns whether an observer ended training.
    pub fn end_training(&self) -> bool {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ops::ControlFlow;

    use super::*;

    /// Records the notices it receives, optionally answers one of them, and fails on `fails`.
    struct Relay<'a> {
        name: &'a str,
        answer: Option<(&'a str, &'a str)>,
        fails: &'a str,
        seen: &'a RefCell<Vec<String>>,
    }

    impl Observer for Relay<'_> {
        fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
            let Event::Notice(line) = event else { return Ok(ControlFlow::Continue(())) };
            self.seen.borrow_mut().push(format!("{}: {line}", self.name));
            if let Some((_, to)) = self.answer.filter(|(from, _)| from == line) {
                outbox.notice(to);
            }
            if *line == self.fails {
                return Err(Error::Input(format!("{} failed", self.name)));
            }
            Ok(ControlFlow::Continue(()))
        }
    }

    #[test]
    fn answers_are_delivered_before_the_next_observer_gets_the_event() {
        let seen = RefCell::default();
        let first = Relay { name: "first", answer: Some(("question", "answer")), fails: "", seen: &seen };
        let second = Relay { name: "second", answer: None, fails: "", seen: &seen };
        List::new(vec![Box::new(first), Box::new(second)]).notice("question").unwrap();
        let order = ["first: question", "first: answer", "second: answer", "second: question"];
        assert_eq!(*seen.borrow(), order);
    }

    #[test]
    fn a_failed_observer_gets_no_further_events() {
        let seen = RefCell::default();
        let first = Relay { name: "first", answer: None, fails: "fail", seen: &seen };
        let second = Relay { name: "second", answer: None, fails: "", seen: &seen };
        let mut list = List::new(vec![Box::new(first), Box::new(second)]);
        assert_eq!(list.notice("fail").unwrap_err().to_string(), "first failed");
        list.notice("more").unwrap();
        assert_eq!(*seen.borrow(), ["first: fail", "second: more"]);
    }
}
