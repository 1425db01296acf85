//! What one isolate remembers between requests. All of it may be lost at any time, and is bounded.

use std::{cell::RefCell, collections::HashMap};

use crate::{id::Handle, time::Time};

/// So many sessions in use at a time are remembered; with more, some are touched once too often.
const MAX_TOUCHED: usize = 10_000;

/// The memory of an isolate.
#[derive(Debug, Default)]
pub struct Isolate {
    touched: RefCell<HashMap<Handle, Time>>,
}

impl Isolate {
    /// When this isolate last renewed the session's time to live, as far as it remembers.
    pub fn last_touch(&self, handle: &Handle) -> Option<Time> {
        self.touched.borrow().get(handle).copied()
    }

    /// Forgets a renewal that failed.
    pub fn forget(&self, handle: &Handle) {
        self.touched.borrow_mut().remove(handle);
    }

    /// Remembers that the session's time to live is renewed now: of many requests with one ticket, which all find
    /// it due, the first does it.
    pub fn touch(&self, handle: Handle, now: Time) {
        let mut touched = self.touched.borrow_mut();
        if touched.len() >= MAX_TOUCHED {
            touched.clear();
        }
        touched.insert(handle, now);
    }
}
