//! How examples are written: one step or one statement a line.

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::value::{Field, Record};
use lastword::{Result, Tx};

/// One fenced block of the page.
pub(crate) struct Example {
    /// Line of the page that it begins on.
    pub(crate) line: usize,
    /// It begins with an empty workspace.
    pub(crate) is_new: bool,
    /// Its lines, with their numbers on the page.
    pub(crate) lines: Vec<(usize, String)>,
}

/// The examples of a page.
pub(crate) fn examples(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for (at, text) in page.lines().enumerate() {
        match text.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(tag) if tag.starts_with("example") => {
                let (line, is_new) = (at + 1, tag.ends_with(" new"));
                found.push(Example { line, is_new, lines: Vec::new() });
                inside = true;
            }
            _ => {
                if let Some(example) = found.last_mut().filter(|_| inside) {
                    let text = text.split(" -- ").next().unwrap_or_default().trim();
                    example.lines.push((at + 1, text.to_owned()));
                }
            }
        }
    }
    found
}

/// What one op of a write does to which record.
pub(crate) struct Edit {
    table: TableName,
    key: Key,
    how: How,
}

enum How {
    Put(Record),
    Patch(Vec<Field>),
    Remove(String),
    Delete,
    Undelete,
}

impl Edit {
    /// One op, such as `patch n1 {title: "A"}`.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let (verb, rest) = text.split_once(' ').ok_or(format!("no op: {text}"))?;
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let (table, key) = record_name(name)?;
        let how = match verb {
            "put" => How::Put(record(value)?),
            "patch" => How::Patch(record(value)?.fields().to_vec()),
            "remove" => How::Remove(value.to_owned()),
            "delete" => How::Delete,
            "undelete" => How::Undelete,
            _ => return Err(format!("no op: {text}")),
        };
        Ok(Self { table, key, how })
    }

    pub(crate) fn carry_out(&self, tx: &mut Tx) -> Result<()> {
        let Self { table, key, how } = self;
        match how {
            How::Put(record) => tx.put_record(table, key, record.clone()),
            How::Patch(set) => tx.patch_record(table, key, set.clone(), Vec::new()),
            How::Remove(field) => tx.patch_record(table, key, Vec::new(), vec![field.clone()]),
            How::Delete => tx.delete_record(table, key),
            How::Undelete => tx.undelete_record(table, key),
        }
    }
}

/// `n1` is a record of table `notes`; any other is written with its table.
pub(crate) fn record_name(name: &str) -> std::result::Result<(TableName, Key), String> {
    let (table, key) = name.split_once('/').unwrap_or(("notes", name));
    let table = TableName::new(table).map_err(|error| format!("{name}: {error}"))?;
    Ok((table, Key::new(key).map_err(|error| format!("{name}: {error}"))?))
}

/// A record as the examples write it.
pub(crate) fn record(text: &str) -> std::result::Result<Record, String> {
    json::parse_record(&strict(text)).map_err(|error| format!("{text}: {error}"))
}

/// The same as JSON: names of fields in quotes, and text of 3 KiB where `3 KiB` stands.
fn strict(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let after = &rest[word.len()..];
        if first == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |at| at + 2);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if let (Ok(kib), Some(after)) = (word.parse::<usize>(), after.strip_prefix(" KiB")) {
            out.push_str(&format!("\"{}\"", "x".repeat(kib * 1024)));
            rest = after;
        } else if word.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else if after.starts_with(':') {
            out.push_str(&format!("\"{word}\""));
            rest = after;
        } else {
            out.push_str(&word);
            rest = after;
        }
    }
    out
}

/// Parts of a line between `mark`s that stand outside of braces, parentheses and quotes.
pub(crate) fn parts(text: &str, mark: char) -> Vec<&str> {
    let (mut depth, mut quoted, mut from, mut found) = (0, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '{' | '(' | '[' if !quoted => depth += 1,
            '}' | ')' | ']' if !quoted => depth -= 1,
            c if c == mark && depth == 0 && !quoted => {
                found.push(text[from..at].trim());
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    found.push(text[from..].trim());
    found
}

/// What stands in the last parentheses, and what before them.
pub(crate) fn in_parentheses(text: &str) -> (&str, Option<&str>) {
    let Some(inner) = text.strip_suffix(')') else { return (text, None) };
    match inner.rsplit_once(" (") {
        Some((before, inside)) => (before, Some(inside)),
        None => (text, None),
    }
}
