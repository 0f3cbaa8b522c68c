//! What a platform team takes from us: the chart, `deploy`, alerts, dashboard, health, traces. Each is held
//! against the program that will read it: helm, kubectl and a real API server, promtool and Prometheus, Lua.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod api_server;
mod copies;
mod dashboard;
mod health;
mod render;
mod rules;
mod support;
mod traces;
