//! I38, I39, I41: what goes over the lines. Each value says in which workspace it may be seen and,
//! if it is private, by whom.

use std::collections::BTreeSet;

use lastword::core::codec;
use lastword::core::id::BatchId;
use lastword::core::limits::{MAX_BATCHES_IN_FLIGHT, MAX_PAGES_IN_FLIGHT};
use lastword::core::protocol::Message;

use crate::fault::Violation;
use crate::net::Line;
use crate::world::{Done, World};

/// First bytes of messages, as `docs/protocol.md` has them.
const ATTACH: [u8; 3] = [2, 14, 24];
const PUSH: u8 = 5;
const RESUME: u8 = 7;
const PAGE: [u8; 2] = [8, 16];

fn is(bytes: &[u8], tag: u8) -> bool {
    bytes.first() == Some(&tag)
}

/// Remembers under which numbers a device has attached.
pub fn sent_up(line: &mut Line, bytes: &[u8]) {
    if ATTACH.iter().any(|tag| is(bytes, *tag))
        && let Ok(Message::Attach(attach)) = codec::from_bytes(bytes)
    {
        line.attachments.insert(attach.workspace.as_str().to_owned(), attach.attachment);
    }
}

/// What the authority sends to a device is meant for its user.
///
/// # Errors
/// [`Violation`] of I38, I39 or I41.
pub fn sent_down(world: &World, number: u64, bytes: &[u8]) -> Done {
    let Some(line) = world.net.lines.get(&number).filter(|_| world.checks) else { return Ok(()) };
    let user = &world.devices[line.device].user;
    let attachments = line.attachments.len().max(1);
    // What was sent before a Resume is not looked at.
    let sent = line.up.iter().rev().take_while(|(_, bytes)| !is(bytes, RESUME));
    let pushes = sent.filter(|(_, bytes)| is(bytes, PUSH)).map(|(_, bytes)| bytes.as_slice());
    let pushes = under_way(world, pushes, MAX_BATCHES_IN_FLIGHT * attachments);
    let is_page = |bytes: &[u8]| PAGE.iter().any(|tag| is(bytes, *tag));
    let pages = line.down.iter().filter(|(_, bytes)| is_page(bytes)).count();
    if pushes > MAX_BATCHES_IN_FLIGHT * attachments
        || pages > MAX_PAGES_IN_FLIGHT as usize * attachments
    {
        let text = format!("{pushes} batches and {pages} pages are under way to and from {user}");
        return Err(Violation::new("I41", text));
    }
    for (workspace, who) in tags(bytes) {
        if who != "*" && who != user {
            let text = format!("a private record of {who} goes to {user}");
            return Err(Violation::new("I38", text));
        }
        let mut folded = world.oracle.workspaces.iter();
        let Some((_, folded)) = folded.find(|(name, _)| name.as_str() == workspace) else {
            continue;
        };
        let role = folded.roles.get(user).map(String::as_str);
        let is_member = folded.roles.is_empty() || role.is_some_and(|role| role != "none");
        if !is_member {
            let text = format!("{user} is no member of {workspace} and is sent a record of it");
            return Err(Violation::new("I39", text));
        }
        if !line.attachments.contains_key(workspace) {
            let text = format!("{user} is sent a record of {workspace} and did not ask for it");
            return Err(Violation::new("I38", text));
        }
    }
    Ok(())
}

/// How many batches these pushes are. What is offered again meanwhile, as a server asks that puts
/// it off, is one batch still, and none once the server has decided an earlier offer of it; only
/// where they seem too many it is looked who is who.
fn under_way<'a>(
    world: &World,
    pushes: impl Iterator<Item = &'a [u8]> + Clone,
    most: usize,
) -> usize {
    let count = pushes.clone().count();
    if count <= most {
        return count;
    }
    let ids = pushes.filter_map(|bytes| match codec::from_bytes(bytes) {
        Ok(Message::Push { batch, .. }) => Some(batch.batch_id),
        _ => None,
    });
    let decided = |id: &BatchId| {
        world.oracle.workspaces.values().any(|folded| folded.decided.contains_key(id))
    };
    ids.filter(|id| !decided(id)).collect::<BTreeSet<BatchId>>().len()
}

/// Workspace and user of each tag in some bytes.
fn tags(bytes: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let pieces = bytes.split(|byte| *byte == b'~');
    let tags = pieces.filter_map(|piece| std::str::from_utf8(piece).ok()?.split_once('.'));
    // Other bytes may look like one, but not quite.
    let numbered = |text: &str, letter| {
        text.strip_prefix(letter).is_some_and(|number| number.parse::<u64>().is_ok())
    };
    tags.filter(move |(workspace, who)| {
        numbered(workspace, 'w') && (*who == "*" || numbered(who, 'u'))
    })
}
