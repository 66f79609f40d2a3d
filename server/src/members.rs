//! Who may do what: the `--tokens` file, or `--dev`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lastword::core::id::WorkspaceName;
use lastword::core::protocol::Role;

/// Largest tokens file in bytes.
const MAX_TOKENS_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A tokens file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// It cannot be read.
    #[error("cannot read tokens file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A line is not `token, user, workspace, role`.
    #[error("{}:{line}: {reason}; a line is: token, user, workspace, owner|editor|viewer", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The membership while the server runs.
#[derive(Debug)]
pub enum Members {
    /// Any token is a user of that name and owns every workspace. Loopback only.
    Dev,
    /// What the tokens file says.
    Tokens(Tokens),
}

/// A parsed tokens file.
#[derive(Debug, Default)]
pub struct Tokens {
    users: HashMap<String, String>,
    roles: HashMap<(String, WorkspaceName), Role>,
}

impl Members {
    /// The user behind a token; the error does not tell a wrong token from an expired one.
    ///
    /// # Errors
    /// A sentence for the device.
    pub fn authenticate(&self, token: &str) -> Result<String, String> {
        match self {
            Members::Dev if token.is_empty() => Err("a token is needed, any text will do".into()),
            Members::Dev => Ok(token.to_owned()),
            Members::Tokens(tokens) => {
                let unknown = || "this server does not know the token".to_owned();
                tokens.users.get(token).cloned().ok_or_else(unknown)
            }
        }
    }

    /// The user's role in a workspace; none for a stranger, whether it exists or not.
    #[must_use]
    pub fn role(&self, user: &str, workspace: &WorkspaceName) -> Option<Role> {
        match self {
            Members::Dev => Some(Role::Owner),
            Members::Tokens(tokens) => {
                tokens.roles.get(&(user.to_owned(), workspace.clone())).copied()
            }
        }
    }
}

impl Tokens {
    /// Reads a tokens file: one `token, user, workspace, role` per line, `#` begins a comment.
    ///
    /// # Errors
    /// [`MembersError`] names the line.
    pub fn read(path: &Path) -> Result<Self, MembersError> {
        let unreadable = |reason: String| MembersError::Unreadable { path: path.into(), reason };
        let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if meta.len() > MAX_TOKENS_FILE_BYTES {
            let limit = MAX_TOKENS_FILE_BYTES;
            return Err(unreadable(format!("{} bytes, the limit is {limit}", meta.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let mut tokens = Tokens::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                tokens.add(line).map_err(|reason| MembersError::Line {
                    path: path.into(),
                    line: index + 1,
                    reason,
                })?;
            }
        }
        Ok(tokens)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let [token, user, workspace, role] = parts.as_slice() else {
            return Err(format!("{} fields where 4 are needed", parts.len()));
        };
        if token.is_empty() || user.is_empty() {
            return Err("token and user must not be empty".into());
        }
        let workspace = WorkspaceName::new(workspace).map_err(|error| error.to_string())?;
        let role = match *role {
            "owner" => Role::Owner,
            "editor" => Role::Editor,
            "viewer" => Role::Viewer,
            other => return Err(format!("role {other:?} is unknown")),
        };
        if let Some(known) = self.users.insert((*token).to_owned(), (*user).to_owned())
            && known != *user
        {
            return Err(format!("the token is {known}'s already"));
        }
        self.roles.insert(((*user).to_owned(), workspace), role);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        lines.iter().try_for_each(|line| tokens.add(line)).map(|()| tokens)
    }

    /// R8.1: a token opens exactly the workspaces that its lines name, in the role they name.
    #[test]
    fn a_token_opens_what_its_lines_name() {
        let tokens =
            parse(&["t1, ann, acme, owner", "t1, ann, beta, viewer", "t2,bob,acme,editor"]);
        let members = Members::Tokens(tokens.expect("valid lines"));
        let acme = WorkspaceName::new("acme").expect("valid");
        let beta = WorkspaceName::new("beta").expect("valid");
        assert_eq!(members.authenticate("t1"), Ok("ann".into()));
        assert!(members.authenticate("t3").is_err());
        assert_eq!(members.role("ann", &beta), Some(Role::Viewer));
        assert_eq!(members.role("bob", &acme), Some(Role::Editor));
        assert_eq!(members.role("bob", &beta), None);
    }

    /// A mistyped line must stop the server, not quietly lock a user out.
    #[test]
    fn a_bad_line_is_an_error() {
        for line in ["t1, ann, acme", "t1, ann, ac me, owner", "t1, ann, acme, boss", ",a,b,owner"]
        {
            assert!(parse(&[line]).is_err(), "{line}");
        }
        assert!(parse(&["t1, ann, acme, owner", "t1, bob, acme, owner"]).is_err());
    }
}
