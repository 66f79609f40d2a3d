//! Older versions of records, asked of the authority. Nothing is stored and nothing waits: who asks
//! without an attachment, or too much at once, is told so.

use super::ReplicaSession;
use crate::id::{Key, TableName, WorkspaceName};
use crate::limits::MAX_HISTORY_REQUESTS;
use crate::protocol::history::{History, ReadHistory};
use crate::protocol::message::Message;
use crate::protocol::replica::io::Output;
use crate::protocol::replica::local::Phase;

impl ReplicaSession {
    pub(super) fn read_history(
        &mut self,
        workspace: &WorkspaceName,
        request: u64,
        (table, key): (TableName, Key),
        before: u64,
    ) {
        let local = self.workspaces.get_mut(workspace);
        let ready = |local: &&mut super::Local| {
            local.phase == Phase::Open && local.asked.len() < MAX_HISTORY_REQUESTS
        };
        let Some(local) = local.filter(ready) else {
            return self.out(Output::History { request, answer: None });
        };
        local.asked.insert(request);
        let attachment = local.attachment;
        let asked = ReadHistory { attachment, request, table, key, before };
        self.send(&Message::ReadHistory(asked));
    }

    pub(super) fn history(&mut self, workspace: &WorkspaceName, answer: History) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let request = answer.request;
        let valid = |record: &crate::value::Record| record.check_untrusted().is_ok();
        if local.asked.remove(&request) {
            let is_valid = answer.versions.iter().filter_map(|v| v.record.as_ref()).all(valid);
            let answer = Some(answer).filter(|_| is_valid);
            self.out(Output::History { request, answer });
        }
    }

    /// The attachment is over: nobody answers any more.
    pub(super) fn no_history(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let asked = core::mem::take(&mut local.asked);
        let none = |request| Output::History { request, answer: None };
        self.outputs.extend(asked.into_iter().map(none));
    }
}
