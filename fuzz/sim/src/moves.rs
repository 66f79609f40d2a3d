//! What happens by itself: a message arrives, a group is decided, a device stores what came.

use lastword::core::protocol::replica::Input;
use lastword::node::{Outgoing, ToLink};

use crate::check;
use crate::fault::Violation;
use crate::net::Line;
use crate::taint;
use crate::world::{Done, Everybody, World};

/// Something that can happen now.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// A device's store does the next thing that its session asked for.
    Step(usize),
    /// The next message of a line arrives, up or down.
    Deliver(u64, bool),
    /// An end of a line hears that the other is gone.
    Hear(u64, bool),
    /// The authority decides a group.
    Decide,
}

impl World {
    /// One thing that can happen now does; where nothing can, time passes.
    pub fn one_move(&mut self) -> Done {
        if self.random.once_in(12) {
            let step = if self.random.once_in(10) { 20_000 } else { 300 };
            let ms = 1 + self.random.below(step);
            self.pass(ms);
            return self.wake();
        }
        self.any_move().map(drop)
    }

    /// Time passes, now and then a day.
    pub fn idle(&mut self) -> Result<bool, Violation> {
        let day = 24 * 3600 * 1000;
        let most = if self.random.once_in(40) { day } else { 5_000 };
        let ms = 1 + self.random.below(most);
        self.pass(ms);
        self.wake().map(|()| true)
    }

    /// Whether something could happen; time passes until something can, if that is soon.
    pub fn any_move(&mut self) -> Result<bool, Violation> {
        let mut moves = self.moves();
        if moves.is_empty() {
            let Some(due) = self.next_due() else { return Ok(false) };
            self.pass(due.saturating_sub(self.now).max(1));
            self.wake()?;
            moves = self.moves();
        }
        let pick = self.random.below(moves.len() as u64) as usize;
        match moves.get(pick) {
            None => {}
            Some(Move::Step(at)) => drop(self.device_step(*at)?),
            Some(Move::Deliver(number, up)) => self.deliver(*number, *up)?,
            Some(Move::Hear(number, up)) => self.hear(*number, *up),
            Some(Move::Decide) => drop(self.decide()?),
        }
        Ok(true)
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (at, device) in self.devices.iter().enumerate() {
            let has = |app: &lastword::node::AppNode| app.with(|node| Ok(node.has_requests()));
            if device.app.as_ref().is_some_and(|app| has(app).unwrap_or(false)) {
                moves.push(Move::Step(at));
            }
        }
        if self.authority.as_ref().is_some_and(|authority| authority.has_jobs()) {
            moves.push(Move::Decide);
        }
        for (number, line) in &self.net.lines {
            for up in [true, false] {
                let way = if up { &line.up } else { &line.down };
                let (ours, theirs) = match up {
                    true => (line.authority_open, line.device_open),
                    false => (line.device_open, line.authority_open),
                };
                let mute = line.mute[usize::from(!up)];
                match way.front() {
                    Some((due, _)) if *due <= self.now && !mute => {
                        moves.push(Move::Deliver(*number, up));
                    }
                    None if ours && !theirs => moves.push(Move::Hear(*number, up)),
                    _ => {}
                }
            }
        }
        moves
    }

    /// When the next message arrives or somebody wants to be woken.
    fn next_due(&self) -> Option<u64> {
        let lines = self.net.lines.values();
        let messages = lines.flat_map(|line| {
            let up = line.up.front().filter(|_| !line.mute[0]);
            up.into_iter().chain(line.down.front().filter(|_| !line.mute[1]))
        });
        let wakes = self.devices.iter().filter_map(|device| {
            device.app.as_ref()?.with(|node| Ok(node.wake_at())).ok().flatten()
        });
        messages.map(|(due, _)| *due).chain(wakes).min()
    }

    /// The device's store does the next thing that its session asked for.
    pub fn device_step(&mut self, at: usize) -> Result<bool, Violation> {
        let (now, wall) = (self.now, self.device_wall(at));
        let Some(app) = &self.devices[at].app else { return Ok(false) };
        self.doing = "receive";
        match app.step(now, wall) {
            Err(error) => self.device_failed(at, &error).map(|()| false),
            Ok(None) => Ok(false),
            Ok(Some(settled)) => {
                check::settled(self, at, &settled)?;
                self.link(at);
                check::device(self, at)?;
                Ok(true)
            }
        }
    }

