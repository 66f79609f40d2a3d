//! Files on their way between a device and the authority: both sides of the product's conversation,
//! on connections that lose, delay and damage what is sent, while everything else goes on.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use lastword::core::codec;
use lastword::core::protocol::{FileMessage, FileRefusal};
use lastword::store::StoreError;
use lastword::{Direction, Ended, Ending, Error, ServiceError, Wire};

use crate::check;
use crate::fault::Violation;
use crate::world::{Done, World, broken};

/// A transfer that takes more messages than that does not end.
const MOST_MESSAGES: usize = 2_000;

/// A connection that carries files.
#[derive(Debug, Default)]
pub struct FileLine {
    number: u64,
    user: String,
    /// The newest transfer.
    transfer: u64,
    up: VecDeque<FileMessage>,
    down: VecDeque<FileMessage>,
}

/// A device's end of it, during a transfer. What happens elsewhere meanwhile happens while the
/// device waits for a message.
struct SimWire<'a> {
    world: &'a mut World,
    at: usize,
    /// Nothing goes wrong any more.
    calm: bool,
    messages: usize,
    violation: Option<Violation>,
}

impl Wire for SimWire<'_> {
    fn send(&mut self, message: FileMessage) -> Result<(), String> {
        let bytes = codec::to_bytes(&message);
        self.world.note(3, &bytes);
        let line = self.world.files.lines.get_mut(&self.at);
        let line = line.ok_or_else(|| "the connection broke".to_owned())?;
        line.up.push_back(message);
        Ok(())
    }

    fn receive(&mut self) -> Result<FileMessage, String> {
        for _ in 0..MOST_MESSAGES {
            self.messages += 1;
            if let Err(violation) = self.meanwhile() {
                self.violation = Some(violation);
                return Err("the run is over".into());
            }
            let world = &mut *self.world;
            if world.files.failed.is_some() {
                return Err("the store has failed".into());
            }
            let Some(line) = world.files.lines.get_mut(&self.at) else {
                return Err("the connection broke".into());
            };
            let both = !line.up.is_empty() && !line.down.is_empty();
            let down = !line.down.is_empty() && (!both || world.random.once_in(2));
            let line = world.files.lines.get_mut(&self.at);
            let line = line.ok_or_else(|| "the connection broke".to_owned())?;
            if down && let Some(message) = line.down.pop_front() {
                return Ok(self.damaged(message));
            }
            let Some(message) = line.up.pop_front() else {
                return Err("nothing comes any more".into());
            };
            let message = self.damaged(message);
            if let Err(violation) = self.world.serve_file(self.at, message) {
                self.violation = Some(violation);
                return Err("the run is over".into());
            }
        }
        Err("it does not end".into())
    }
}

impl SimWire<'_> {
    /// I34: now and then a bit flips on the way.
    fn damaged(&mut self, message: FileMessage) -> FileMessage {
        match message {
            FileMessage::Chunk { transfer, mut bytes }
                if !self.calm && self.world.random.once_in(30) =>
            {
                let bit = self.world.random.below(bytes.len() as u64 * 8) as usize;
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                    self.world.reach.count("chunks damaged on the way", 1);
                }
                FileMessage::Chunk { transfer, bytes }
            }
            message => message,
        }
    }

    /// What happens elsewhere while a device waits for a message.
    fn meanwhile(&mut self) -> Done {
        if self.calm {
            return Ok(());
        }
        let (world, at) = (&mut *self.world, self.at);
        match world.random.below(40) {
            0 => world.break_file_line(at),
            1..=6 => world.one_move()?,
            7..=9 => drop(world.collect_of(None)?),
            10..=12 => drop(world.collect_of(Some(at))?),
            13 => {
                let other = world.random.below(world.devices.len() as u64) as usize;
                if other != at {
                    world.detach_file(other)?;
                }
            }
            14 => world.end_left_line()?,
            _ => {}
        }
        Ok(())
    }
}

impl World {
    /// The device's end of a connection is gone. What it sent may still arrive.
    fn break_file_line(&mut self, at: usize) {
        let Some(mut line) = self.files.lines.remove(&at) else { return };
        let arrives = self.random.below(line.up.len() as u64 + 1) as usize;
        line.up.truncate(arrives);
        self.files.left.push(line);
    }

    /// The authority hears the rest of a connection that is gone, and that it is gone.
    pub fn end_left_line(&mut self) -> Done {
        let Some(mut line) = self.files.left.pop() else { return Ok(()) };
        let wall = self.wall();
        while let Some(message) = line.up.pop_front() {
            let Some(authority) = &mut self.authority else { return Ok(()) };
            let told =
                authority.file_message((line.number, &line.user), message, &mut |_| true, wall);
            if let Err(ServiceError::Store(error)) = told {
                return self.file_service_failed(&error);
            }
        }
        if let Some(authority) = &mut self.authority {
            authority.end_files(line.number);
        }
        // What it was the last to say may have ended an upload.
        self.decide().map(drop)
    }

    fn file_service_failed(&mut self, error: &Error) -> Done {
        match error {
            Error::Store(StoreError::NoSpace { .. }) => Ok(()),
            error => self.authority_failed(error),
        }
    }

