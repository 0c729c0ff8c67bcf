//! Shim.
use engine::*; use wire::*; use engine::persist::Record;
pub struct Setup { pub config: ClusterConfig, pub me: NodeId, pub record: Record, pub host: Incarnation, pub node: Incarnation, pub seed: u64, pub wall: WallClock }
pub struct Engine;
impl Engine { pub fn new(_: Setup, _: Time)->Engine{Engine} pub fn handle(&mut self, _: Input, _: Time){} pub fn next_deadline(&self)->Option<Time>{None} pub fn take_actions(&mut self)->Vec<Action>{vec![]} pub fn view(&mut self, _: Time, _: WallClock)->ClusterView{ loop{} } }
