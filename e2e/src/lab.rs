//! A running demo.
