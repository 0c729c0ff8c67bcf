//! The operator's acts under the picture: server 1, the selected group with its steps, server 2.

use crate::components::action::Action;
use crate::components::mode::WriteModes;
use crate::components::steps::Steps;
use crate::components::work::Work;
use crate::offer::{self, Offer};
use crate::page::page;
use leptos::prelude::*;
use wire::command::Operation;
use wire::ids::{NodeId, SetId};
use wire::text::{self, Label};

/// The panel.
#[component]
pub fn Actions() -> impl IntoView {
    view! {
        <section class="actions" data-testid="actions">
            <ServerActions id=NodeId(1)/>
            <GroupActions/>
            <ServerActions id=NodeId(2)/>
        </section>
        <SetsActions/>
    }
}

/// The mirror administrator's acts, folded away: each set opens its own.
#[component]
fn SetsActions() -> impl IntoView {
    let page = page();
    let sets = Memo::new(move |_| {
        page.view
            .with(|v| v.as_ref().map_or(Vec::new(), |v| v.sets.iter().map(|s| s.id).collect::<Vec<SetId>>()))
    });
    view! {
        <section class="set-actions" data-testid="set-actions">
            <For each=move || sets.get() key=|id| *id let(id)><SetActions id/></For>
        </section>
    }
}

#[component]
fn SetActions(id: SetId) -> impl IntoView {
    let page = page();
    let set = page.set(id);
    let name = move || set.with(|s| s.as_ref().map_or_else(String::new, |s| s.name.clone()));
    let permitted = move || {
        let on = set.with(|s| s.as_ref().and_then(|s| s.permitted));
        page.with(|lang, _, names| on.map(|on| text::set_permitted(lang, on, names)))
    };
    let about = move |what: Operation| {
        matches!(what, Operation::BuildSet { set, .. } | Operation::ForceRecovery { set, .. }
            | Operation::PermitSet { set, .. } | Operation::RestrictSet { set, .. }
            | Operation::ForcePermit { set, .. } | Operation::ExchangeDisk { set, .. }
            | Operation::OldVersion { set, .. }
            | Operation::ReleaseSet { set } if set == id)
    };
    let offers = Memo::new(move |_| {
        let offers =
            page.with(|_, view, _| set.with(|s| s.as_ref().map_or(Vec::new(), |s| offer::for_set(view, s))));
        let mut shown = offers;
        // An order that is under way keeps its button where the state no longer offers it.
        for what in pending(about)
            .into_iter()
            .filter(|what| !shown.iter().any(|o| o.what == *what))
            .collect::<Vec<_>>()
        {
            shown.insert(0, Offer { what, refused: None });
        }
        shown
    });
    view! {
        <details class="panel pad" data-testid=format!("set-{}-admin", id.0)>
            <summary>
                {move || text::set_actions(page.lang.get(), &name())}
                {move || permitted().map(|words| view! { " " <b data-testid=format!("set-{}-permitted", id.0)>{words}</b> })}
            </summary>
            <Work id/>
            <WriteModes id/>
            <Offers offers=offers/>
        </details>
    }
}

/// An order that is under way keeps its button, in its place, even where the state no longer offers it.
fn with_orders(offers: Vec<Offer>, orders: &[Operation]) -> Vec<Offer> {
    let mut left: Vec<Operation> = orders.to_vec();
    let mut shown: Vec<Offer> = Vec::new();
    for offer in offers {
        let same = left
            .iter()
            .position(|o| *o == offer.what)
            .or(left.iter().position(|o| stops(*o) == stops(offer.what)));
        match same {
            Some(i) => shown.push(Offer { what: left.remove(i), refused: None }),
            // A second start stands where the one that is under way stands.
            None if orders.iter().any(|o| !stops(*o) && !stops(offer.what)) => {}
            None => shown.push(offer),
        }
    }
    shown.extend(left.into_iter().map(|what| Offer { what, refused: None }));
    shown
}

/// Start, move and recover stand in the first place, stops in the second.
fn stops(what: Operation) -> bool {
    matches!(what, Operation::StopGroup { .. })
}

