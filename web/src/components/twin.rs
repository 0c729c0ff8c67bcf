//! The twin picture: public LAN, the servers with their groups, and between them the links and the mirrors.
//!
//! It is also the list that a screen reader reads: server 1 with its groups, links, mirrors, server 2, in that order.

use crate::components::link::{LinkList, PublicLan};
use crate::components::mirror::Mirror;
use crate::components::server::Server;
use crate::components::witness::Witness;
use crate::page::page;
use leptos::prelude::*;
use wire::ids::{NodeId, SetId};
use wire::text::Label;

/// More groups than this are drawn in low rows that scroll inside the picture (VISUAL 4).
const TALL_ROWS_MAX: usize = 3;

/// The picture.
#[component]
pub fn Twin() -> impl IntoView {
    let page = page();
    let groups = page.groups();
    let class = move || if groups.with(Vec::len) > TALL_ROWS_MAX { "twin many" } else { "twin" };
    let rows = move || groups.with(Vec::len).max(1).to_string();
    // The first set stands for the row; a group's further sets follow it in the same place.
    let sets_of = move |group| {
        page.view.with(|v| {
            let sets: Vec<SetId> = v
                .as_ref()
                .map_or(Vec::new(), |v| v.sets.iter().filter(|s| s.group == group).map(|s| s.id).collect());
            sets
        })
    };
    view! {
        <section class=class data-testid="twin" aria-label=move || page.t(Label::Picture) style:--rows=rows>
            <PublicLan/>
            <Server id=NodeId(1)/>
            <div class="channel">
                <LinkList/>
                <For each=move || groups.get().into_iter().enumerate() key=|(i, id)| (*i, *id) let((i, id))>
                    <div class="mirror-row" style:--i=i.to_string()>
                        <For each=move || sets_of(id) key=|set| *set let(set)><Mirror id=set/></For>
                    </div>
                </For>
                <Witness/>
            </div>
            <Server id=NodeId(2)/>
        </section>
    }
}
