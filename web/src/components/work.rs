//! Work on the copies of a set while they serve: comparing them, and how fast a rebuild or a comparison may go (C7, C10).

use crate::command;
use crate::components::actions::{Offers, pending};
use crate::offer::{self, Offer};
use crate::page::page;
use leptos::prelude::*;
use std::num::NonZeroU64;
use wire::command::{Operation, RebuildTurn, VerifyTurn};
use wire::ids::SetId;
use wire::text::{self, Label};

/// The limits to choose from, in MB a second.
const LIMITS: [u64; 5] = [5, 20, 50, 100, 200];
const MB: u64 = 1_000_000;

/// What is under way or was found last, what can be ordered of it, and its speed.
#[component]
pub fn Work(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let about = move |what: Operation| matches!(what, Operation::VerifySet { set, .. } | Operation::PaceRebuild { set, .. } if set == id);
    let offers = Memo::new(move |_| {
        let mut shown =
            page.with(|_, view, _| set.with(|s| s.as_ref().map_or(Vec::new(), |s| offer::for_work(view, s))));
        for what in pending(about) {
            if !shown.iter().any(|offer: &Offer| offer.what == what) && !is_limit(what) {
                shown.insert(0, Offer { what, refused: None });
            }
        }
        shown
    });
    let verifying = move || {
        let lang = page.lang.get();
        set.with(|s| s.as_ref().and_then(|s| s.verify.as_ref()).map(|it| text::verifying(lang, it)))
    };
    let verified = move || {
        let lang = page.lang.get();
        set.with(|s| {
            s.as_ref().and_then(|s| s.verified.as_ref()).map(|it| text::verified(lang, it, page.east))
        })
    };
    view! {
        <div class="work" data-testid=format!("set-{}-work", id.0)>
            <Show when=move || verifying().is_some()>
                <p class="detail" data-testid=format!("set-{}-verifying", id.0)>{verifying}</p>
            </Show>
            <Show when=move || verified().is_some()>
                <p class="detail" data-testid=format!("set-{}-verified", id.0)>{verified}</p>
            </Show>
            <Offers offers=offers/>
            <Limit id/>
        </div>
    }
}

fn is_limit(what: Operation) -> bool {
    matches!(
        what,
        Operation::VerifySet { turn: VerifyTurn::Limit { .. }, .. }
            | Operation::PaceRebuild { turn: RebuildTurn::Limit { .. }, .. }
    )
}

/// The speed of what is under way: the limit that holds is chosen, another one is ordered by choosing it.
#[component]
fn Limit(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let holds = Memo::new(move |_| {
        page.with(|_, view, _| set.with(|s| s.as_ref().and_then(|s| offer::limit_of(view, s))))
    });
    let name = format!("set-{}-limit", id.0);
    let choose = move |event| {
        let limit = event_target_value(&event).parse().ok().and_then(NonZeroU64::new);
        let Some((offer, _)) = holds.get_untracked() else { return };
        let what = if let Operation::VerifySet { set, .. } = offer.what {
            Operation::VerifySet { set, turn: VerifyTurn::Limit { limit } }
        } else {
            Operation::PaceRebuild { set: id, turn: RebuildTurn::Limit { limit } }
        };
        command::give(page, what);
    };
    let choices = move || {
        let lang = page.lang.get();
        let now = holds.get().and_then(|(_, limit)| limit);
        let mut all: Vec<Option<u64>> = LIMITS.iter().map(|mb| Some(mb * MB)).collect();
        all.insert(0, None);
        if !all.contains(&now) {
            all.push(now);
        }
        let option = |limit: Option<u64>| {
            view! {
                <option value=limit.unwrap_or_default().to_string() selected=limit == now>
                    {text::limit(lang, limit)}
                </option>
            }
        };
        all.into_iter().map(option).collect_view()
    };
    let refused = move || holds.get().is_some_and(|(offer, _)| offer.refused.is_some()) || page.stale.get();
    view! {
        <Show when=move || holds.with(Option::is_some)>
            <label class="field" for=name.clone()>
                <span>{move || page.t(Label::Speed)}</span>
                <select id=name.clone() data-testid=name.clone() disabled=refused on:change=choose>{choices}</select>
            </label>
        </Show>
    }
}
