//! A bound on what outsiders can have written down: so many lines a minute, and then their number. Nobody fills a log, a journal or an
//! audit trail from outside, and nobody's noise makes the journal drop the lines of others.

use std::time::Duration;

use crate::types::Monotonic;

/// What is written down one by one within [`SPAN`].
pub const MOST: u32 = 30;
/// After this long counting begins anew.
pub const SPAN: Duration = Duration::from_secs(60);

/// Counts what was asked to be written down.
#[derive(Debug, Clone, Default)]
pub struct Quota {
    since: Option<Monotonic>,
    count: u32,
}

impl Quota {
    /// Whether one more is written down on its own. Ask [`Quota::unlisted`] first, or its number is lost when a new span begins.
    pub fn is_listed(&mut self, now: Monotonic) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= SPAN) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= MOST
    }

    /// How many were not written down, once the span that they fell into is over. To be asked often: the last of a flood is followed
    /// by nothing.
    pub fn unlisted(&mut self, now: Monotonic) -> Option<u32> {
        let is_over = self.since.is_some_and(|since| now.since(since) >= SPAN);
        let unlisted = self.count.saturating_sub(MOST);
        if is_over {
            *self = Self::default();
        }
        (is_over && unlisted > 0).then_some(unlisted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thirty_lines_a_minute_and_a_number() {
        let start = Monotonic::default();
        let mut quota = Quota::default();
        let listed = (0..10_000).filter(|_| quota.is_listed(start)).count();
        assert_eq!(listed, 30);
        assert_eq!(quota.unlisted(start.plus(Duration::from_secs(59))), None);
        let later = start.plus(SPAN);
        assert_eq!(quota.unlisted(later), Some(9_970));
        assert_eq!(quota.unlisted(later), None, "it is told once");
        assert!(quota.is_listed(later));
        assert_eq!(quota.unlisted(later.plus(SPAN)), None, "what was listed is not told again");
    }
}
