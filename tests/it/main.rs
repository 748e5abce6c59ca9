//! Tests on a real broker, one for all; each test has topics of its own.
mod bad_input;
mod consequences;
mod dashboard;
mod dedup;
mod fill;
mod kill_points;
mod kit;
mod load;
mod preflight;
mod raw;
mod restarts;
mod shapes;
mod sink;
mod stores;
mod time;
mod verify;
