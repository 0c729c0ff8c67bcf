//! The progress of a rebuild: a bar that fills towards its target, and measured figures only (VISUAL 5).

use crate::page::page;
use leptos::prelude::*;
use wire::ids::SetId;
use wire::text::{self, Label};
use wire::view::{Rebuild, SetState, SetView};

/// The bar, filling towards the target.
#[component]
pub fn ProgressBar(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let rebuild = move || set.with(|s| s.as_ref().and_then(|s| progress_of(&s.state)));
    let share = move || rebuild().map_or(0, |r| text::percent(r.done, r.total));
    let left = move || rebuild().is_some_and(|r| r.to.0 == 1);
    let name = move || {
        let name = set.with(|s| s.as_ref().map_or_else(String::new, |s| s.name.clone()));
        format!("{} · {name}", page.t(Label::Rebuilding))
    };
    view! {
        <div class="bar-track" class:left=left role="progressbar" aria-label=name aria-valuemin="0" aria-valuemax="100"
            aria-valuenow=move || share().to_string()>
            <i style:width=move || format!("{}%", share())></i>
        </div>
    }
}

/// Blocks, speed, kind and time left.
#[component]
pub fn Figures(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let tell = move |read: fn(text::Lang, &SetView, &Rebuild) -> String| {
        let lang = page.lang.get();
        set.with(|s| {
            s.as_ref().and_then(|s| progress_of(&s.state).map(|r| read(lang, s, &r))).unwrap_or_default()
        })
    };
    let stalled = move || {
        set.with(|s| s.as_ref().and_then(|s| progress_of(&s.state)).is_some_and(|r| r.stalled_s >= 10))
    };
    view! {
        <p class="figures">
            <span data-testid=format!("set-{}-blocks", id.0)>{move || tell(|lang, _, r| text::blocks(lang, r.done, r.total))}</span>
            <b data-testid=format!("set-{}-speed", id.0)>{move || tell(|lang, _, r| match r.bytes_per_s {
                0 => text::label(lang, Label::Measuring).to_owned(),
                speed => text::bytes_per_s(speed),
            })}</b>
        </p>
        <p class="figures">
            <span><b>{move || tell(|lang, _, r| text::rebuild_kind(lang, r.kind).to_owned())}</b>
                " · " {move || tell(|_, s, _| s.name.clone())}</span>
            <b class:tone-warn=stalled data-testid=format!("set-{}-left", id.0)>{move || tell(|lang, _, r| text::left(lang, r))}</b>
        </p>
    }
}

/// The rebuild under way, if one is.
#[must_use]
pub fn progress_of(state: &SetState) -> Option<Rebuild> {
    if let SetState::Rebuilding { progress } = state { Some(*progress) } else { None }
}
