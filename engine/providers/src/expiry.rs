//! How long a signed URL is good for. The cap of R8.2 is kept here and nowhere else: a URL is
//! signed for an [`Expiry`], and none can be made beyond the cap.

use std::time::Duration;

use crate::limits::{DEFAULT_EXPIRY, MAX_EXPIRY};

/// A time that no URL may be signed for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a URL cannot be good for {asked_ms} ms: at least 1,000 and at most {limit_ms}")]
pub struct ExpiryError {
    /// What was asked for.
    pub asked_ms: u128,
    /// The cap.
    pub limit_ms: u128,
}

/// How long a signed URL is good for: whole seconds, at least one, at most the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(Duration);

impl Default for Expiry {
    fn default() -> Self {
        Self(DEFAULT_EXPIRY)
    }
}

impl Expiry {
    /// A URL that is good for as long as `asked`, less what is no whole second.
    ///
    /// # Errors
    /// [`ExpiryError`] for less than a second and for more than the cap.
    pub fn new(asked: Duration) -> Result<Self, ExpiryError> {
        let error = ExpiryError { asked_ms: asked.as_millis(), limit_ms: MAX_EXPIRY.as_millis() };
        if asked > MAX_EXPIRY || asked.as_secs() == 0 {
            return Err(error);
        }
        Ok(Self(Duration::from_secs(asked.as_secs())))
    }

    /// What a client or a hook asked for, brought within the limits: a longer time is cut.
    #[must_use]
    pub fn within(asked: Duration) -> Self {
        Self(Duration::from_secs(asked.as_secs().clamp(1, MAX_EXPIRY.as_secs())))
    }

    /// In whole seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0.as_secs()
    }
}

/// When a URL is signed and for how long. Time is an input: a provider has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Now, in milliseconds since 1970.
    pub now_ms: u64,
    /// How long it is good for.
    pub expiry: Expiry,
}

impl Grant {
    /// For the default time.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        Self { now_ms, expiry: Expiry::default() }
    }

    /// When it ends, in milliseconds since 1970. Signatures count whole seconds.
    #[must_use]
    pub fn expires_at_ms(self) -> u64 {
        (self.now_ms / 1000).saturating_add(self.expiry.as_secs()).saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Expiry, Grant};

    #[test]
    fn r8_2_no_url_is_good_for_more_than_an_hour() {
        let hour = Duration::from_secs(3600);
        assert_eq!(Expiry::new(hour).expect("the cap itself").as_secs(), 3600);
        let error = Expiry::new(hour + Duration::from_millis(1)).expect_err("over the cap");
        assert_eq!((error.asked_ms, error.limit_ms), (3_600_001, 3_600_000));
        assert!(Expiry::new(Duration::from_millis(999)).is_err());
        assert_eq!(Expiry::within(Duration::MAX).as_secs(), 3600);
        assert_eq!(Expiry::within(Duration::ZERO).as_secs(), 1);
        assert_eq!(Expiry::default().as_secs(), 900);
    }

    #[test]
    fn a_grant_ends_in_whole_seconds_and_never_overflows() {
        assert_eq!(Grant::at(1_999).expires_at_ms(), 901_000);
        assert_eq!(Grant::at(u64::MAX).expires_at_ms(), u64::MAX);
    }
}
