//! What every component needs: the state from the feed, language, colours, and what the person has selected.

use crate::api::Session;
use crate::browser;
use crate::look::{self, Look};
use crate::state::{Order, PageState};
use leptos::prelude::*;
use wire::command::Operation;
use wire::ids::{GroupId, LinkId, NodeId, SetId, WallClock};
use wire::text::{self, Label, Lang, Names};
use wire::view::{ClusterView, GroupView, LinkView, ServerView, SetView};

/// Light or dark; the system decides until the person has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// The page's signals. Copied into every component.
#[derive(Clone, Copy)]
pub struct Page {
    /// From the feed.
    pub state: RwSignal<PageState>,
    /// The last view: a signal, not a memo of `state`. An effect that reads a row (a memo) and then what the row is made
    /// from misses a change when that is a memo too and the row stays equal (reactive_graph 0.2).
    pub view: RwSignal<Option<ClusterView>>,
    /// The page's clock, twice a second.
    pub now: RwSignal<u64>,
    /// What is shown is old.
    pub stale: Memo<bool>,
    /// Wait between two tries to connect.
    pub retry_ms: RwSignal<u64>,
    /// Whose browser this is; `None` until the server has said so.
    pub session: RwSignal<Option<Session>>,
    /// Language of the page.
    pub lang: RwSignal<Lang>,
    /// Colours of the page.
    pub theme: RwSignal<Theme>,
    /// The group the keys act on.
    pub selected: RwSignal<Option<GroupId>>,
    /// The operation whose effect is being explained before it is ordered.
    pub asking: RwSignal<Option<Operation>>,
    /// Minutes the reader's clock is ahead of UTC.
    pub east: i32,
}

impl Page {
    /// A page that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let state = RwSignal::new(PageState::default());
        let now = RwSignal::new(browser::now_ms());
        let theme = match browser::remembered("theme").as_deref() {
            Some("dark") => Theme::Dark,
            Some("light") => Theme::Light,
            _ if browser::prefers_dark() => Theme::Dark,
            _ => Theme::Light,
        };
        Page {
            state,
            view: RwSignal::new(None),
            now,
            stale: Memo::new(move |_| state.with(|s| s.stale(now.get()))),
            retry_ms: RwSignal::new(crate::state::RETRY_FIRST_MS),
            session: RwSignal::new(None),
            lang: RwSignal::new(browser::language()),
            theme: RwSignal::new(theme),
            selected: RwSignal::new(None),
            asking: RwSignal::new(None),
            east: browser::minutes_east(),
        }
    }

    /// Changes the state, and the view with it.
    pub fn change<T>(&self, change: impl FnOnce(&mut PageState) -> T) -> Option<T> {
        let done = self.state.try_update(change);
        let view = self.state.with_untracked(|s| s.view.clone());
        if self.view.with_untracked(|v| *v != view) {
            self.view.set(view);
        }
        done
    }

    /// A fixed text in the page's language.
    #[must_use]
    pub fn t(&self, label: Label) -> &'static str {
        text::label(self.lang.get(), label)
    }

    /// Something of the view, with names at hand; the default while there is no view.
    pub fn with<T: Default>(&self, read: impl FnOnce(Lang, &ClusterView, Names<'_>) -> T) -> T {
        let lang = self.lang.get();
        self.view.with(|view| view.as_ref().map_or_else(T::default, |v| read(lang, v, Names(v))))
    }

    /// The server's clock at the last data.
    #[must_use]
    pub fn at(&self) -> WallClock {
        self.view.with(|v| v.as_ref().map_or(WallClock(0), |v| v.at))
    }

    /// A state's look, or that of old data.
    #[must_use]
    pub fn look(&self, look: Look) -> Look {
        if self.stale.get() { look::STALE } else { look }
    }

    /// A state's word, or what it was when the data is old.
    #[must_use]
    pub fn word(&self, word: String) -> String {
        if self.stale.get() { text::was(self.lang.get(), &word) } else { word }
    }

    /// A server's row.
    #[must_use]
    pub fn server(&self, id: NodeId) -> Memo<Option<ServerView>> {
        let view = self.view;
        Memo::new(move |_| view.with(|v| v.as_ref()?.servers.iter().find(|s| s.id == id).cloned()))
    }

    /// A link's row.
    #[must_use]
    pub fn link(&self, id: LinkId) -> Memo<Option<LinkView>> {
        let view = self.view;
        Memo::new(move |_| view.with(|v| v.as_ref()?.links.iter().find(|l| l.id == id).cloned()))
    }

    /// A group's row.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Memo<Option<GroupView>> {
        let view = self.view;
        Memo::new(move |_| view.with(|v| v.as_ref()?.groups.iter().find(|g| g.id == id).cloned()))
    }

    /// A mirror set's row.
    #[must_use]
    pub fn set(&self, id: SetId) -> Memo<Option<SetView>> {
        let view = self.view;
        Memo::new(move |_| view.with(|v| v.as_ref()?.sets.iter().find(|s| s.id == id).cloned()))
    }

    /// The groups in the order of their ids.
    #[must_use]
    pub fn groups(&self) -> Memo<Vec<GroupId>> {
        let view = self.view;
        Memo::new(move |_| {
            view.with(|v| v.as_ref().map_or(Vec::new(), |v| v.groups.iter().map(|g| g.id).collect()))
        })
    }

    /// The selected group, or the first one.
    #[must_use]
    pub fn chosen(&self) -> Option<GroupId> {
        let wanted = self.selected.get();
        self.view.with(|v| {
            let groups = &v.as_ref()?.groups;
            groups.iter().find(|g| Some(g.id) == wanted).or(groups.first()).map(|g| g.id)
        })
    }

    /// The order kept for an operation.
    #[must_use]
    pub fn order(&self, what: Operation) -> Option<Order> {
        self.state.with(|s| s.order_for(what))
    }
}

/// The page's signals, from any component.
#[must_use]
pub fn page() -> Page {
    expect_context()
}
