//! What every provider must do, as tests that anybody can run against theirs.
//!
//! [`run`] takes a provider and a [`World`] to move bytes in, and plays one [`Point`] after the
//! other, each in a workspace of its own. A point that a provider does not promise is not played
//! and said to be so; one that a server is known not to enforce must be named beforehand, with the
//! reason, and fails once the server does.

mod access;
mod multipart;
mod objects;
mod trial;
mod uploads;

use std::fmt;

use crate::capability::Capability;
use crate::http::HttpClient;
use crate::provider::ObjectStorageProvider;
use trial::{Failure, Trial};

/// Where the suite is played: the way to the store, and time.
pub trait World {
    /// What carries requests to signed URLs, as a device would.
    fn http(&self) -> &dyn HttpClient;
    /// Now, in milliseconds since 1970, as the store sees it.
    fn now_ms(&self) -> u64;
    /// Returns once `now_ms` is past this. Only a provider with a clock of its own makes it wait.
    fn wait_until(&self, at_ms: u64);
}

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $play:path, [$($needs:ident),*];)*) => {
        /// One thing that a provider must do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $($(#[$doc])* $name,)*
        }

        impl Point {
            /// All of them, in the order they are played.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What a provider must promise for it to be played.
            #[must_use]
            pub fn needs(self) -> &'static [Capability] {
                match self { $(Self::$name => &[$(Capability::$needs),*],)* }
            }

            fn play(self, trial: &Trial<'_>) -> Result<(), Failure> {
                match self { $(Self::$name => $play(trial),)* }
            }
        }
    };
}

points! {
    /// What was uploaded is downloaded, byte for byte, an empty file too.
    BytesComeBack, "bytes_come_back", uploads::bytes_come_back, [];
    /// A longer or shorter body than signed is refused and stores nothing.
    WrongLength, "wrong_length_refused", uploads::wrong_length, [LengthBound];
    /// A body of the right length with other bytes is refused and stores nothing.
    WrongChecksum, "wrong_checksum_refused", uploads::wrong_checksum, [ChecksumBound];
    /// An upload of another type than was signed is refused: nobody makes a picture a page.
    WrongType, "wrong_type_refused", uploads::wrong_type, [];
    /// A second upload says that the file is there and leaves it alone.
    SecondUpload, "second_upload_is_idempotent", uploads::second_upload, [IfNoneMatch];
    /// A URL says when it ends, and not later than was granted.
    UrlEnds, "url_says_when_it_ends", access::url_ends, [UploadExpires, DownloadExpires];
    /// An upload URL that ended is refused.
    ExpiredUpload, "expired_upload_refused", access::expired_upload, [UploadExpires];
    /// A download URL that ended is refused.
    ExpiredDownload, "expired_download_refused", access::expired_download, [DownloadExpires];
    /// A URL with any parameter changed, the signature among them, is refused.
    Tampered, "tampered_url_refused", access::tampered, [];
    /// A URL without its parameters is refused: the bucket is not public.
    Unsigned, "unsigned_request_refused", access::unsigned, [];
    /// A URL opens no other object of the workspace.
    OtherObject, "other_object_refused", access::other_object, [];
    /// A URL opens nothing of another workspace (R8.1).
    OtherWorkspace, "other_workspace_refused", access::other_workspace, [];
    /// A URL is good for its method only.
    ChangedMethod, "changed_method_refused", access::changed_method, [];
    /// An upload in parts goes on after a cut with what the store has (R3.5).
    Resumes, "multipart_resumes", multipart::resumes, [Multipart];
    /// An upload with a part missing does not become an object.
    Incomplete, "incomplete_multipart_refused", multipart::incomplete, [Multipart];
    /// A completion where the file is already says so, leaves it alone and keeps no parts.
    SecondMultipart, "second_multipart_is_idempotent", multipart::second, [Multipart, IfNoneMatch];
    /// A part with other bytes is refused.
    WrongPart, "wrong_part_refused", multipart::wrong_part, [Multipart, ChecksumBound];
    /// An aborted upload leaves no object and takes no more parts.
    AbortLeavesNothing, "abort_leaves_nothing", multipart::abort_leaves_nothing, [Multipart];
    /// Aborting again is no error.
    AbortTwice, "abort_is_idempotent", multipart::abort_twice, [Multipart];
    /// Deleting again is no error.
    DeleteTwice, "delete_is_idempotent", objects::delete_twice, [Delete];
    /// A deleted object stays deleted, also when its upload is completed once more (R7.4).
    DeleteIsFinal, "deleted_stays_deleted", objects::delete_is_final, [Delete, Multipart];
    /// A list shows exactly what is there, by exact keys, over all its pages.
    ListIsExact, "list_is_exact", objects::list_is_exact, [List, Delete];
    /// A range of a file is downloaded alone.
    Range, "range_is_downloaded", objects::range, [];
    /// What the store says of an object is so.
    Head, "head_is_true", objects::head, [];
    /// The check at commit passes what is whole and nothing else.
    Commit, "commit_verifies", objects::commit, [];
    /// A download has the type of the upload and the name that was asked for.
    Named, "download_is_named", objects::named, [];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A point that the server behind a provider is known not to enforce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEnforced {
    /// Which point.
    pub point: Point,
    /// Why that is accepted.
    pub why: String,
}

/// How one point ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it must.
    Passed,
    /// Otherwise.
    Failed {
        /// What was seen.
        seen: String,
    },
    /// The provider does not promise it.
    NotPromised {
        /// What it lacks.
        lacks: Capability,
    },
    /// The server does not enforce it, as was said beforehand.
    NotEnforced {
        /// What was seen.
        seen: String,
    },
}

