//! One failover as people read it: what was seen and done, and how long each took (A10, G10).

use crate::core::Core;
use crate::group::Group;
use wire::Time;
use wire::ids::MILLIS;
use wire::view::{Incident, IncidentPart, PartKind};

impl Group {
    /// The takeover of a group begins.
    pub fn begin_incident(&mut self, core: &mut Core) {
        let now = core.now;
        let judged = core.twin.judged.unwrap_or(now);
        let began = core.twin.last_sign.unwrap_or(judged);
        core.incidents += 1;
        let detection = IncidentPart { kind: PartKind::Detection, ms: judged.since(began) / MILLIS };
        let incident = Incident {
            number: core.incidents,
            server: core.twin_id,
            group: self.id,
            began: core.wall_at(began),
            parts: vec![detection],
            total_ms: None,
            forecast_ms: Some(self.forecast_ms(core)),
        };
        self.incident_times = (began, judged);
        core.incident = Some(incident.clone());
        self.incident = Some(incident);
    }

    /// The twin came back before anything was decided: nothing failed over.
    pub fn cancel_incident(&mut self, core: &mut Core) {
        if self.incident.take().is_some() {
            core.incident = None;
        }
    }

    /// The register decided.
    pub fn decided_incident(&mut self, core: &mut Core) {
        let ms = core.now.since(self.incident_times.1) / MILLIS;
        if let Some(incident) = &mut self.incident {
            incident.parts.truncate(1);
            incident.parts.push(IncidentPart { kind: PartKind::Decision, ms });
        }
        self.show_incident(core);
    }

    /// The service is back: the whole time in milliseconds.
    pub fn end_incident(&mut self, core: &mut Core) -> Option<u64> {
        let total = core.now.since(self.incident_times.0) / MILLIS;
        self.steps_of_incident();
        let incident = self.incident.as_mut()?;
        incident.total_ms = Some(total);
        self.show_incident(core);
        self.incident = None;
        Some(total)
    }

    /// The steps done so far are parts of it.
    pub fn steps_of_incident(&mut self) {
        let steps = self.step_times();
        if let Some(incident) = &mut self.incident {
            incident.parts.retain(|p| !matches!(p.kind, PartKind::Step(_)));
            let parts = steps.into_iter().map(|(kind, ms)| IncidentPart { kind: PartKind::Step(kind), ms });
            incident.parts.extend(parts.filter(|p| p.kind != PartKind::Step(wire::alert::StepKind::Right)));
        }
    }

    /// The page shows the incident as far as it is.
    pub fn show_incident(&mut self, core: &mut Core) {
        if let Some(incident) = &self.incident {
            core.incident = Some(incident.clone());
        }
    }

    /// Where an incident began and was judged.
    pub(crate) fn no_incident() -> (Time, Time) {
        (Time(0), Time(0))
    }
}
