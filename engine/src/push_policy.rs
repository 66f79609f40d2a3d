//! What the server's software has to say about a batch before it is decided.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lastword_core::id::WorkspaceName;
use lastword_core::op::Batch;
use lastword_core::protocol::authority::PushAnswer;
use lastword_core::stamp::RefusalCode;

/// A batch that is about to be decided.
#[derive(Debug, Clone, Copy)]
pub struct PushRequest<'a> {
    /// Its workspace.
    pub workspace: &'a WorkspaceName,
    /// Who pushed it.
    pub user: &'a str,
    /// The batch, as it was sent.
    pub batch: &'a Batch,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushRuling {
    /// It is decided by the rules of sync.
    Pass,
    /// It is refused, for good: a dead letter on its device, with this message.
    Refuse {
        /// For people: why, and what to do.
        message: String,
    },
    /// Nothing is decided: the device keeps it and sends it again after that time.
    NotNow {
        /// How long the device waits, in milliseconds.
        retry_ms: u64,
        /// For people.
        message: String,
    },
}

/// Rules on batches; see [`crate::Authority::rule_pushes`].
pub(crate) type PushPolicy = dyn Fn(&PushRequest<'_>) -> PushRuling + Send + Sync;

/// How long a device waits whose batch nobody could rule on, in milliseconds.
const FAILED_RETRY_MS: u64 = 5_000;

/// Asks the policy. One that panics has said nothing: that is no decision.
pub(crate) fn ruled(policy: &PushPolicy, asked: &PushRequest<'_>) -> PushRuling {
    catch_unwind(AssertUnwindSafe(|| policy(asked))).unwrap_or_else(|_| {
        tracing::error!(workspace = %asked.workspace, "the policy on pushes panicked");
        PushRuling::NotNow {
            retry_ms: FAILED_RETRY_MS,
            message: "the server could not judge this batch; it is sent again".into(),
        }
    })
}

impl PushRuling {
    /// A refusal, or what is answered without a decision; none if it passes.
    pub(crate) fn objection(self) -> Option<Result<(RefusalCode, String), PushAnswer>> {
        match self {
            PushRuling::Pass => None,
            PushRuling::Refuse { message } => Some(Ok((RefusalCode::Policy, message))),
            PushRuling::NotNow { retry_ms, message } => {
                Some(Err(PushAnswer::NotNow { retry_ms, message }))
            }
        }
    }
}