/// How every point ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each point with its outcome, in the order they were played.
    pub outcomes: Vec<(Point, Outcome)>,
}

impl Report {
    /// The points that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<Point> {
        self.those(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    /// The points that passed.
    #[must_use]
    pub fn passed(&self) -> Vec<Point> {
        self.those(|outcome| *outcome == Outcome::Passed)
    }

    fn those(&self, is: impl Fn(&Outcome) -> bool) -> Vec<Point> {
        self.outcomes.iter().filter(|(_, outcome)| is(outcome)).map(|(point, _)| *point).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (point, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed => writeln!(f, "ok            {point}")?,
                Outcome::Failed { seen } => writeln!(f, "FAILED        {point}: {seen}")?,
                Outcome::NotPromised { lacks } => {
                    writeln!(f, "not promised  {point}: the provider lacks {lacks}")?;
                }
                Outcome::NotEnforced { seen } => writeln!(f, "not enforced  {point}: {seen}")?,
            }
        }
        Ok(())
    }
}

/// Plays every point. `name` begins the names of the workspaces it uses, at most 20 characters: two
/// runs against one bucket take two.
#[must_use]
pub fn run(
    provider: &dyn ObjectStorageProvider,
    world: &dyn World,
    name: &str,
    not_enforced: &[NotEnforced],
) -> Report {
    let play = |point: &Point| {
        let known = not_enforced.iter().find(|known| known.point == *point);
        (*point, play(*point, provider, world, name, known))
    };
    Report { outcomes: Point::ALL.iter().map(play).collect() }
}

fn play(
    point: Point,
    provider: &dyn ObjectStorageProvider,
    world: &dyn World,
    name: &str,
    known: Option<&NotEnforced>,
) -> Outcome {
    let promised = provider.capabilities();
    if let Some(lacks) = point.needs().iter().find(|needed| !promised.has(**needed)) {
        return Outcome::NotPromised { lacks: *lacks };
    }
    let trial = Trial::new(provider, world, format!("{name}.{point}"));
    let result = point.play(&trial);
    trial.clear();
    match (result, known) {
        (Ok(()), None) => Outcome::Passed,
        (Err(Failure(seen)), None) => Outcome::Failed { seen },
        (Err(Failure(seen)), Some(known)) => {
            Outcome::NotEnforced { seen: format!("{} ({seen})", known.why) }
        }
        (Ok(()), Some(_)) => {
            let seen = "it is enforced now: say so no longer".to_owned();
            Outcome::Failed { seen }
        }
    }
}
