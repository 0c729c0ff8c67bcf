//! Entry.
use engine::register::RegisterFaults;
use sim::register_model::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    if a.len() < 3 {
        let from = a[0]; let n = a.get(1).copied().unwrap_or(1);
        for seed in from..from + n {
            let o = sim::world::Options { detail: if n == 1 { sim::trace::Detail::Steps } else { sim::trace::Detail::Off }, print: n == 1, ..Default::default() };
            let t = std::time::Instant::now();
            let mut w = sim::world::World::new(seed, o);
            w.run();
            println!("seed {seed} events {} simulated {:.1}s real {:.3}s acked {:?} {:?}", w.events, w.queue.now() as f64 / 1e6, t.elapsed().as_secs_f64(), w.oracles.values().map(|o| o.borrow().acknowledged()).collect::<Vec<_>>(), w.failure.map(|f| f.to_string()));
        }
        return;
    }
    let b = Bounds { proposals: a[0] as u8, restarts: a[1] as u8, writes: a[2] as u8, strays: a[3] as u8, alone: a[5] == 1, states: a[4] as usize };
    let run = |w: Without, name: &str, show: bool| {
    let t = std::time::Instant::now();
    let v = check(b, w);
    println!("{name}: {} {} {:?} {} steps {:.1}s", v.states, v.complete, v.broken.as_ref().map(|b| &b.0), v.broken.as_ref().map_or(0, |b| b.1.len()), t.elapsed().as_secs_f64());
    if show { if let Some((_, way)) = v.broken { for w in way { println!("  {w:?}"); } } } };
    if a.len() < 7 { run(Without::default(), "product", true); return; }
    let f = RegisterFaults::default();
    let list = [("propose_out_of_sync", RegisterFaults { propose_out_of_sync: true, ..f }),
      ("write_back", RegisterFaults { write_back: true, ..f }),
      ("own_acceptor_last", RegisterFaults { own_acceptor_last: true, ..f }),
      ("forget_pending", RegisterFaults { forget_pending: true, ..f }),
      ("promise_ends_pending", RegisterFaults { promise_ends_pending: true, ..f }),
      ("known_in_memory", RegisterFaults { known_in_memory: true, ..f }),
      ("ack_by_known", RegisterFaults { ack_by_known: true, ..f }),
      ("ack_by_latest", RegisterFaults { ack_by_latest: true, ..f }),
      ("readmit_unlearnt", RegisterFaults { readmit_unlearnt: true, ..f }),
      ("promote_keeps_old", RegisterFaults { promote_keeps_old: true, ..f }),
      ("leave_unasked", RegisterFaults { leave_unasked: true, ..f }),
      ("ack_while_handing_over", RegisterFaults { ack_while_handing_over: true, ..f }),
      ("resume_with_pending", RegisterFaults { resume_with_pending: true, ..f }),
      ("accept_below_promise", RegisterFaults { accept_below_promise: true, ..f })];
    for (n, r) in list { run(Without { register: r, ..Without::default() }, n, false); }
    run(Without { compare_before_switch: true, ..Without::default() }, "compare_before_switch", false);
    run(Without { take_stale_writes: true, ..Without::default() }, "take_stale_writes", false);
}
