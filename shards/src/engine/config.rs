//! Settings of the engine: parsed and checked by whoever starts it.

/// Everything the engine can be told. Immutable; replaced as a whole between turns.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {}
