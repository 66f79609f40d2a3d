//! The data set: the same bytes for the same size on every machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use blake3::OutputReader;

use crate::Result;
use crate::rows::mix;

/// Edits between two versions of the large file.
const EDITS: u64 = 35;
const VERSIONS: u64 = 5;
const WORDS: u64 = 20_000;
const MIB: u64 = 1 << 20;

/// What every tool is given.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) dir: PathBuf,
    /// One file that cannot be compressed, and has no like.
    pub(crate) noise: PathBuf,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Data {
    /// Writes about `mib` MiB into a new folder.
    pub(crate) fn write(dir: &Path, mib: u64) -> Result<Data> {
        let part = mib * MIB / 14;
        let noise = dir.join("noise.bin");
        let (mut out, mut text) = (Out::new(dir)?, Text::new(1));
        out.file("noise.bin", |to| to.noise(1, 2 * part))?;
        out.many("media", 2 * part, (256 << 10, 6 << 20), |to, n, len| {
            // A picture: a header that many share, then what no tool can compress.
            to.write_all(&Text::new(7).take(600))?;
            to.noise(1000 + n, len)
        })?;
        out.many("source", 3 * part, (200, 48 << 10), |to, _, len| to.write_all(&text.take(len)))?;
        out.many("notes", part, (1 << 10, 50 << 10), |to, _, len| to.write_all(&text.take(len)))?;
        let mut version = large(&mut text, part);
        for number in 1..=VERSIONS {
            out.file(&format!("versions/{number}/dump.sql"), |to| to.write_all(&version))?;
            edit(&mut version, number);
        }
        out.copies("source", part / 2)?;
        out.copies("media", part / 2)?;
        Ok(Data { dir: dir.to_owned(), noise, files: out.files, bytes: out.bytes })
    }
}

/// A file of text and of bytes that cannot be compressed, in turns.
fn large(text: &mut Text, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut number = 0;
    while (out.len() as u64) < len {
        out.extend(text.take(MIB));
        let mut noise = vec![0; MIB as usize / 2];
        stream(500 + number).fill(&mut noise);
        out.extend(noise);
        number += 1;
    }
    out.truncate(len as usize);
    out
}

/// Puts bytes in, takes some out and changes some, at places all over the file.
fn edit(file: &mut Vec<u8>, version: u64) {
    for edit in 0..EDITS {
        let random = mix(version * 1000 + edit);
        let at = (random % (file.len() as u64).max(1)) as usize;
        let len = (mix(random) % 4000) as usize + 1;
        let end = (at + len).min(file.len());
        let mut new = vec![0; len];
        stream(random).fill(&mut new);
        match edit % 3 {
            0 => drop(file.splice(at..at, new)),
            1 => drop(file.drain(at..end)),
            _ => drop(file.splice(at..end, new)),
        }
    }
}

fn stream(seed: u64) -> OutputReader {
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof()
}

/// Bytes that no tool can compress.
pub(crate) fn noise(seed: u64, len: u64, out: &mut dyn Write) -> Result<()> {
    let (mut from, mut left) = (stream(seed), len);
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let now = left.min(buffer.len() as u64) as usize;
        from.fill(&mut buffer[..now]);
        out.write_all(&buffer[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// A file that is being written.
struct OutFile {
    to: BufWriter<File>,
    len: u64,
}

impl OutFile {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        Ok(self.to.write_all(bytes)?)
    }

    fn noise(&mut self, seed: u64, len: u64) -> Result<()> {
        self.len += len;
        noise(seed, len, &mut self.to)
    }
}

struct Out {
    dir: PathBuf,
    files: u64,
    bytes: u64,
}

impl Out {
    fn new(dir: &Path) -> Result<Out> {
        fs::create_dir_all(dir)?;
        Ok(Out { dir: dir.to_owned(), files: 0, bytes: 0 })
    }

    fn file(&mut self, name: &str, fill: impl FnOnce(&mut OutFile) -> Result<()>) -> Result<()> {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().ok_or("a file without a folder")?)?;
        let mut file = OutFile { to: BufWriter::new(File::create(path)?), len: 0 };
        fill(&mut file)?;
        file.to.flush()?;
        self.files += 1;
        self.bytes += file.len;
        Ok(())
    }

    /// Files of these sizes, small ones more often, 200 in a folder.
    fn many(
        &mut self,
        name: &str,
        total: u64,
        (least, most): (u64, u64),
        mut fill: impl FnMut(&mut OutFile, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let (mut done, mut number) = (0, 0);
        while done < total {
            let random = mix(mix(least * most + number)) as f64 / u64::MAX as f64;
            let len = (least + ((most - least) as f64 * random * random) as u64).min(total - done);
            let path = format!("{name}/{:03}/{number:06}", number / 200);
            self.file(&path, |to| fill(to, number, len))?;
            done += len.max(1);
            number += 1;
        }
        Ok(())
    }

    /// Copies files of a part until there are so many bytes of them.
    fn copies(&mut self, name: &str, total: u64) -> Result<()> {
        let mut done = 0;
        for number in 0.. {
            let path = format!("{name}/{:03}/{number:06}", number / 200);
            let Ok(content) = fs::read(self.dir.join(&path)) else { break };
            if done >= total {
                break;
            }
            done += content.len() as u64;
            self.file(&format!("copies/{path}"), |to| to.write_all(&content))?;
        }
        Ok(())
    }
}

/// Text of words of which few are frequent, with numbers in between, in lines.
struct Text {
    at: u64,
    words: Vec<String>,
}

impl Text {
    fn new(seed: u64) -> Text {
        let word = |n: u64| {
            let len = 2 + mix(n) % 9;
            let letter =
                |at: u64| char::from(b"etaoinshrdlcumwfgypbvk"[(mix(n * 31 + at) % 22) as usize]);
            (0..len).map(letter).collect()
        };
        Text { at: seed << 40, words: (0..WORDS).map(word).collect() }
    }

    fn take(&mut self, len: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len as usize + 32);
        while (out.len() as u64) < len {
            self.at += 1;
            let random = mix(self.at);
            let share = (random >> 32) as f64 / f64::from(u32::MAX);
            match random % 16 {
                0 => out.extend_from_slice(b",\n    "),
                1 | 2 => out.extend_from_slice(format!("{:x} ", random >> 40).as_bytes()),
                _ => {
                    let word = (WORDS as f64).powf(share) as usize % self.words.len();
                    out.extend_from_slice(self.words[word].as_bytes());
                    out.push(b' ');
                }
            }
        }
        out.truncate(len as usize);
        out
    }
}
