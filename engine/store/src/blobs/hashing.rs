//! The SHA-256 of a file, which costs as much as all else that is done with its bytes: for a large
//! file another thread computes it meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

/// Bytes that were read, of which a range is to be hashed.
type Block = (Arc<Vec<u8>>, Range<usize>);

/// The hash of a file that is being read.
#[derive(Debug)]
pub(super) enum FileHash {
    Here(Sha256),
    Beside(HashThread),
}

/// A thread that hashes blocks in the order in which it gets them. It ends with the channel.
#[derive(Debug)]
pub(super) struct HashThread {
    blocks: Sender<Block>,
    /// A word for each block that is hashed and let go of.
    done: Receiver<()>,
    waiting: usize,
    thread: JoinHandle<Sha256>,
}

impl Default for FileHash {
    fn default() -> Self {
        FileHash::Here(Sha256::new())
    }
}

impl FileHash {
    /// Adds bytes. Whoever wants to write to the block again waits until it is let go of.
    pub(super) fn add(&mut self, block: &Arc<Vec<u8>>, range: Range<usize>) {
        match self {
            FileHash::Here(sha256) => sha256.update(block.get(range).unwrap_or_default()),
            FileHash::Beside(thread) => {
                thread.waiting += 1;
                thread.blocks.send((block.clone(), range)).expect("invariant: the thread hashes");
            }
        }
    }

    /// Waits until another thread has let go of every block but the newest.
    pub(super) fn wait(&mut self) {
        let FileHash::Beside(thread) = self else { return };
        while thread.waiting > 1 {
            thread.done.recv().expect("invariant: the thread hashes");
            thread.waiting -= 1;
        }
    }

    /// Leaves what follows to another thread, if there is a processor for it.
    pub(super) fn set_beside(&mut self) {
        let FileHash::Here(sha256) = self else { return };
        if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1)
            && let Ok(thread) = HashThread::start(sha256.clone())
        {
            *self = FileHash::Beside(thread);
        }
    }

    /// The hash of all that was added.
    pub(super) fn finish(self) -> [u8; 32] {
        let sha256 = match self {
            FileHash::Here(sha256) => sha256,
            FileHash::Beside(HashThread { blocks, thread, .. }) => {
                drop(blocks);
                thread.join().expect("invariant: hashing does not panic")
            }
        };
        sha256.finalize().into()
    }
}

impl HashThread {
    fn start(mut sha256: Sha256) -> std::io::Result<Self> {
        let (blocks, received) = channel::<Block>();
        let (let_go, done) = channel();
        let thread = std::thread::Builder::new().name("lastword hash".into()).spawn(move || {
            for (block, range) in received {
                sha256.update(block.get(range).unwrap_or_default());
                drop(block);
                // Nobody waits any more if the file was given up.
                let _ = let_go.send(());
            }
            sha256
        })?;
        Ok(HashThread { blocks, done, waiting: 0, thread })
    }
}
