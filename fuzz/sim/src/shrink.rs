//! Makes a failing plan shorter: steps and moves are left out as long as the same invariant still
//! breaks.

use crate::plan::Plan;

/// A plan is played so often at most.
const MOST_PLAYS: usize = 1500;

/// Whether a plan still breaks, and after how many of its steps.
pub type Breaks<'a> = dyn FnMut(&Plan) -> Option<usize> + 'a;

/// The shortest plan found for which `breaks` holds, as it does for `plan`.
pub fn shortest<'a>(plan: &Plan, breaks: &'a mut Breaks<'a>) -> Plan {
    let mut shrinking = Shrinking { best: plan.clone(), plays: 0, breaks };
    shrinking.attempt(plan.clone());
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
    breaks: &'a mut Breaks<'a>,
}

impl Shrinking<'_> {
    /// Keeps a plan that breaks, without what comes after.
    fn attempt(&mut self, mut plan: Plan) -> bool {
        if self.plays >= MOST_PLAYS {
            return false;
        }
        self.plays += 1;
        let Some(steps) = (self.breaks)(&plan) else { return false };
        plan.steps.truncate(steps);
        self.best = plan;
        true
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
            let Some(step) = self.best.steps.get(at) else { return };
            for moves in [0, step.moves / 2] {
                let mut plan = self.best.clone();
                if plan.steps.get(at).is_some_and(|step| step.moves > moves) {
                    plan.steps[at].moves = moves;
                    if self.attempt(plan) {
                        break;
                    }
                }
            }
        }
    }
}
