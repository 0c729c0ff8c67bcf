//! A state's silhouette in its colour; the word always stands beside it (VISUAL 5).

use crate::look::Look;
use leptos::prelude::*;

/// The silhouette. `size`: one of the classes `s60 s56 s24 s20 s16 s13` of the style sheet.
#[component]
pub fn Sign(#[prop(into)] look: Signal<Look>, size: &'static str) -> impl IntoView {
    let class = move || format!("sign {size} tone-{}", look.get().tone.name());
    view! {
        <svg class=class viewBox="0 0 24 24" aria-hidden="true" focusable="false" inner_html=move || look.get().shape.drawing()></svg>
    }
}
