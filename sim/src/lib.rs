//! Deterministic simulator of whole Shoal clusters.
