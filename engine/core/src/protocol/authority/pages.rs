//! Which pages a replica gets, and when: as long as it acknowledges what it has.

use super::{AuthoritySession, Offer, Output, PageFrom, Served};
use crate::id::{Key, TableName};
use crate::limits::MAX_PAGES_IN_FLIGHT;
use crate::plant::{Plant, planted};
use crate::protocol::entry::Entry;
use crate::protocol::message::{AttachRefusal, Changes, Message, Notice};
use crate::protocol::walk::{WalkPage, WalkPlace};

/// A walk that is being served.
#[derive(Debug)]
pub(super) struct Walking {
    /// The head when it began.
    base: u64,
    /// The last record that was sent; a page says which it follows.
    sent: Option<(TableName, Key)>,
    /// The last record that was looked at.
    looked_to: Option<(TableName, Key)>,
}

impl Served {
    /// A copy of nothing begins with a walk, or goes on with one; not where the workspace is small
    /// and nothing was begun.
    pub(super) fn begin_walk(&mut self, head: u64, from: u64) {
        self.walk = match self.walked.take().filter(|place| place.base <= head) {
            Some(WalkPlace { base, table, key }) => {
                let place = Some((table, key));
                Some(Walking { base, sent: place.clone(), looked_to: place })
            }
            None if head >= from.max(1) => {
                Some(Walking { base: head, sent: None, looked_to: None })
            }
            None => None,
        };
        self.is_consistent &= self.walk.is_none();
    }

    /// The replica has stored a page: one of a walk, as long as any is under way.
    pub(super) fn acknowledge(&mut self, received_to: u64) {
        if self.walk_unacknowledged > 0 {
            self.walk_unacknowledged -= 1;
            return;
        }
        while self.unacknowledged.front().is_some_and(|to| *to <= received_to) {
            self.unacknowledged.pop_front();
        }
    }
}

impl AuthoritySession {
    pub(super) fn page(&mut self, attachment: u64, page: Changes, horizon: u64) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        // A tombstone behind the page may be gone: the replica would keep the record for ever. When
        // it attaches again it is told to begin anew.
        let is_behind = page.from < horizon && served.horizon < horizon;
        if is_behind && !planted(Plant::PageBehindHorizon) {
            let message = "old deletes were purged while this device was catching up".into();
            return self.evict(attachment, AttachRefusal::Unavailable, message);
        }
        served.reading = false;
        served.sent_to = page.to;
        served.is_consistent = page.consistent_at.is_some();
        served.unacknowledged.push_back(page.to);
        self.send(&Message::Changes(page));
        self.tell_horizon(attachment);
        self.read_more(attachment);
    }

    /// A page of the walk. What was looked at and may not be shown is named to nobody.
    pub(super) fn walk_page(
        &mut self,
        mut page: WalkPage,
        looked_to: Option<(TableName, Key)>,
        (head, horizon): (u64, u64),
    ) {
        let attachment = page.attachment;
        let Some(served) = self.served.get_mut(&attachment) else { return };
        let Some(walk) = &mut served.walk else { return };
        // The view may be older than what the replica was told when it was attached: what is not in
        // the view has to come behind the walk.
        if walk.sent.is_none() {
            walk.base = walk.base.min(head);
        }
        page.base = walk.base;
        // As with changes: a record that was sent may have been deleted behind the walk.
        let is_behind = page.base < horizon && served.horizon < horizon;
        if is_behind && !planted(Plant::PageBehindHorizon) {
            let message = "old deletes were purged while this device was catching up".into();
            return self.evict(attachment, AttachRefusal::Unavailable, message);
        }
        served.reading = false;
        walk.looked_to = looked_to;
        if let Some(Entry::Row { table, key, .. }) = page.entries.last() {
            walk.sent = Some((table.clone(), key.clone()));
        }
        if page.is_last {
            (served.walk, served.sent_to) = (None, page.base);
        }
        if page.is_last || !page.entries.is_empty() {
            served.walk_unacknowledged += 1;
            self.send(&Message::Walk(page));
        }
        self.tell_horizon(attachment);
        self.read_more(attachment);
    }

    /// Tells of a horizon that moved, once every page up to it is on its way: so the replica has
    /// seen each delete that nobody knows any more, and may forget it too.
    pub(super) fn tell_horizon(&mut self, attachment: u64) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        let horizon = served.moved_to;
        if served.open && served.horizon < horizon && served.sent_to >= horizon {
            served.horizon = horizon;
            self.send(&Message::Notice(Notice::Horizon { attachment, horizon }));
        }
    }

    /// Reads a page if there is something new and credit for it; so nothing piles up for a slow
    /// reader.
    pub(super) fn read_more(&mut self, attachment: u64) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        let under_way = served.unacknowledged.len() + served.walk_unacknowledged as usize;
        let credit = under_way < MAX_PAGES_IN_FLIGHT as usize || planted(Plant::CreditNotWaited);
        if !served.open || served.offer != Offer::Over || served.reading || !credit {
            return;
        }
        let from = match &served.walk {
            Some(Walking { base, sent, looked_to }) => {
                PageFrom::Walk { base: *base, after: sent.clone(), from: looked_to.clone() }
            }
            None if served.sent_to < served.head || !served.is_consistent => {
                PageFrom::Seq(served.sent_to)
            }
            None => return,
        };
        served.reading = true;
        let workspace = served.workspace.clone();
        self.outputs.push_back(Output::ReadPage { attachment, workspace, from });
    }
}
