//! A group's place on one server: a solid card where it runs, a dashed slot where it could come.

use crate::browser;
use crate::components::group_facts::{breakable, facts};
use crate::components::sign::Sign;
use crate::look::{self, Look};
use crate::offer;
use crate::page::{Page, page};
use leptos::prelude::*;
use wire::ids::{GroupId, NodeId};
use wire::text::{self, Lang};
use wire::view::{GroupState, GroupView};

/// Where a group is drawn solid: where it runs, starts or stops; at home while it is nowhere.
fn solid_on(group: &GroupView) -> Option<NodeId> {
    group.active.or(group.policy.first().copied())
}

/// The place of `group` on server `on`, in row `row` of the picture.
#[component]
pub fn Place(group: GroupId, on: NodeId, row: usize) -> impl IntoView {
    let page = page();
    let found = page.group(group);
    let here = move || found.with(|g| g.as_ref().is_some_and(|g| solid_on(g) == Some(on)));
    let arriving =
        move || found.with(|g| g.as_ref().is_some_and(|g| g.state == GroupState::Moving { to: on }));
    let look = Signal::derive(move || {
        page.look(found.with(|g| g.as_ref().map_or(look::STALE, |g| place_look(g, on))))
    });
    let word = move || {
        let word = page.with(|lang, _, names| {
            found.with(|g| g.as_ref().map_or_else(String::new, |g| place_word(lang, g, on, names)))
        });
        page.word(word)
    };
    let name = move || found.with(|g| g.as_ref().map_or_else(String::new, |g| g.name.clone()));
    let state = move || found.with(|g| g.as_ref().map_or_else(String::new, |g| format!("{:?}", g.state)));
    let state = move || state().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let came = move || {
        page.view.with(|v| v.as_ref().is_some_and(|v| v.incident.as_ref().is_some_and(|i| i.group == group)))
            && found.with(|g| g.as_ref().is_some_and(|g| g.failed_over))
    };
    let several = move || page.groups().with(|g| g.len() > 1);
    let class = move || {
        let selected = here() && several() && page.selected.get() == Some(group);
        format!(
            "place {}{}{}{}",
            if here() { "card" } else { "slot" },
            if arriving() && !here() { " arriving" } else { "" },
            if selected { " selected" } else { "" },
            if here() && came() { " came" } else { "" }
        )
    };
    let facts = move || {
        page.with(|lang, view, _| {
            found.with(|g| g.as_ref().map_or(Vec::new(), |g| facts(page, lang, view, g, on, here())))
        })
    };
    let base = format!("group-{}-on-{}", group.0, on.0);
    let word_id = format!("{base}-state");
    view! {
        <section class=class style:--i=row.to_string() data-testid=base data-state=state
            data-active=move || found.with(|g| g.as_ref().is_some_and(|g| g.active == Some(on))).to_string()>
            <header>
                <Sign look=look size="s20"/>
                <h3>{move || if here() {
                    view! { <Pick group/> }.into_any()
                } else {
                    view! { <span>{name}</span> }.into_any()
                }}</h3>
                <span class=move || format!("word tone-{}", look.get().tone.name())
                    data-testid=word_id>{word}</span>
            </header>
            <dl>{move || facts().into_iter().map(|(what, strong, rest)| view! {
                <dt>{what}</dt><dd><b>{breakable(&strong)}</b>" "{breakable(&rest)}</dd>
            }).collect_view()}</dl>
        </section>
    }
}

fn place_look(group: &GroupView, on: NodeId) -> Look {
    match (&group.state, group.active) {
        (GroupState::Moving { to }, active) if *to == on && active != Some(on) => {
            look::group(&group.state, true)
        }
        _ if solid_on(group) == Some(on) => look::group(&group.state, group.active.is_some()),
        _ => look::standby(group.standby, on),
    }
}

fn place_word(lang: Lang, group: &GroupView, on: NodeId, names: text::Names<'_>) -> String {
    text::group_state_on(lang, on, solid_on(group), &group.state, group.standby, names)
}

/// A group's name as what the keys act on: arrows select, M moves, Enter opens, Esc closes.
#[component]
fn Pick(group: GroupId) -> impl IntoView {
    let page = page();
    let found = page.group(group);
    let name = move || found.with(|g| g.as_ref().map_or_else(String::new, |g| g.name.clone()));
    let keys = move |event: web_sys::KeyboardEvent| {
        let step = match event.key().as_str() {
            "ArrowDown" | "ArrowRight" => 1,
            "ArrowUp" | "ArrowLeft" => -1,
            "m" | "M" => return ask_move(page, group),
            "Escape" => return page.asking.set(None),
            _ => return,
        };
        event.prevent_default();
        let ids = page.groups().get_untracked();
        let at = ids.iter().position(|id| *id == group).unwrap_or(0);
        if let Some(next) = at.checked_add_signed(step).and_then(|i| ids.get(i)) {
            page.selected.set(Some(*next));
            browser::focus(&format!("pick-{}", next.0));
        }
    };
    let open = move |_| {
        page.selected.set(Some(group));
        browser::focus("actions-group");
    };
    view! {
        <button class="pick" id=format!("pick-{}", group.0)
            aria-pressed=move || (page.chosen() == Some(group)).to_string()
            tabindex=move || if page.chosen() == Some(group) { "0" } else { "-1" }
            on:keydown=keys on:click=open>{name}</button>
    }
}

fn ask_move(page: Page, group: GroupId) {
    page.selected.set(Some(group));
    let offer = page.view.with_untracked(|v| {
        let view = v.as_ref()?;
        offer::move_of(view, view.groups.iter().find(|g| g.id == group)?)
    });
    if let Some(offer) = offer.filter(|o| o.refused.is_none() && !page.stale.get_untracked()) {
        page.asking.set(Some(offer.what));
    } else {
        browser::focus("actions-group");
    }
}
