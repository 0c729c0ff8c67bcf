//! Configurations that change while the cluster runs, one server later than the other.

use crate::faults::Change;
use crate::trace::Column;
use crate::world::{Event, World};
use engine::Input;
use wire::ClusterConfig;
use wire::rules::{Failover, GroupRules, StopFailure};

impl World {
    /// A configuration is stored, and applied at one server, so much later at the other one. What starts meanwhile reads it.
    pub fn reconfigure(&mut self, first: usize, later: u64, change: Change) {
        self.config.version += 1;
        match change {
            Change::Recovery => self.config.auto_recover = !self.config.auto_recover,
            Change::Failback => self.rules(|rules| rules.failback = !rules.failback),
            Change::Exclusive => self.rules(|rules| {
                rules.failover = match rules.failover {
                    Failover::Normal => Failover::Exclusive,
                    Failover::Exclusive => Failover::Normal,
                };
            }),
            Change::Steps => self.rules(|rules| {
                let plain = rules.retries == 0;
                rules.retries = u8::from(plain) * 2;
                rules.stop_failure = if plain { StopFailure::Fence } else { StopFailure::Hold };
            }),
        }
        self.tell_config(first, later);
    }

    /// The rules with which the cluster must become whole: nothing but its own faults keeps a group from running.
    pub fn plain_rules(&mut self) {
        if self.config.version > 1 {
            self.config.version += 1;
            self.rules(|rules| *rules = GroupRules::default());
            self.tell_config(0, 1_000);
        }
    }

    fn rules(&mut self, change: impl Fn(&mut GroupRules)) {
        self.config.groups.iter_mut().for_each(|group| change(&mut group.rules));
    }

    fn tell_config(&mut self, first: usize, later: u64) {
        for (host, after) in [(first, 0), (1 - first, later)] {
            let config = Box::new(self.config.clone());
            self.queue.after(after, Event::Config { host, config });
        }
    }

    /// A configuration reaches a server's engine, unless it has a later one.
    pub fn config_arrived(&mut self, host: usize, config: &ClusterConfig) {
        let now = self.queue.now();
        let version = config.version;
        self.trace.step(now, Column::Server(host), || format!("configuration {version}"));
        self.engine_input(host, Input::ConfigChanged { config: config.clone() });
    }
}
