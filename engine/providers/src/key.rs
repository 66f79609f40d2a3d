//! Where an object lies: `ws/<workspace>/sha256/<hh>/<hex>`.
//!
//! Keys are read strictly. A list matched by a prefix without its last slash once called the files
//! of another bucket orphans; here a prefix ends with a slash by construction, and what is not
//! exactly a key is a stray, never an object of ours.

use std::fmt;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;

/// Why there is no key for this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Clients of HTTP resolve `.` and `..` in a path: the URL would mean another object.
    #[error("workspace {workspace:?} cannot have objects: a path treats its name as a step")]
    Step {
        /// The workspace.
        workspace: String,
    },
    /// Only files named by SHA-256 are stored.
    #[error("{hash} cannot be stored: only files named by sha256: are")]
    Legacy {
        /// The name of the file.
        hash: String,
    },
}

/// The key of one object: one file of one workspace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    workspace: WorkspaceName,
    sha256: [u8; 32],
    text: String,
}

impl ObjectKey {
    /// Where this file of this workspace lies.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(workspace: &WorkspaceName, hash: BlobHash) -> Result<Self, KeyError> {
        let prefix = Prefix::workspace(workspace)?;
        let BlobHash::Sha256(sha256) = hash else {
            return Err(KeyError::Legacy { hash: hash.to_string() });
        };
        let hex = hex(&sha256);
        let text = format!("{prefix}{}/{hex}", &hex[..2]);
        Ok(Self { workspace: workspace.clone(), sha256, text })
    }

    /// Reads a key; `None` for whatever is not exactly one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut steps = text.split('/');
        let mut step = || steps.next();
        let (root, workspace, kind) = (step()?, step()?, step()?);
        let (_, digits) = (step()?, step()?);
        if root != "ws" || kind != "sha256" {
            return None;
        }
        let hash = BlobHash::new(&format!("sha256:{digits}")).ok()?;
        let key = Self::new(&WorkspaceName::new(workspace).ok()?, hash).ok()?;
        (key.text == text).then_some(key)
    }

    /// The key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose file it is.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceName {
        &self.workspace
    }

    /// The SHA-256 that its bytes must have.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a list shows: everything of ours, or one workspace. It ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The objects of every workspace.
    #[must_use]
    pub fn all() -> Self {
        Self("ws/".to_owned())
    }

    /// The objects of one workspace.
    ///
    /// # Errors
    /// [`KeyError::Step`].
    pub fn workspace(workspace: &WorkspaceName) -> Result<Self, KeyError> {
        if [".", ".."].contains(&workspace.as_str()) {
            return Err(KeyError::Step { workspace: workspace.as_str().to_owned() });
        }
        Ok(Self(format!("ws/{}/sha256/", workspace.as_str())))
    }

    /// The prefix itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use lastword_core::hash::BlobHash;
    use lastword_core::id::WorkspaceName;

    use super::{KeyError, ObjectKey, Prefix};

    fn workspace(name: &str) -> WorkspaceName {
        WorkspaceName::new(name).expect("a name")
    }

    #[test]
    fn r4_1_a_key_names_workspace_and_hash_and_is_read_back() {
        let key = ObjectKey::new(&workspace("main"), BlobHash::Sha256([0xab; 32])).expect("a key");
        let hex = "ab".repeat(32);
        assert_eq!(key.as_str(), format!("ws/main/sha256/ab/{hex}"));
        assert_eq!(ObjectKey::read(key.as_str()), Some(key));
    }

    #[test]
    fn what_is_not_exactly_a_key_is_none() {
        let hex = "ab".repeat(32);
        let good = format!("ws/main/sha256/ab/{hex}");
        let strays = [
            String::new(),
            format!("/{good}"),
            format!("{good}/"),
            format!("{good}0"),
            good.replace("/ab/", "/ac/"),
            good.replace("/ab/", "/AB/"),
            good.replace("ws/", "wx/"),
            good.replace("sha256", "md5"),
            good.replace("main", ".."),
            good.replace("main", "a%2Fb"),
            good.replace("main", ""),
            good.to_uppercase(),
            format!("ws/main/sha256/{hex}"),
        ];
        assert!(ObjectKey::read(&good).is_some());
        for stray in strays {
            assert_eq!(ObjectKey::read(&stray), None, "{stray}");
        }
    }

    /// `ws/a` without its slash is also the start of `ws/ab`: a collector would take the files of
    /// one workspace for orphans of another.
    #[test]
    fn a_prefix_ends_with_a_slash() {
        let prefix = Prefix::workspace(&workspace("a")).expect("a prefix");
        let other = ObjectKey::new(&workspace("ab"), BlobHash::Sha256([1; 32])).expect("a key");
        assert!(prefix.as_str().ends_with('/') && Prefix::all().as_str().ends_with('/'));
        assert!(!other.as_str().starts_with(prefix.as_str()));
    }

    /// `..` is a legal name of a workspace, and every client of HTTP takes it out of a path: the
    /// URL of `ws/../sha256/ab/..` is one of `sha256/ab/..`.
    #[test]
    fn a_workspace_that_is_a_step_of_a_path_has_no_objects() {
        for name in [".", ".."] {
            let found = ObjectKey::new(&workspace(name), BlobHash::Sha256([1; 32]));
            assert_eq!(found, Err(KeyError::Step { workspace: name.to_owned() }));
        }
        assert!(ObjectKey::new(&workspace("..."), BlobHash::Sha256([1; 32])).is_ok());
    }

    #[test]
    fn r4_3_a_file_named_by_md5_is_never_stored() {
        let found = ObjectKey::new(&workspace("main"), BlobHash::Md5([1; 16]));
        assert!(matches!(found, Err(KeyError::Legacy { .. })));
    }
}
