//! The rows that every engine is given: random uuids as keys, 300 bytes of text as values.

use std::sync::LazyLock;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 300;
/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 36;
/// Different values; keys never repeat.
const VALUES: u64 = 4096;

static POOL: LazyLock<Vec<String>> = LazyLock::new(|| (0..VALUES).map(text).collect());

/// One row to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) value: &'static str,
}

impl Row {
    /// Row number `number`, with the value it has in version `version`.
    pub(crate) fn new(number: u64, version: u64) -> Row {
        let value = &POOL[(mix(number ^ mix(version)) % VALUES) as usize];
        Row { key: key(number), value }
    }

    pub(crate) fn key_text(&self) -> &str {
        std::str::from_utf8(&self.key).expect("invariant: a key is hexadecimal digits and dashes")
    }
}

/// Rows that nobody has written yet.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    next: u64,
}

impl Rows {
    pub(crate) fn from(next: u64) -> Self {
        Rows { next }
    }

    pub(crate) fn next(&mut self) -> Row {
        self.next += 1;
        Row::new(self.next - 1, 0)
    }

    /// Rows for another thread; these go on far behind them.
    pub(crate) fn split(&mut self) -> Rows {
        let rows = self.clone();
        self.next += 1 << 32;
        rows
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Row> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// The rows in the order of their keys, each key once, as one transaction takes them.
pub(crate) fn distinct(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.key);
    rows.dedup_by_key(|row| row.key);
    rows
}

/// Spreads a counter over all 64-bit numbers, one to one.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random uuid for each number.
pub(crate) fn uuid(number: u64) -> String {
    key(number).iter().copied().map(char::from).collect()
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let bits = (u128::from(mix(number)) << 64) | u128::from(mix(!number));
    let mut digits = (0..32).map(|at| DIGITS[(bits >> (124 - 4 * at)) as usize & 15]);
    std::array::from_fn(|at| match at {
        8 | 13 | 18 | 23 => b'-',
        _ => digits.next().expect("invariant: 32 digits and 4 dashes"),
    })
}

/// JSON of some words, so that engines that compress have what they have in life.
fn text(number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ra", "ken", "to", "li", "mon", "es", "vor", "a", "chi", "ber", "un", "dal", "ot", "fe",
        "sy", "gu",
    ];
    let mut text = format!("{{\"author\":\"{:016x}\",\"text\":\"", mix(number));
    let mut at = number << 20;
    while text.len() < VALUE_BYTES {
        at += 1;
        let bits = mix(at);
        for part in 0..=bits % 3 {
            text.push_str(SYLLABLES[(bits >> (8 + 4 * part)) as usize & 15]);
        }
        text.push(' ');
    }
    text.truncate(VALUE_BYTES - 2);
    text.push_str("\"}");
    text
}
