//! Tests on a real broker, one for all; each test has topics of its own.
mod bad_input;
mod dashboard;
mod dedup;
mod fill;
mod gaps;
mod kill_points;
mod kit;
mod load;
mod observe;
mod pace;
pub mod raw;
mod restarts;
mod secure;
mod shapes;
mod sink;
mod stores;
mod time;
mod verify;
