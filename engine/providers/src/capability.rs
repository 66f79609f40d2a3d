//! What a store promises. A deployment says what it needs; what is not declared is not there.

use std::fmt;

/// One promise of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// An upload URL stops working when it says so, within the cap of R8.2.
    UploadExpires,
    /// A download URL does too.
    DownloadExpires,
    /// The length of an upload is bound by the signature.
    LengthBound,
    /// The checksum of an upload is bound by the signature, and the store compares it.
    ChecksumBound,
    /// Large files go in parts, and an upload that was cut goes on where it was.
    Multipart,
    /// An upload never replaces an object that is there.
    IfNoneMatch,
    /// Objects can be deleted.
    Delete,
    /// Objects can be listed.
    List,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UploadExpires,
        Self::DownloadExpires,
        Self::LengthBound,
        Self::ChecksumBound,
        Self::Multipart,
        Self::IfNoneMatch,
        Self::Delete,
        Self::List,
    ];

    /// Its name in settings and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadExpires => "upload_expires",
            Self::DownloadExpires => "download_expires",
            Self::LengthBound => "length_bound",
            Self::ChecksumBound => "checksum_bound",
            Self::Multipart => "multipart",
            Self::IfNoneMatch => "if_none_match",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }

    fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of promises.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Every promise.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&Capability::ALL)
    }

    /// These promises.
    #[must_use]
    pub fn of(list: &[Capability]) -> Self {
        Self(list.iter().fold(0, |bits, capability| bits | capability.bit()))
    }

    /// What our server needs (R8.2, R7.2): URLs that end, and objects that can be deleted. The rest
    /// makes transfers cheaper or safer; the check at commit stands in for it.
    #[must_use]
    pub fn required() -> Self {
        Self::of(&[Capability::UploadExpires, Capability::DownloadExpires, Capability::Delete])
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | capability.bit())
    }

    /// These without one.
    #[must_use]
    pub fn without(self, capability: Capability) -> Self {
        Self(self.0 & !capability.bit())
    }

    /// True if this is promised.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.has(*capability))
    }

    /// Those of `required` that are not in the set.
    #[must_use]
    pub fn lacking(self, required: Self) -> Self {
        Self(required.0 & !self.0)
    }

    /// True if nothing is promised.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Capability::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