    /// Carries out what a device's session wants of its link.
    pub fn link(&mut self, at: usize) {
        let now = self.now;
        loop {
            let Some(app) = &self.devices[at].app else { return };
            let Ok(wish) = app.with(|node| Ok(node.to_link())) else { return };
            match wish {
                None => return,
                Some(ToLink::FetchToken) => {
                    let token = self.devices[at].user.clone();
                    self.input(at, Input::Token(Ok(token)));
                }
                Some(ToLink::Close) => self.hang_up(at),
                Some(ToLink::Connect) => self.connect(at),
                Some(ToLink::Message(bytes)) => {
                    self.note(1, &bytes);
                    let delay = self.random.below(self.setting.delay_ms) + 1;
                    let number = self.net.of(at);
                    if let Some(line) = number.and_then(|number| self.net.lines.get_mut(&number)) {
                        taint::sent_up(line, &bytes);
                        Line::put(&mut line.up, now + delay * line.slow, bytes);
                    }
                }
            }
        }
    }

    /// Tells a device's session something.
    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        if let Some(app) = &self.devices[at].app {
            let _ = app.with(|node| {
                node.input(now, input);
                Ok(())
            });
        }
    }

    fn connect(&mut self, at: usize) {
        self.hang_up(at);
        let (now, wall) = (self.now, self.wall());
        let input = match &mut self.authority {
            Some(authority) => {
                let number = self.net.open(at);
                authority.connect(number, now, &Everybody, wall);
                Input::Connected
            }
            None => Input::Disconnected { reason: "nobody answers".into() },
        };
        self.input(at, input);
    }

    /// The device's end of its connection closes; the other end finds out later.
    pub fn hang_up(&mut self, at: usize) {
        let Some(number) = self.net.of(at) else { return };
        if let Some(line) = self.net.lines.get_mut(&number) {
            line.device_open = false;
        }
    }

    /// The next message arrives.
    fn deliver(&mut self, number: u64, up: bool) -> Done {
        let (now, wall) = (self.now, self.wall());
        let Some(line) = self.net.lines.get_mut(&number) else { return Ok(()) };
        let way = if up { &mut line.up } else { &mut line.down };
        let Some((_, bytes)) = way.pop_front() else { return Ok(()) };
        if up {
            let is_open = line.authority_open;
            if let Some(authority) = self.authority.as_mut().filter(|_| is_open) {
                authority.message(number, bytes, now, &Everybody, wall);
                self.send_down()?;
            }
        } else if line.device_open {
            let device = line.device;
            self.input(device, Input::Message(bytes));
            self.link(device);
        }
        Ok(())
    }

    /// An end hears that the other is gone.
    fn hear(&mut self, number: u64, up: bool) {
        let Some(line) = self.net.lines.get_mut(&number) else { return };
        match up {
            true => {
                line.authority_open = false;
                if let Some(authority) = &mut self.authority {
                    authority.disconnect(number);
                }
            }
            false => {
                let device = line.device;
                line.device_open = false;
                self.input(device, Input::Disconnected { reason: "the connection broke".into() });
                self.link(device);
            }
        }
        self.net.tidy();
    }

    /// Puts what the authority says on the lines.
    pub fn send_down(&mut self) -> Done {
        let numbers: Vec<u64> = self.net.lines.keys().copied().collect();
        for number in numbers {
            while let Some(outgoing) =
                self.authority.as_mut().and_then(|authority| authority.outgoing(number))
            {
                match outgoing {
                    Outgoing::Message(bytes) => {
                        self.note(2, &bytes);
                        taint::sent_down(self, number, &bytes)?;
                        let delay = self.random.below(self.setting.delay_ms) + 1;
                        if let Some(line) = self.net.lines.get_mut(&number) {
                            Line::put(&mut line.down, self.now + delay * line.slow, bytes);
                        }
                    }
                    Outgoing::Close { .. } => {
                        if let Some(line) = self.net.lines.get_mut(&number) {
                            line.authority_open = false;
                        }
                    }
                }
            }
            let closed = self.net.lines.get(&number).is_none_or(|line| !line.authority_open);
            if let Some(authority) = self.authority.as_mut().filter(|_| closed) {
                authority.disconnect(number);
            }
        }
        self.net.tidy();
        Ok(())
    }

    /// Tells everybody who asked to be woken.
    pub fn wake(&mut self) -> Done {
        let (now, wall) = (self.now, self.wall());
        if let Some(authority) = &mut self.authority {
            authority.time(now, &Everybody, wall);
        }
        self.send_down()?;
        for at in 0..self.devices.len() {
            let Some(app) = &self.devices[at].app else { continue };
            let wake = app.with(|node| Ok(node.wake_at())).ok().flatten();
            if wake.is_some_and(|wake| wake <= now) {
                self.input(at, Input::Time);
                self.link(at);
            }
        }
        Ok(())
    }
}
