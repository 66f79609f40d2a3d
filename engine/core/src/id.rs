//! Names and identities: workspace, table, index, key, device, batch, epoch.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::limits::{MAX_KEY_BYTES, MAX_NAME_BYTES};

/// A name or key that breaks the rules of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A workspace, table or index name holds a character outside `A-Z a-z 0-9 _ . -`, or its
    /// length is not 1 to 64.
    #[error("{kind} name {name:?} is not valid: use 1 to 64 of A-Z a-z 0-9 _ . -")]
    Name {
        /// What was being named: `workspace`, `table` or `index`.
        kind: &'static str,
        /// The name as given, cut to 80 characters.
        name: String,
    },
    /// A key is empty.
    #[error("a key must not be empty")]
    EmptyKey,
    /// A key is longer than the limit.
    #[error("key is {len} bytes long, the limit is {limit} bytes (key begins {start:?})")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
        /// Its first characters.
        start: String,
    },
}

fn check_name(kind: &'static str, name: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Ok(());
    }
    Err(NameError::Name { kind, name: name.chars().take(80).collect() })
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rules of this kind.
            ///
            /// # Errors
            /// [`NameError`] tells which rule is broken.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_id!(
    /// Name of a workspace: the unit of membership, ordering and quota.
    WorkspaceName,
    |text| check_name("workspace", text)
);
text_id!(
    /// Name of a table. Names that begin with `_` belong to the product.
    TableName,
    |text| check_name("table", text)
);
text_id!(
    /// Name of an index, unique in its table.
    IndexName,
    |text| check_name("index", text)
);
text_id!(
    /// Primary key of a record: 1 to 1,024 bytes of UTF-8, ordered by bytes.
    Key,
    |text| match text.len() {
        0 => Err(NameError::EmptyKey),
        len if len > MAX_KEY_BYTES => Err(NameError::KeyTooLong {
            len,
            limit: MAX_KEY_BYTES,
            start: text.chars().take(40).collect(),
        }),
        _ => Ok(()),
    }
);

impl WorkspaceName {
    /// True for workspaces that belong to the product (`_store`).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl TableName {
    /// True for tables that belong to the product (`_conflicts`, `_dead_letters`, ..).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the 32 hexadecimal digits that `Display` prints.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex16(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

random_id!(
    /// One installation that writes; 16 random bytes that belong to its store directory.
    /// All zero stands for the authority's own ops.
    DeviceId
);
random_id!(
    /// Identity of one batch, random, never reused.
    BatchId
);
random_id!(
    /// Random id of a workspace's history; redrawn on create, restore and salvage.
    Epoch
);

impl DeviceId {
    /// The writer of the authority's own ops.
    pub const AUTHORITY: DeviceId = DeviceId([0; 16]);

    /// The first 8 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        alloc::format!("{self}").chars().take(8).collect()
    }
}

fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut out = [0_u8; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

impl BatchId {
    /// The id under which a refused batch of a unit is sent again, as ops of that hash. Its first
    /// half follows from the old id, so that ops of the unit can still name it when a process ended
    /// between the two; its second half from what is sent, since a copy of the store, or this one
    /// when it was told of its loss twice, may send the same letter with other bases.
    #[must_use]
    pub fn again(self, device: DeviceId, unit: BatchId, payload_hash: &[u8; 32]) -> BatchId {
        let halves = [self.half_again(device, unit), first_half(payload_hash)];
        let [first, second] = halves.map(u128::from);
        BatchId((first << 64 | second).to_be_bytes())
    }

    /// The first half of every id under which it is sent again.
    #[must_use]
    pub fn half_again(self, device: DeviceId, unit: BatchId) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("lastword 2026 dead letter sent again");
        for id in [device.0, unit.0, self.0] {
            hasher.update(&id);
        }
        first_half(hasher.finalize().as_bytes())
    }

    /// Its first half.
    #[must_use]
    pub fn half(self) -> u64 {
        first_half(&self.0)
    }
}

/// The first eight bytes of an id, or of a hash that an id is made from.
fn first_half<const N: usize>(id: &[u8; N]) -> u64 {
    u64::from_be_bytes(*id.first_chunk().expect("invariant: ids and hashes have 16 bytes or more"))
}

impl BatchId {
    /// The id of the part at that place of what is left of a batch; the first has the batch's own.
    #[must_use]
    pub fn part(self, place: usize) -> BatchId {
        if place == 0 {
            return self;
        }
        let mut hasher = blake3::Hasher::new_derive_key("lastword 2026 part of a lost batch");
        hasher.update(&self.0);
        hasher.update(&(place as u64).to_le_bytes());
        let hash = hasher.finalize();
        BatchId(*hash.as_bytes().first_chunk().expect("invariant: a hash has 32 bytes"))
    }
}

mod layout {
    use super::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
    use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
    use crate::limits::{MAX_KEY_BYTES, MAX_NAME_BYTES};

    macro_rules! text_layout {
        ($name:ident, $what:literal, $limit:expr) => {
            impl Encode for $name {
                fn encode(&self, out: &mut Encoder) {
                    out.str(self.as_str());
                }
            }

            impl Decode for $name {
                fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                    let offset = from.offset();
                    let text = from.str($what, $limit)?;
                    $name::new(text).map_err(|_| DecodeError::Invalid { what: $what, offset })
                }
            }
        };
    }

    macro_rules! random_layout {
        ($name:ident) => {
            impl Encode for $name {
                fn encode(&self, out: &mut Encoder) {
                    out.raw(&self.0);
                }
            }

            impl Decode for $name {
                fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                    from.array().map($name)
                }
            }
        };
    }

    text_layout!(WorkspaceName, "workspace name", MAX_NAME_BYTES);
    text_layout!(TableName, "table name", MAX_NAME_BYTES);
    text_layout!(Key, "key", MAX_KEY_BYTES);
    random_layout!(DeviceId);
    random_layout!(BatchId);
    random_layout!(Epoch);
}
