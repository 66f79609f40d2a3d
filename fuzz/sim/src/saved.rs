//! Plans as text: a failure that was found is kept under `seeds/` and played by `make test`.

use std::fmt::Write as _;

use crate::plan::{Act, Plan, Setting, Step};

impl Setting {
    fn fields(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("devices", &mut self.devices),
            ("workspaces", &mut self.workspaces),
            ("users", &mut self.users),
            ("keys", &mut self.keys),
            ("skew_ms", &mut self.skew_ms),
            ("delay_ms", &mut self.delay_ms),
            ("tombstones_ms", &mut self.tombstones_ms),
            ("schema", &mut self.schema),
            ("members", &mut self.members),
            ("large", &mut self.large),
            ("outbox", &mut self.outbox),
            ("delta_kib", &mut self.delta_kib),
            ("files", &mut self.files),
            ("walk", &mut self.walk),
        ]
    }
}

impl Plan {
    /// The plan as text, one line for each field of the setting and each step.
    #[must_use]
    pub fn to_text(&self, comment: &str) -> String {
        let mut text = String::new();
        for line in comment.lines() {
            let _ = writeln!(text, "# {line}");
        }
        for (name, value) in self.setting.clone().fields() {
            let _ = writeln!(text, "{name} {value}");
        }
        for Step { act, seed, moves } in &self.steps {
            let _ = writeln!(text, "{} {seed:016x} {moves}", act.name());
        }
        text
    }

    /// The plan that a text says.
    ///
    /// # Errors
    /// The first line that says nothing.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut plan = Plan::new(0);
        plan.steps.clear();
        // Of plans that were saved before there were files, and walks.
        (plan.setting.files, plan.setting.walk) = (0, 0);
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            plan.read_line(line).ok_or_else(|| format!("this says nothing: {line:?}"))?;
        }
        Ok(plan)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (first, second) = (words.next()?, words.next()?);
        if let Some(act) = Act::named(first) {
            let (seed, moves) =
                (u64::from_str_radix(second, 16).ok()?, words.next()?.parse().ok()?);
            self.steps.push(Step { act, seed, moves });
            return Some(());
        }
        let mut fields = self.setting.fields();
        let (_, field) = fields.iter_mut().find(|(name, _)| *name == first)?;
        **field = second.parse().ok()?;
        Some(())
    }
}
