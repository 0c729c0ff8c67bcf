//! What a server measures of itself once a second, and whether its cables are in.

use crate::brain::Turn;
use crate::heartbeat::ends;
use engine::Input;
use os::linkstate::{HostLinks, LinkState, LinkStates as _};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use wire::config::LinkConfig;
use wire::view::Readings;
use wire::{LinkId, NodeId};

/// Between two readings.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the cables: a person sees a pulled one at once.
const CARRIER_EVERY: Duration = Duration::from_millis(250);

/// Takes readings for ever.
pub async fn take(turns: mpsc::Sender<Turn>) {
    let mut tick = interval(READ_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let system = fs::read_to_string("/etc/os-release").map(|text| system_name(&text)).unwrap_or_default();
    let mut before = processor_times(&fs::read_to_string("/proc/stat").unwrap_or_default());
    loop {
        tick.tick().await;
        let times = processor_times(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let readings = Readings {
            cpu_percent: busy_percent(before, times),
            memory_percent: memory_percent(&memory),
            uptime_s: uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
            system: system.clone(),
        };
        before = times;
        if turns.send(Turn::Input(Input::ReadingsTaken { readings })).await.is_err() {
            return;
        }
    }
}

/// Tells of every change of a link's carrier on this host, first of all as it is.
pub async fn watch_carrier(links: Vec<LinkConfig>, me: NodeId, turns: mpsc::Sender<Turn>) {
    let mut tick = interval(CARRIER_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: BTreeMap<LinkId, bool> = BTreeMap::new();
    loop {
        tick.tick().await;
        let states = match tokio::task::spawn_blocking(|| HostLinks.read()).await {
            Ok(Ok(states)) => states,
            Ok(Err(fault)) => {
                tracing::debug!("the links' carrier is not known: {fault}");
                continue;
            }
            Err(_) => return,
        };
        for link in &links {
            let present = has_carrier(&states, link, me);
            if known.insert(link.id, present) != Some(present) {
                let input = Input::CarrierChanged { link: link.id, present };
                if turns.send(Turn::Input(input)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn has_carrier(states: &[LinkState], link: &LinkConfig, me: NodeId) -> bool {
    let own = ends(link, me).0;
    states.iter().any(|state| state.addresses.contains(&own) && state.up && state.carrier)
}

/// All and idle time of all processors, in clock ticks.
fn processor_times(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or("");
    let fields: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    (fields.iter().sum(), idle)
}

fn busy_percent(before: (u64, u64), now: (u64, u64)) -> u8 {
    let all = now.0.saturating_sub(before.0);
    let busy = all.saturating_sub(now.1.saturating_sub(before.1));
    u8::try_from((busy * 100).checked_div(all).unwrap_or(0)).unwrap_or(100)
}

fn memory_percent(text: &str) -> u8 {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().split(' ').next()?.parse().ok()
    };
    let (Some(total), Some(free)) = (field("MemTotal:"), field("MemAvailable:")) else { return 0 };
    u8::try_from((total.saturating_sub(free) * 100).checked_div(total).unwrap_or(0)).unwrap_or(100)
}

fn system_name(text: &str) -> String {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_matches('"'))
    };
    let name = field("NAME=").unwrap_or("Linux").split(' ').next().unwrap_or("Linux");
    field("VERSION_ID=").map_or_else(|| name.to_string(), |version| format!("{name} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let before = processor_times("cpu  100 0 100 700 100 0 0 0 9 9\ncpu0 1 1 1 1");
        let now = processor_times("cpu  130 0 120 740 110 0 0 0 9 9\n");
        assert_eq!(busy_percent(before, now), 50);
        assert_eq!(busy_percent(now, now), 0);
        assert_eq!(memory_percent("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:   250 kB\n"), 75);
        assert_eq!(memory_percent(""), 0);
        assert_eq!(system_name("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n"), "Debian 12");
        assert_eq!(system_name(""), "Linux");
    }

    #[test]
    fn a_cable_counts_by_the_address_on_it() {
        let link = LinkConfig {
            id: LinkId(0),
            name: "ic1".into(),
            kind: wire::config::LinkKind::Interconnect,
            addresses: [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
            prefix: 24,
        };
        let state = |carrier| LinkState {
            name: "eth0".into(),
            up: true,
            carrier,
            addresses: vec![[192, 0, 2, 2].into()],
        };
        assert!(has_carrier(&[state(true)], &link, NodeId(2)));
        assert!(!has_carrier(&[state(false)], &link, NodeId(2)));
        assert!(!has_carrier(&[state(true)], &link, NodeId(1)));
    }
}
