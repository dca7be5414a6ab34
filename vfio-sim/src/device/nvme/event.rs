// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asynchronous events: requests that are held until there is something to tell (NVMe Base 1.4, 5.2).

use std::collections::VecDeque;

/// How many requests are held.
pub(super) const MAX_REQUESTS: usize = 4;

/// Something to tell. All are errors of whoever writes doorbells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The doorbell of a queue that is not there was written.
    DoorbellRegister,
    /// The value was none that the queue could have.
    DoorbellValue,
}

impl Event {
    /// The result of the request: the event's type, which is 0 for errors, what it is, and the log page.
    fn result(self) -> u32 {
        const ERROR_LOG: u32 = 1 << 16;
        ERROR_LOG | (self as u32) << 8
    }
}

/// What is to be told, and the requests to tell it by.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Identifiers of requests.
    requests: VecDeque<u16>,
    /// Events that nobody was told of, each once.
    waiting: VecDeque<Event>,
    /// One was told, and the log has not been read since.
    told: bool,
    /// The identifier of an Abort that has ended a request and is to be answered itself.
    abort: Option<u16>,
}

impl Events {
    /// Holds a request; false if there are too many.
    pub(super) fn hold(&mut self, id: u16) -> bool {
        let held = self.requests.len() < MAX_REQUESTS;
        if held {
            self.requests.push_back(id);
        }
        held
    }

    /// Gives a request up, by an Abort, which is to be ended next; false if it is not held.
    pub(super) fn abort(&mut self, id: u16, abort: u16) -> bool {
        let held = self.requests.iter().position(|request| *request == id);
        let removed = held.and_then(|at| self.requests.remove(at));
        self.abort = self.abort.or(removed.map(|_| abort));
        removed.is_some()
    }

    pub(super) fn raise(&mut self, event: Event) {
        if !self.waiting.contains(&event) {
            self.waiting.push_back(event);
        }
    }

    /// The log has been read: the next event may be told.
    pub(super) fn acknowledge(&mut self) {
        self.told = false;
    }

    /// The request or the Abort that is to be ended, and its result.
    pub(super) fn next(&mut self) -> Option<(u16, u32)> {
        if let Some(abort) = self.abort.take() {
            return Some((abort, 0));
        }
        if self.told || self.waiting.is_empty() {
            return None;
        }
        let id = self.requests.pop_front()?;
        self.told = true;
        Some((id, self.waiting.pop_front()?.result()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_the_log_is_read() {
        let mut events = Events::default();
        events.raise(Event::DoorbellValue);
        assert_eq!(events.next(), None, "there is no request");
        assert!((0..4).all(|id| events.hold(id)) && !events.hold(4));
        events.raise(Event::DoorbellValue);
        events.raise(Event::DoorbellRegister);
        assert_eq!(events.next(), Some((0, 0x1_0100)));
        assert_eq!(events.next(), None, "the log has not been read");
        events.acknowledge();
        assert_eq!(events.next(), Some((1, 0x1_0000)));
        events.acknowledge();
        assert_eq!(events.next(), None);
    }

    #[test]
    fn a_request_that_is_aborted_is_not_told() {
        let mut events = Events::default();
        assert!(!events.abort(7, 9), "it is not held");
        assert!(events.hold(7) && events.hold(8));
        events.raise(Event::DoorbellValue);
        assert!(events.abort(7, 9));
        assert_eq!(events.next(), Some((9, 0)), "the Abort");
        assert_eq!(events.next(), Some((8, 0x1_0100)));
    }
}
