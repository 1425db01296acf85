//! The sessions that an isolate has read or written last, so that a change of one need not read it first. Nothing is answered
//! from here: the store is always asked whether it is still so.

use std::collections::BTreeMap;

use super::Session;
use crate::{id::Handle, ticket::Ticket};

/// How much is remembered, in bytes of text. When it is full, all is forgotten: a change then reads first, as without it.
const MAX_BYTES: usize = 4 << 20;

/// What a session takes beside its texts, roughly.
const OVERHEAD: usize = 1000;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Known {
    sessions: BTreeMap<Handle, Session>,
    bytes: usize,
}

impl Known {
    /// Remembers a session as the store has it.
    pub(crate) fn remember(&mut self, session: Session) {
        // Those of other applications are read in another way. One without a text is not as the store has it.
        if session.ticket.foreign.is_some() || session.stored.is_empty() {
            return;
        }
        if self.bytes > MAX_BYTES {
            *self = Self::default();
        }
        self.bytes += size(&session);
        if let Some(older) = self.sessions.insert(session.ticket.id.handle(), session) {
            self.bytes -= size(&older);
        }
    }

    /// Takes what is known of the session that this ticket has the newest id of.
    pub(super) fn take(&mut self, ticket: &Ticket) -> Option<Session> {
        let session = self.sessions.remove(&ticket.id.handle())?;
        self.bytes -= size(&session);
        Some(session)
    }
}

fn size(session: &Session) -> usize {
    session.stored.len() + session.record.data.get().len() + OVERHEAD
}
