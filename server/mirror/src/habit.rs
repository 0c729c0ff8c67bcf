//! Whether a flush is about to be asked for: a database that commits writes, waits, and flushes, again and again.
//!
//! Between the answer to a commit's last write and its flush lies the way up to the application and down again, as long as
//! the flush itself takes. A round that begins at the answer runs meanwhile. What a round covers is counted, not guessed:
//! a wrong guess costs one flush of the disks.

/// Intervals in a row with the same number of writes before the next flush is anticipated: a pattern, not chance.
const HABIT_AFTER: u32 = 4;

/// What has been seen between flushes.
#[derive(Debug, Default)]
pub(crate) struct Habit {
    /// Writes answered so far.
    answered: u64,
    /// Writes answered when a flush was asked last.
    asked_at: u64,
    /// Writes between the two last flushes.
    usual: u64,
    /// How often in a row there were so many.
    times: u32,
}

impl Habit {
    /// A write is answered.
    pub(crate) fn write_answered(&mut self) {
        self.answered += 1;
    }

    /// A flush is asked for.
    pub(crate) fn flush_asked(&mut self) {
        let between = self.answered - self.asked_at;
        self.times = if between == self.usual { self.times.saturating_add(1) } else { 0 };
        (self.usual, self.asked_at) = (between, self.answered);
    }

    /// Writes answered so far: a round that begins with this number covers them.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// A flush usually comes next.
    pub(crate) fn flush_is_next(&self) -> bool {
        self.times >= HABIT_AFTER && self.usual > 0 && self.answered - self.asked_at == self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(habit: &mut Habit, writes: u32) {
        (0..writes).for_each(|_| habit.write_answered());
        habit.flush_asked();
    }

    #[test]
    fn a_pattern_is_learnt_and_forgotten_at_its_first_break() {
        let mut habit = Habit::default();
        for _ in 0..=HABIT_AFTER {
            habit.write_answered();
            assert!(!habit.flush_is_next());
            habit.write_answered();
            assert!(!habit.flush_is_next());
            habit.flush_asked();
        }
        habit.write_answered();
        assert!(!habit.flush_is_next(), "the second write is still to come");
        habit.write_answered();
        assert!(habit.flush_is_next());
        habit.write_answered();
        assert!(!habit.flush_is_next());
        habit.flush_asked();
        commit(&mut habit, 2);
        habit.write_answered();
        habit.write_answered();
        assert!(!habit.flush_is_next(), "learnt from the beginning");
    }

    #[test]
    fn flushes_of_nothing_anticipate_nothing() {
        let mut habit = Habit::default();
        for _ in 0..2 * HABIT_AFTER {
            commit(&mut habit, 0);
            assert!(!habit.flush_is_next());
        }
    }
}
