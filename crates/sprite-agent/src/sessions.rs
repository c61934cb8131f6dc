//! All sessions of a machine: those that run, and for a while those that ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sprite_agent_api::message::SessionInfo;
use sprite_types::SessionId;
use tokio::time::Instant;

use crate::session::Session;

/// Sessions at once; more are refused.
pub(crate) const MOST_LIVE: usize = 1024;

/// How long a session that ended can still be attached to. Source: behaviour reference §11.1 and §12.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Ended sessions that are remembered at most.
const MOST_ENDED: usize = 4096;

/// Output of ended sessions that is kept in memory, all together; the oldest goes to the disk first. If that has no
/// room either it is forgotten, and the exit status stays.
const ENDED_OUTPUT: usize = 4 << 20;

#[derive(Default)]
struct Table {
    live: BTreeMap<SessionId, Arc<Session>>,
    /// In the order of their ends.
    ended: VecDeque<(Instant, Arc<Session>)>,
}

/// The table of sessions.
pub(crate) struct Sessions {
    table: Mutex<Table>,
}

impl Sessions {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self
            .table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        while table
            .ended
            .front()
            .is_some_and(|(since, _)| since.elapsed() >= REMEMBERED_FOR)
        {
            table.ended.pop_front();
        }
        table
    }

    /// How many run.
    pub(crate) fn live(&self) -> usize {
        self.table().live.len()
    }

    /// A new session.
    pub(crate) fn insert(&self, session: Arc<Session>) {
        let mut table = self.table();
        // The kernel used the id again: whoever had it before cannot be meant any more.
        table.ended.retain(|(_, old)| old.id != session.id);
        if session.exit().is_none() {
            table.live.insert(session.id, session);
        } else {
            remember(&mut table, session);
        }
    }

    /// A session has ended.
    pub(crate) fn end(&self, session: &Arc<Session>) {
        let mut table = self.table();
        // It may end before it was inserted; then `insert` sees that.
        if let Some(session) = table.live.remove(&session.id) {
            remember(&mut table, session);
        }
    }

    /// A session that runs, or ended lately.
    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        let table = self.table();
        let ended = || {
            table
                .ended
                .iter()
                .rev()
                .find(|(_, s)| s.id == id)
                .map(|(_, s)| s.clone())
        };
        table.live.get(&id).cloned().or_else(ended)
    }

    /// Those that run.
    pub(crate) fn all_live(&self) -> Vec<Arc<Session>> {
        self.table().live.values().cloned().collect()
    }

    /// Lets the session that ended first, of those that have output on the disk, forget that. Returns whether there
    /// was one.
    pub(crate) fn leave_disk_of_oldest(&self) -> bool {
        self.table()
            .ended
            .iter()
            .any(|(_, session)| session.leave_disk())
    }

    /// Lets all forget what they have on the disk.
    pub(crate) fn leave_disk(&self) {
        let table = self.table();
        let ended = table.ended.iter().map(|(_, session)| session);
        for session in table.live.values().chain(ended) {
            session.leave_disk();
        }
    }

    /// Those that run, in the order of their start.
    /// A terminal that somebody is attached to and that runs something in the foreground, if there is one.
    pub(crate) fn in_use(&self) -> Option<String> {
        let used = self.all_live();
        let used = used.iter().find(|session| session.runs_in_front())?;
        Some(format!(
            "session {} runs something in the foreground of its terminal",
            used.id
        ))
    }

    pub(crate) fn list(&self) -> Vec<SessionInfo> {
        let mut list: Vec<_> = self
            .all_live()
            .iter()
            .map(|session| session.info())
            .collect();
        list.sort_by_key(|info| (info.created_unix_ms, info.session));
        list
    }
}

fn remember(table: &mut Table, session: Arc<Session>) {
    table.ended.push_back((Instant::now(), session));
    while table.ended.len() > MOST_ENDED {
        table.ended.pop_front();
    }
    let mut kept = 0;
    for (_, session) in table.ended.iter().rev() {
        kept += session.memory();
        if kept > ENDED_OUTPUT {
            session.evict();
        }
    }
}
