//! The silhouettes of states, drawn on a 24 grid (VISUAL 3): each differs from the others without any colour.

/// A silhouette.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Normal, in order.
    Disc,
    /// Stopped, standby.
    Square,
    /// Down, lost, failed, broken.
    Octagon,
    /// Restarted after down.
    BrokenRing,
    /// Works, but a person should look.
    Triangle,
    /// A group that runs.
    Play,
    /// Held: a person must decide.
    Hexagon,
    /// In sync.
    Equal,
    /// In sync, and both copies are compared.
    RingEqual,
    /// Stands still by order.
    Paused,
    /// One good copy, on the left.
    HalfLeft,
    /// One good copy, on the right.
    HalfRight,
    /// Towards server 1.
    ArrowLeft,
    /// Towards server 2.
    ArrowRight,
    /// Coming up.
    ArrowUp,
    /// Going down.
    ArrowDown,
    /// Both sides changed.
    Split,
    /// A plain record, or a step that is done.
    RingDot,
    /// A step to come.
    Ring,
    /// Stale or unknown.
    Unknown,
}

/// A home-plate block whose tip points to the left.
const PLATE: &str = r#"<path d="M2 12 8.6 5.2H22v13.6H8.6Z" fill="currentColor" stroke="currentColor" stroke-width="1.2" stroke-linejoin="round"/>"#;

impl Shape {
    /// All of them, for the test that they differ.
    #[cfg(test)]
    pub const ALL: [Shape; 20] = [
        Shape::Disc,
        Shape::Square,
        Shape::Octagon,
        Shape::BrokenRing,
        Shape::Triangle,
        Shape::Play,
        Shape::Hexagon,
        Shape::Equal,
        Shape::RingEqual,
        Shape::Paused,
        Shape::HalfLeft,
        Shape::HalfRight,
        Shape::ArrowLeft,
        Shape::ArrowRight,
        Shape::ArrowUp,
        Shape::ArrowDown,
        Shape::Split,
        Shape::RingDot,
        Shape::Ring,
        Shape::Unknown,
    ];

    /// Its drawing: what stands inside an `svg` of 24 by 24. The class `glyph` is drawn in `onstate`.
    #[must_use]
    pub fn drawing(self) -> String {
        let turned = |degrees: u16| format!(r#"<g transform="rotate({degrees} 12 12)">{PLATE}</g>"#);
        match self {
            Shape::Disc => r#"<circle cx="12" cy="12" r="10" fill="currentColor"/>"#.to_owned(),
            Shape::Square => r#"<rect x="4" y="4" width="16" height="16" rx="2" fill="none" stroke="currentColor" stroke-width="2.2"/>"#.to_owned(),
            Shape::Octagon => r#"<path d="M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9Z" fill="currentColor" stroke="currentColor" stroke-width="1" stroke-linejoin="round"/><path class="glyph" d="m8.4 8.4 7.2 7.2m0-7.2-7.2 7.2" fill="none" stroke-width="2.6" stroke-linecap="round"/>"#.to_owned(),
            Shape::BrokenRing => r#"<circle cx="12" cy="12" r="9.7" fill="none" stroke="currentColor" stroke-width="2.4" stroke-dasharray="4.6 3.02"/><circle cx="12" cy="12" r="5.4" fill="currentColor"/>"#.to_owned(),
            Shape::Triangle => r#"<path d="M12 3 22 20.6H2Z" fill="currentColor" stroke="currentColor" stroke-width="2.4" stroke-linejoin="round"/><path class="glyph" d="M12 8.6v5.6M12 17.8v.1" fill="none" stroke-width="2.6" stroke-linecap="round"/>"#.to_owned(),
            Shape::Play => r#"<circle cx="12" cy="12" r="10" fill="currentColor"/><path class="glyph-fill" d="M9.4 7.3 17 12l-7.6 4.7Z"/>"#.to_owned(),
            Shape::Hexagon => r#"<path d="M7 2.8h10L22.3 12 17 21.2H7L1.7 12Z" fill="currentColor" stroke="currentColor" stroke-width="1" stroke-linejoin="round"/><path class="glyph" d="M9.5 8v8m5-8v8" fill="none" stroke-width="2.6" stroke-linecap="round"/>"#.to_owned(),
            Shape::Equal => r#"<circle cx="12" cy="12" r="10" fill="currentColor"/><path class="glyph" d="M7.6 9.7h8.8m-8.8 4.6h8.8" fill="none" stroke-width="2.4" stroke-linecap="round"/>"#.to_owned(),
            Shape::RingEqual => r#"<circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/><path d="M8 9.7h8m-8 4.6h8" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/>"#.to_owned(),
            Shape::Paused => r#"<path d="M5.5 3h4.4v18H5.5Zm8.6 0h4.4v18h-4.4Z" fill="currentColor" stroke="currentColor" stroke-width="1" stroke-linejoin="round"/>"#.to_owned(),
            Shape::HalfLeft => r#"<circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/><path d="M12 3a9 9 0 0 0 0 18Z" fill="currentColor"/>"#.to_owned(),
            Shape::HalfRight => r#"<circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/><path d="M12 3a9 9 0 0 1 0 18Z" fill="currentColor"/>"#.to_owned(),
            Shape::ArrowLeft => PLATE.to_owned(),
            Shape::ArrowRight => turned(180),
            Shape::ArrowUp => turned(90),
            Shape::ArrowDown => turned(270),
            Shape::Split => r#"<path d="M10.4 4v16L1.6 12Zm3.2 0v16l8.8-8Z" fill="currentColor" stroke="currentColor" stroke-width="1" stroke-linejoin="round"/>"#.to_owned(),
            Shape::RingDot => r#"<circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/><circle cx="12" cy="12" r="4.4" fill="currentColor"/>"#.to_owned(),
            Shape::Ring => r#"<circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/>"#.to_owned(),
            Shape::Unknown => r#"<circle cx="12" cy="12" r="10" fill="none" stroke="currentColor" stroke-width="1.9" stroke-dasharray="3.6 2.68"/><path d="M8.9 9.4c.2-1.9 1.5-3 3.2-3 1.8 0 3.1 1.1 3.1 2.8 0 2.4-3 2.4-3 4.8M12.1 17.4v.1" fill="none" stroke="currentColor" stroke-width="2.3" stroke-linecap="round"/>"#.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silhouettes_differ_and_carry_no_colour_or_style() {
        for (i, shape) in Shape::ALL.iter().enumerate() {
            let drawing = shape.drawing();
            assert!(!drawing.contains('#') && !drawing.contains("style="), "{shape:?}");
            assert!(Shape::ALL[..i].iter().all(|other| other.drawing() != drawing), "{shape:?}");
        }
    }
}
