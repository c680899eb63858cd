//! When eviction writes again after a write that failed.
//!
//! A disk that refuses one write mostly refuses the next one too, at once. So there are pauses: each is twice as long as the
//! one before, up to [`PAUSE_NANOS_MAX`]. A page write that succeeds ends them, and so does somebody who newly asks for
//! frames. Failures less than [`SERIES_NANOS`] apart are one series, of which only the first is told. (Bad run: the disk
//! is gone, readers wait for frames; the pages that would have to leave are written again for each failure, on a core of its
//! own, with a warning for every one of them.)

use crate::actor::Nanos;

/// The first pause.
const PAUSE_NANOS_MIN: Nanos = 1_000_000;
/// The longest: how late the end of the trouble is noticed at most, while somebody waits.
const PAUSE_NANOS_MAX: Nanos = 64_000_000;
/// How long after the last failure another one is news.
const SERIES_NANOS: Nanos = 1_000_000_000;

/// The pause between writes that fail.
#[derive(Debug, Default)]
pub(super) struct WritePause {
    /// How long the last pause was meant to be; 0 if no write has failed since the last success.
    pause_nanos: Nanos,
    until: Nanos,
    failed_at: Option<Nanos>,
}

impl WritePause {
    /// A page could not be written. Returns whether a series of failures begins with that.
    pub fn failed(&mut self, now: Nanos) -> bool {
        // Those that were under way together fail together.
        if !self.is_on(now) {
            self.pause_nanos = (2 * self.pause_nanos).clamp(PAUSE_NANOS_MIN, PAUSE_NANOS_MAX);
            self.until = now.saturating_add(self.pause_nanos);
        }
        let before = self.failed_at.replace(now);
        before.is_none_or(|before| now.saturating_sub(before) >= SERIES_NANOS)
    }

    /// A page was written.
    pub fn succeeded(&mut self) {
        (self.pause_nanos, self.until) = (0, 0);
    }

    /// Somebody asks for frames who hasn't been told of the failure: it is tried at once whether it lasts.
    pub fn asked(&mut self) {
        self.until = 0;
    }

    /// Whether nothing should be written now.
    pub fn is_on(&self, now: Nanos) -> bool {
        now < self.until
    }

    /// How long that is going to last, nanoseconds from `now`.
    pub fn left(&self, now: Nanos) -> Nanos {
        self.until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_writes_fail_and_end_with_one_that_does_not() {
        let mut pause = WritePause::default();
        let mut now = 5;
        assert!(!pause.is_on(now));
        let mut told = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            for _ in 0..64 {
                told += usize::from(pause.failed(now));
            }
            pauses.push(pause.left(now) / PAUSE_NANOS_MIN);
            assert!(pause.is_on(now + pause.left(now) - 1));
            now += pause.left(now);
            assert!(!pause.is_on(now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(told, 1);
        pause.failed(now);
        pause.succeeded();
        assert!(!pause.is_on(now));
        assert!(!pause.failed(now), "told already");
        assert_eq!(pause.left(now), PAUSE_NANOS_MIN);
        assert!(pause.failed(now + SERIES_NANOS));
    }

    #[test]
    fn who_asks_gets_an_attempt_at_once_and_the_next_pause_is_longer() {
        let mut pause = WritePause::default();
        pause.failed(0);
        pause.asked();
        assert!(!pause.is_on(0));
        pause.failed(0);
        assert_eq!(pause.left(0), 2 * PAUSE_NANOS_MIN);
    }
}
