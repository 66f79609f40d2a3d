//! Who may do what: the `--tokens` file, or `--dev`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use lastword::MemberList;
use lastword::core::id::{Key, WorkspaceName};
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

/// Who may connect.
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
    /// Where it was read.
    pub path: PathBuf,
    /// The members that it names.
    pub list: MemberList,
    /// The user behind each token, and the line that says so first.
    users: HashMap<String, (String, usize)>,
    /// The line of each user in a workspace.
    lines: HashMap<(Key, WorkspaceName), usize>,
}

impl Members {
    /// The user behind a token; the error does not tell a wrong token from one that is gone.
    ///
    /// # Errors
    /// A sentence for the device.
    pub fn authenticate(&self, token: &str) -> Result<String, String> {
        match self {
            Members::Dev if token.is_empty() => Err("a token is needed, any text will do".into()),
            Members::Dev => Ok(token.to_owned()),
            Members::Tokens(tokens) => {
                let unknown = || "this server does not know the token".to_owned();
                tokens.users.get(token).map(|(user, _)| user.clone()).ok_or_else(unknown)
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
        let mut tokens = Tokens { path: path.into(), ..Tokens::default() };
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let (path, number) = (path.to_owned(), index + 1);
                tokens.add(number, line).map_err(|reason| MembersError::Line {
                    path,
                    line: number,
                    reason,
                })?;
            }
        }
        Ok(tokens)
    }

    fn add(&mut self, number: usize, line: &str) -> Result<(), String> {
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let [token, user, workspace, role] = parts.as_slice() else {
            return Err(format!("{} fields where 4 are needed", parts.len()));
        };
        if token.is_empty() || user.is_empty() {
            return Err("token and user must not be empty".into());
        }
        let workspace = WorkspaceName::new(workspace).map_err(|error| error.to_string())?;
        let key = Key::new(user).map_err(|error| error.to_string())?;
        let role = match *role {
            "owner" => Role::Owner,
            "editor" => Role::Editor,
            "viewer" => Role::Viewer,
            other => return Err(format!("role {other:?} is unknown")),
        };
        let named = (*user).to_owned();
        let (known, first) =
            self.users.entry((*token).to_owned()).or_insert_with(|| (named.clone(), number));
        if *known != named {
            return Err(format!("the token is {known}'s already, on line {first}"));
        }
        // Two people of one name would be one user, and of two roles one would count.
        match self.lines.entry((key.clone(), workspace.clone())) {
            Entry::Occupied(first) => {
                let first = first.get();
                Err(format!("user {user} is in workspace {workspace} already, on line {first}"))
            }
            Entry::Vacant(new) => {
                new.insert(number);
                self.list.add(workspace, key, role);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        let mut numbered = lines.iter().enumerate();
        numbered.try_for_each(|(index, line)| tokens.add(index + 1, line)).map(|()| tokens)
    }

    /// R8.1: a token opens exactly the workspaces that its lines name, in the role they name.
    #[test]
    fn a_token_opens_what_its_lines_name() {
        let tokens =
            parse(&["t1, ann, acme, owner", "t1, ann, beta, viewer", "t2,bob,acme,editor"]);
        let tokens = tokens.expect("valid lines");
        let mut named = MemberList::default();
        let lines = [
            ("acme", "ann", Role::Owner),
            ("beta", "ann", Role::Viewer),
            ("acme", "bob", Role::Editor),
        ];
        for (workspace, user, role) in lines {
            let workspace = WorkspaceName::new(workspace).expect("valid");
            named.add(workspace, Key::new(user).expect("valid"), role);
        }
        assert_eq!(tokens.list, named);
        let members = Members::Tokens(tokens);
        assert_eq!(members.authenticate("t1"), Ok("ann".into()));
        assert!(members.authenticate("t3").is_err());
    }

    /// A mistyped line must stop the server, not quietly lock a user out.
    #[test]
    fn a_bad_line_is_an_error() {
        for line in ["t1, ann, acme", "t1, ann, ac me, owner", "t1, ann, acme, boss", ",a,b,owner"]
        {
            assert!(parse(&[line]).is_err(), "{line}");
        }
        let first = "t1, ann, acme, owner";
        let error = parse(&[first, "t1, bob, acme, owner"]).expect_err("one token, two users");
        assert!(error.contains("ann's already, on line 1"), "{error}");
        // The second role used to count, without a word.
        for second in ["t1, ann, acme, viewer", "t2, ann, acme, owner"] {
            let error = parse(&[first, second]).expect_err("named twice");
            assert!(error.contains("in workspace acme already, on line 1"), "{error}");
        }
    }
}
