//! What is printed: aligned tables and goal lines, or all of it as JSON.

use serde_json::{Value, json};

/// How two figures are to be compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the goals.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
    /// The figure of the store, which the goal is judged by.
    pub(crate) store: f64,
    /// The figure of a whole device, shown beside it.
    pub(crate) device: Option<f64>,
}

impl Goal {
    /// `what` should be at least `times` as fast.
    pub(crate) fn faster(what: impl Into<String>, times: f64, store: f64, device: f64) -> Self {
        let bound = Bound::AtLeast(times);
        Goal { what: what.into(), bound, unit: "x", store, device: Some(device) }
    }

    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.store >= least,
            Bound::AtMost(most) => self.store <= most,
        }
    }

    fn line(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtLeast(least) => (">=", least),
            Bound::AtMost(most) => ("<=", most),
        };
        let unit = self.unit;
        let device = match self.device {
            Some(device) => format!("   (device {device:.2}{unit})"),
            None => String::new(),
        };
        let word = if self.is_met() { "met   " } else { "MISSED" };
        format!("{word}  {}: {:.2}{unit}, goal {sign} {bound}{unit}{device}", self.what, self.store)
    }
}

/// The result of one part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Lines under the table.
    pub(crate) notes: Vec<String>,
    pub(crate) goals: Vec<Goal>,
}

impl Report {
    /// The table as text, its first column on the left, numbers on the right.
    pub(crate) fn text(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let is_words = |column: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.any(|cell| cell.starts_with(|first: char| first.is_alphabetic()))
        };
        let words: Vec<bool> = (0..self.columns.len()).map(is_words).collect();
        let mut out = format!("\n== {} ==\n", self.title);
        for line in lines {
            let cells = line.iter().zip(&widths).zip(&words).map(|((cell, &width), words)| {
                if *words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        for note in &self.notes {
            out.push_str(&format!("  {note}\n"));
        }
        out
    }

    /// The goals as lines.
    pub(crate) fn goal_lines(&self) -> String {
        self.goals.iter().map(|goal| goal.line() + "\n").collect()
    }

    pub(crate) fn json(&self) -> Value {
        let goals = self.goals.iter().map(|goal| {
            let (sign, bound) = match goal.bound {
                Bound::AtLeast(least) => ("at_least", least),
                Bound::AtMost(most) => ("at_most", most),
            };
            let (store, device, met) = (goal.store, goal.device, goal.is_met());
            json!({ "what": goal.what, sign: bound, "store": store, "device": device, "met": met })
        });
        json!({
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows,
            "notes": self.notes,
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

/// A number without digits that say nothing.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".into(),
        size if size >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Nanoseconds as microseconds.
pub(crate) fn micros(ns: u64) -> String {
    number(ns as f64 / 1000.0)
}
