//! Every sentence a person reads, in English and Japanese, in one place: whole sentences with named slots (G4, VISUAL 3).
//!
//! Pure functions from typed parameters to text. Both languages of a sentence stand side by side, so that a reader sees
//! at once when one lacks. Nothing is glued: a sentence with a name in it is one sentence with a slot.

mod admin;
mod backing;
mod event;
mod forecast;
mod label;
mod mode;
mod names;
mod number;
mod old_version;
mod operation;
mod pace;
mod refusal;
mod sentence;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod time;
mod upkeep;
mod verdict;

pub use admin::{set_actions, set_permitted};
pub use backing::backing_fault;
pub use event::{event, event_number};
pub use forecast::{forecast, forecast_effect, forecast_when};
pub use label::{Label, label};
pub use mode::{
    set_behind, set_mode, write_mode, write_mode_means, write_mode_pending, write_mode_unanswered,
    write_modes,
};
pub use names::Names;
pub use number::{about_ms, blocks, bytes, bytes_per_s, count, milliseconds, percent, round_trip, seconds};
pub use operation::{
    Ending, consequence, demo_failed, ending, link_cut, link_mend, operation, operation_pending, server_kill,
    server_restart,
};
pub use pace::{limit, set_word, verified, verifying};
pub use refusal::{Refused, greyed, refusal, refused};
pub use sentence::{
    announce_percent, group_actions, in_about, left, live_from, no_readings, not_live, open_on, stalled,
    twin_answers,
};
pub use state::{
    group_state, group_state_on, link_state, link_value, rebuild_kind, server_line, server_state,
    set_changed, set_line, set_state, standby, was,
};
pub use step::{incident_clients, incident_title, part, step, step_progress};
pub use time::{clock, day_and_clock, duration, since};
pub use verdict::{copy_behind, stale_detail, stale_words, todo, verdict_detail, verdict_words};

/// A language of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

impl Lang {
    /// Every language, in the order of the switch.
    pub const ALL: [Lang; 2] = [Lang::En, Lang::Ja];

    /// The value of the page's `lang` attribute.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Ja => "ja",
        }
    }

    /// The language for a browser's or a person's tag, such as `ja-JP`; English for all others.
    #[must_use]
    pub fn from_tag(tag: &str) -> Lang {
        if tag.to_ascii_lowercase().starts_with("ja") { Lang::Ja } else { Lang::En }
    }

    /// Its own name, as the switch shows it.
    #[must_use]
    pub fn own_name(self) -> &'static str {
        match self {
            Lang::En => "English",
            Lang::Ja => "日本語",
        }
    }
}

/// One sentence in both languages: `say!(lang, "English {slot}", "日本語 {slot}")`.
macro_rules! say {
    ($lang:expr, $en:literal, $ja:literal) => {
        match $lang {
            $crate::text::Lang::En => format!($en),
            $crate::text::Lang::Ja => format!($ja),
        }
    };
}
pub(crate) use say;