pub(crate) fn pending(about: impl Fn(Operation) -> bool) -> Vec<Operation> {
    let state = page().state;
    state.with(|s| s.orders.iter().filter(|o| o.pending() && about(o.what)).map(|o| o.what).collect())
}

#[component]
fn ServerActions(id: NodeId) -> impl IntoView {
    let page = page();
    let server = page.server(id);
    let name = move || server.with(|s| s.as_ref().map_or_else(String::new, |s| s.name.clone()));
    let about = move |what: Operation| {
        matches!(what, Operation::StopServer { server } | Operation::StartServer { server }
            | Operation::RecoverServer { server } if server == id)
    };
    let offers = Memo::new(move |_| {
        let offers = page.with(|_, view, _| {
            server.with(|s| s.as_ref().map_or(Vec::new(), |s| offer::for_server(view, s)))
        });
        with_orders(offers, &pending(about))
    });
    let heading = format!("actions-server-{}", id.0);

    view! {
        <section class="panel pad" aria-labelledby=heading>
            <h2 id=heading.clone()>{move || text::group_actions(page.lang.get(), &name())}</h2>
            <Offers offers=offers/>
        </section>
    }
}

#[component]
fn GroupActions() -> impl IntoView {
    let page = page();
    let chosen = Memo::new(move |_| page.chosen());
    let name = move || page.with(|_, _, names| chosen.get().map_or_else(String::new, |id| names.group(id)));
    let about = move |what: Operation| {
        matches!(what, Operation::StartGroup { group, .. } | Operation::StopGroup { group }
            | Operation::MoveGroup { group, .. } if Some(group) == chosen.get())
    };
    let offers = Memo::new(move |_| {
        let offers = page.with(|_, view, _| {
            let group = view.groups.iter().find(|g| Some(g.id) == chosen.get());
            group.map_or(Vec::new(), |g| offer::for_group(view, g))
        });
        with_orders(offers, &pending(about))
    });
    view! {
        <section class="panel pad group-actions" id="actions-group" tabindex="-1" aria-labelledby="actions-group-title">
            <h2 id="actions-group-title">{move || text::group_actions(page.lang.get(), &name())}</h2>
            {move || chosen.get().map(|id| view! { <Steps group=id/> })}
            <Offers offers=offers/>
        </section>
    }
}

/// The buttons by their place, so that one whose words change stays the same element.
#[component]
pub fn Offers(offers: Memo<Vec<Offer>>) -> impl IntoView {
    let page = page();
    view! {
        <Show when=move || offers.with(Vec::is_empty)>
            <p class="detail">{move || page.t(Label::NoActions)}</p>
        </Show>
        <div class="offers">
        <For each=move || offers.get() key=|offer| format!("{:?}", offer.what) let(first)>
            <Action offer=Signal::derive(move || {
                offers.with(|all| all.iter().find(|o| o.what == first.what).copied().unwrap_or(first))
            })/>
        </For>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::command::RefusalKind;
    use wire::ids::GroupId;

    const GROUP: GroupId = GroupId(1);
    const MOVE: Operation = Operation::MoveGroup { group: GROUP, to: NodeId(2) };
    const BACK: Operation = Operation::MoveGroup { group: GROUP, to: NodeId(1) };
    const STOP: Operation = Operation::StopGroup { group: GROUP };

    fn shown(offers: &[Operation], orders: &[Operation]) -> Vec<Operation> {
        let refused = Some(RefusalKind::Busy);
        let offers = offers.iter().map(|what| Offer { what: *what, refused }).collect();
        with_orders(offers, orders).iter().map(|o| o.what).collect()
    }

    #[test]
    fn a_pending_order_keeps_its_place() {
        assert_eq!(shown(&[MOVE, STOP], &[STOP]), [MOVE, STOP]);
        assert_eq!(shown(&[BACK, STOP], &[MOVE]), [MOVE, STOP], "the way back waits");
        assert_eq!(shown(&[], &[MOVE]), [MOVE]);
        let starts = NodeId::BOTH.map(|on| Operation::StartGroup { group: GROUP, on });
        assert_eq!(shown(&starts, &[starts[1]]), [starts[1]]);
        assert_eq!(shown(&starts, &[]), starts);
    }
}
