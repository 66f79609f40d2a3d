//! Makes a failing plan shorter: steps and moves are left out as long as the same invariant still
//! breaks.

use crate::plan::Plan;

/// A plan is played so often at most.
const MOST_PLAYS: usize = 250;

/// The shortest plan found for which `breaks` holds, as it does for `plan`.
pub fn shortest(plan: &Plan, breaks: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut shrinking = Shrinking { best: plan.clone(), plays: 0, breaks };
    loop {
        let before = shrinking.best.clone();
        shrinking.drop_steps();
        shrinking.drop_moves();
        if shrinking.best == before || shrinking.plays >= MOST_PLAYS {
            return shrinking.best;
        }
    }
}

struct Shrinking<'a> {
    best: Plan,
    plays: usize,
    breaks: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Shrinking<'_> {
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.plays >= MOST_PLAYS {
            return false;
        }
        self.plays += 1;
        let breaks = (self.breaks)(&plan);
        if breaks {
            self.best = plan;
        }
        breaks
    }

    /// Leaves out runs of steps, from half of them down to single ones.
    fn drop_steps(&mut self) {
        let mut size = self.best.steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut plan = self.best.clone();
                let end = plan.steps.len().min(at + size);
                plan.steps.drain(at..end);
                if !self.attempt(plan) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn drop_moves(&mut self) {
        for at in 0..self.best.steps.len() {
            for moves in [0, self.best.steps[at].moves / 2] {
                let mut plan = self.best.clone();
                if plan.steps[at].moves > moves {
                    plan.steps[at].moves = moves;
                    if self.attempt(plan) {
                        break;
                    }
                }
            }
        }
    }
}
