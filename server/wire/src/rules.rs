//! How a group reacts by itself: failover, failback, retries, and what a failed stop means (B2, B6).

use crate::config::ConfigFault;
use serde::{Deserialize, Serialize};

/// Retries of a failing step: more only delays the failover that helps.
pub const RETRIES_MAX: u8 = 10;
/// Takeovers by one server within the period: more than this is ping-pong by any measure.
pub const TAKEOVERS_MAX: u8 = 16;
/// Longest period over which takeovers are counted, in minutes: a week.
pub const PERIOD_MINUTES_MAX: u16 = 10_080;

/// The attributes of a group [6.2.3, 6.2.4], and the bounds of B6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRules {
    /// Where it fails over to (B2).
    pub failover: Failover,
    /// It goes home by itself once home is normal and its mirror sets are equal; only from where a failover brought it.
    pub failback: bool,
    /// A step of the start that failed is tried so many times more, a second apart, before the start has failed.
    pub retries: u8,
    /// One server takes the group over at most so many times within `period_minutes`; then a person must look.
    pub takeovers: u8,
    /// Minutes over which takeovers are counted.
    pub period_minutes: u16,
    /// What follows when it will not stop.
    pub stop_failure: StopFailure,
}

/// Where a group fails over to [6.2.3].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failover {
    /// To the first running server of its policy; several groups may share it.
    #[default]
    Normal,
    /// Only to a server without an active group: with two servers it mostly does not fail over.
    Exclusive,
}

/// What follows when a group will not stop (B6); it is never active twice either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopFailure {
    /// It stays as it is until a person has looked.
    #[default]
    Hold,
    /// What is left of it is killed and cut off from its data.
    Fence,
}

impl Default for GroupRules {
    fn default() -> Self {
        GroupRules {
            failover: Failover::Normal,
            failback: false,
            retries: 0,
            takeovers: 3,
            period_minutes: 10,
            stop_failure: StopFailure::Hold,
        }
    }
}

impl GroupRules {
    /// Every value that cannot be used; `field` is the path of these rules.
    pub(crate) fn check(&self, field: &str, faults: &mut Vec<ConfigFault>) {
        let mut fault = |name: &str, remedy: String| {
            faults.push(ConfigFault { field: format!("{field}.{name}"), remedy });
        };
        if self.retries > RETRIES_MAX {
            fault("retries", format!("at most {RETRIES_MAX}"));
        }
        if self.takeovers == 0 || self.takeovers > TAKEOVERS_MAX {
            fault(
                "takeovers",
                format!("1 to {TAKEOVERS_MAX}; to keep a group where it is, name one server in its policy"),
            );
        }
        if self.period_minutes == 0 || self.period_minutes > PERIOD_MINUTES_MAX {
            fault("period_minutes", format!("1 to {PERIOD_MINUTES_MAX}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_out_of_bounds_are_named_with_a_remedy() {
        let mut faults = Vec::new();
        GroupRules::default().check("groups[0].rules", &mut faults);
        assert_eq!(faults, []);
        let wrong = GroupRules { retries: 11, takeovers: 0, period_minutes: 0, ..GroupRules::default() };
        wrong.check("groups[0].rules", &mut faults);
        let fields: Vec<&str> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            ["groups[0].rules.retries", "groups[0].rules.takeovers", "groups[0].rules.period_minutes"]
        );
    }
}
