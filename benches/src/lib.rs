//! Part of Treering; see docs/ARCHITECTURE.md.