    /// A message of a device arrives at the authority, and is answered.
    fn serve_file(&mut self, at: usize, message: FileMessage) -> Done {
        let wall = self.wall();
        let (Some(line), Some(authority)) =
            (self.files.lines.get_mut(&at), self.authority.as_mut())
        else {
            return Ok(());
        };
        let (connection, mut replies) = ((line.number, line.user.as_str()), Vec::new());
        let mut reply = |message| {
            replies.push(message);
            true
        };
        let answered = authority.file_message(connection, message, &mut reply, wall);
        let ended = replies.iter().any(|reply| matches!(reply, FileMessage::Committed { .. }));
        line.down.extend(replies.iter().cloned());
        for reply in &replies {
            let bytes = codec::to_bytes(reply);
            self.note(4, &bytes);
        }
        match answered {
            Ok(()) => {}
            Err(ServiceError::Store(error)) => {
                self.break_file_line(at);
                self.file_service_failed(&error)?;
            }
            Err(error) => return Err(broken("a message about files is refused", &error)),
        }
        match ended {
            true => self.decide().map(drop),
            false => check::log(self),
        }
    }

    fn file_line(&mut self, at: usize) -> u64 {
        if !self.files.lines.contains_key(&at) {
            self.files.next_line += 1;
            let (number, user) = (self.files.next_line, self.devices[at].user.clone());
            self.files.lines.insert(at, FileLine { number, user, ..FileLine::default() });
        }
        let line = self.files.lines.entry(at).or_default();
        line.transfer += 1;
        line.transfer
    }

    /// A device uploads or downloads a file that is not where it could be.
    pub fn carry_file(&mut self, at: usize) -> Result<bool, Violation> {
        let picks = self.random.next();
        let due = self.due_transfers(at)?;
        let Some((direction, content)) = due.get(picks as usize % due.len().max(1)).copied() else {
            return Ok(false);
        };
        self.transfer(at, direction, content, false).map(|_| true)
    }

    /// What a device could upload or download.
    pub fn due_transfers(&mut self, at: usize) -> Result<Vec<(Direction, usize)>, Violation> {
        let Some(files) = self.files_of(at) else { return Ok(Vec::new()) };
        let mut due = Vec::new();
        let Ok(list) = files.list() else { return Ok(due) };
        for file in list {
            let Some(content) = self.files.number_of(&file.hash) else { continue };
            match (file.is_here, file.is_uploaded) {
                (true, false) if !file.is_deleted => due.push((Direction::Upload, content)),
                (false, _) => due.push((Direction::Download, content)),
                _ => {}
            }
        }
        Ok(due)
    }

    /// A device carries a file; whether it came to its end.
    pub fn transfer(
        &mut self,
        at: usize,
        direction: Direction,
        content: usize,
        calm: bool,
    ) -> Result<bool, Violation> {
        let (Some(files), false) = (self.files_of(at), self.authority.is_none()) else {
            return Ok(false);
        };
        let lastword::BlobHash::Sha256(sha256) = self.files.contents[content].1 else {
            return Ok(false);
        };
        let number = self.file_line(at);
        // The app pauses a transfer now and then; what is under way of it still comes.
        let mut left =
            if self.random.once_in(8) && !calm { self.random.below(6) } else { u64::MAX };
        let mut watch = |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let began = self.now;
        self.doing = "carry";
        self.files.carrying = Some(at);
        let mut wire = SimWire { world: self, at, calm, messages: 0, violation: None };
        let ended = match direction {
            Direction::Upload => lastword::upload(&files, sha256, &mut wire, number, &mut watch),
            _ => lastword::download(&files, sha256, &mut wire, number, &mut watch),
        };
        let violation = wire.violation;
        self.files.carrying = None;
        if let Some(violation) = violation {
            return Err(violation);
        }
        if let Some(error) = self.files.failed.take() {
            self.device_failed(at, &error)?;
        }
        if ended.is_ok() {
            let who = Some(at).filter(|_| direction == Direction::Download);
            self.files.stored_at.insert((who, content), began);
        }
        self.transferred(at, direction, content, ended)
    }

    fn transferred(
        &mut self,
        at: usize,
        direction: Direction,
        content: usize,
        ended: Result<Ended, Ending>,
    ) -> Result<bool, Violation> {
        let uploads = direction == Direction::Upload;
        match ended {
            Ok(ended) => {
                let what = if uploads { "files uploaded" } else { "files downloaded" };
                self.reach.count(what, 1);
                let part = ended.moved_bytes > 0 && ended.moved_bytes < ended.total_bytes;
                self.reach.count("files carried of which a part was there", u64::from(part));
                let who = if uploads { None } else { Some(at) };
                match who {
                    None => drop(self.files.uploaded.insert(content)),
                    Some(at) => drop(self.files.held.entry(at).or_default().insert(content)),
                }
                self.files_whole(who)?;
                Ok(true)
            }
            Err(Ending::Cut { .. }) => {
                self.reach.count("transfers cut off", 1);
                // A connection on which something went wrong is not used again.
                self.break_file_line(at);
                Ok(false)
            }
            Err(Ending::Refused { code, message }) => self.refused(at, content, (code, message)),
            Err(Ending::Stopped) => Ok(false),
            // It went while it was carried.
            Err(Ending::Here(Error::Closed | Error::Blob(_))) => Ok(false),
            Err(Ending::Here(error)) => self.file_store_failed(Some(at), &error).map(|()| false),
            Err(error) => Err(broken("a transfer ends", &error)),
        }
    }

    /// I31, I36: what the authority was said to have it serves, and what is offered is what it is
    /// called.
    fn refused(
        &mut self,
        at: usize,
        content: usize,
        (code, message): (FileRefusal, String),
    ) -> Result<bool, Violation> {
        self.reach.count("transfers refused", 1);
        let wrong =
            |id| Err(Violation::new(id, format!("device {at}: content {content}: {message}")));
        match code {
            FileRefusal::NotThatFile => wrong("I36"),
            FileRefusal::Damaged => wrong("I34"),
            FileRefusal::NotStored => self.files_promised(None).map(|()| false),
            _ => Ok(false),
        }
    }
}
