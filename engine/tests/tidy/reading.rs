//! Reading Rust just well enough: what is code, what is a test, where an item ends.

use crate::Faults;

/// What stands in `Source::code` for a character of a string literal.
pub(crate) const IN_STRING: char = '"';

/// A Rust file: `code` has the lines of `text` with comments blanked and literals masked.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: Vec<String>,
    pub(crate) test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = masked(text);
        let test = test_lines(path, &code);
        let code = code.lines().map(str::to_owned).collect();
        Source { path: path.to_owned(), text: text.to_owned(), code, test }
    }

    pub(crate) fn lines(&self, tests_too: bool) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().enumerate();
        lines.filter(move |(n, _)| tests_too || !self.test[*n]).map(|(n, l)| (n + 1, l.as_str()))
    }

    /// The faults `message` for every line of code in which `find` sees something.
    pub(crate) fn each(
        &self,
        tests_too: bool,
        find: impl Fn(&str) -> bool,
        message: &str,
    ) -> Faults {
        let hits = self.lines(tests_too).filter(|(_, line)| find(line));
        hits.map(|(n, _)| (n, message.to_owned())).collect()
    }
}

/// `text` with comments as blanks and the insides of literals as `IN_STRING`, line for line.
fn masked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    while i < chars.len() {
        let (end, fill) = token(&chars, i);
        for c in &chars[i..end] {
            out.push(if *c == '\n' { '\n' } else { fill.unwrap_or(*c) });
        }
        i = end;
    }
    out
}

/// Where the token at `i` ends, and what hides it if it is a comment or a literal.
fn token(chars: &[char], i: usize) -> (usize, Option<char>) {
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    match (at(i), at(i + 1)) {
        ('/', '/') => ((i..chars.len()).find(|n| at(*n) == '\n').unwrap_or(chars.len()), Some(' ')),
        ('/', '*') => (block_comment_end(chars, i), Some(' ')),
        ('"', _) => (string_end(chars, i), Some(IN_STRING)),
        ('r', '"' | '#') if i == 0 || !word(at(i - 1)) || "bc".contains(at(i - 1)) => {
            let hashes = (i + 1..).take_while(|n| at(*n) == '#').count();
            if at(i + 1 + hashes) != '"' {
                return (i + 1, None);
            }
            let close = |n: &usize| at(*n) == '"' && (1..=hashes).all(|h| at(n + h) == '#');
            let end = (i + 2 + hashes..chars.len()).find(close);
            (end.map_or(chars.len(), |n| n + 1 + hashes), Some(IN_STRING))
        }
        ('\'', '\\') => (
            (i + 3..chars.len()).find(|n| at(*n) == '\'').map_or(chars.len(), |n| n + 1),
            Some(' '),
        ),
        ('\'', _) if at(i + 2) == '\'' => (i + 3, Some(' ')),
        _ => (i + 1, None),
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// Which lines are tests: everything under `tests/`, and the module after `#[cfg(test)]`.
fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let all = path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let mut test = vec![all; code.lines().count()];
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code, start + "#[cfg(test)]".len());
        let (first, last) = (line_of(code, start), line_of(code, end));
        test[first - 1..last].fill(true);
    }
    test
}

/// The place of the `;` or of the closing brace that ends the item which starts at `from`.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let (mut brackets, mut braces) = (0i32, 0i32);
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if brackets == 0 && braces == 0 && (c == '}' || c == ';') {
            return from + i;
        }
    }
    code.len().saturating_sub(1)
}

pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Whether `line` holds `needle` with no letter, digit or underscore at either side of it.
pub(crate) fn has(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(i, _)| {
        !line[..i].ends_with(is_word) && !line[i + needle.len()..].starts_with(is_word)
    })
}

/// The names that follow the word `keyword`, such as those of modules or types.
pub(crate) fn items_after<'a>(code: &'a str, keyword: &str) -> Vec<&'a str> {
    let all: Vec<&str> = words(code).collect();
    all.windows(2).filter(|pair| pair[0] == keyword).map(|pair| pair[1]).collect()
}

/// The first names of the path or of the braced group of paths that `rest` starts with.
pub(crate) fn roots_of(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return words(rest).take(1).collect() };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.extend(words(&group[start..i]).next());
                start = i + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

/// The module from which lib.rs re-exports `name`.
pub(crate) fn exporter<'a>(lib: &'a str, name: &str) -> Option<&'a str> {
    let uses = lib.split(';').filter_map(|item| item.rsplit_once("pub use ").map(|(_, path)| path));
    let mut hits = uses.filter(|path| words(path).skip(1).any(|word| word == name));
    hits.next().and_then(|path| words(path).find(|word| *word != "crate" && *word != "self"))
}
