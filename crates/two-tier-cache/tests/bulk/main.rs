//! Many keys at once.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/counted.rs"]
mod counted;

mod cost;
mod races;
mod shape;
mod support;
mod warm;
mod write;
