//! What our users would otherwise take, each set up as its documentation recommends.
//!
//! All have stampede protection on and promote what they find in L2, as we do; where a codec can
//! be chosen it is bincode. Their L1 is bounded by entries, because none bounds it by bytes in the
//! set-up that it documents.

pub mod cachet;
pub mod hitbox;
pub mod multi_tier;
pub mod tower_rate_limit;
pub mod trypema;
