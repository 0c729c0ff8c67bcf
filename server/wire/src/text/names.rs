//! Names for ids: what people call the servers, groups, links and mirror sets of a view.

use crate::ids::{GroupId, LinkId, NodeId, SetId};
use crate::text::Lang;
use crate::view::ClusterView;

/// Looks up names in one view. An id the view does not hold gets its plain number, never an empty place in a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(pub &'a ClusterView);

impl Names<'_> {
    /// A server's name.
    #[must_use]
    pub fn server(&self, id: NodeId) -> String {
        let found = self.0.servers.iter().find(|s| s.id == id);
        found.map_or_else(|| id.to_string(), |s| s.name.clone())
    }

    /// A group's name.
    #[must_use]
    pub fn group(&self, id: GroupId) -> String {
        let found = self.0.groups.iter().find(|g| g.id == id);
        found.map_or_else(|| id.to_string(), |g| g.name.clone())
    }

    /// A link's name.
    #[must_use]
    pub fn link(&self, id: LinkId) -> String {
        let found = self.0.links.iter().find(|l| l.id == id);
        found.map_or_else(|| id.to_string(), |l| l.name.clone())
    }

    /// A mirror set's name.
    #[must_use]
    pub fn set(&self, id: SetId) -> String {
        let found = self.0.sets.iter().find(|s| s.id == id);
        found.map_or_else(|| id.to_string(), |s| s.name.clone())
    }

    /// The names of some groups as one enumeration.
    #[must_use]
    pub fn groups(&self, ids: &[GroupId], lang: Lang) -> String {
        let names: Vec<String> = ids.iter().map(|id| self.group(*id)).collect();
        enumerate(&names, lang)
    }
}

/// Joins names as each language does: `a, b and c`, `a、b、c`.
pub(crate) fn enumerate(names: &[String], lang: Lang) -> String {
    match (lang, names) {
        (_, []) => String::new(),
        (_, [one]) => one.clone(),
        (Lang::Ja, _) => names.join("、"),
        (Lang::En, [first @ .., last]) => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_as_the_language_does() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(enumerate(&names, Lang::En), "a, b and c");
        assert_eq!(enumerate(&names[..2], Lang::En), "a and b");
        assert_eq!(enumerate(&names, Lang::Ja), "a、b、c");
        assert_eq!(enumerate(&[], Lang::Ja), "");
    }
}
