//! End-to-end tests: the real binary against the lab's real servers, nothing mocked.
//!
//! `cargo xtask test` boots the lab `e2e`, names the binary in `RECONCILE_BIN` and runs these one
//! after the other in order of their names. Each brings the servers into the state that it needs,
//! so each can be run alone; in order they need few resets. Everything is awaited by its
//! condition with a deadline, never by a pause.
//!
//! Settings: `RECONCILE_BIN`, `RECONCILE_PACKAGE` (of that binary), `RECONCILE_LAB`, `RECONCILE_FIGURES` (a file to keep what was measured
//! in), and how often or how much: `RECONCILE_KILLS`, `RECONCILE_SEED`, `RECONCILE_SWITCHOVERS`,
//! `RECONCILE_POWER_CUTS`, `RECONCILE_FAULTS`, `RECONCILE_PASSES`, `RECONCILE_PUSHES`; `cargo xtask soak` sets them high.

#![expect(clippy::print_stdout, reason = "the figures measured are half of what the suite is for")]

mod harness;
mod t10_bare_to_serving;
mod t11_client_views;
mod t12_data_path;
mod t14_drift;
mod t15_events;
mod t16_page;
mod t17_rolling;
mod t18_one_operator;
mod t19_terminal;
mod t20_killed_anywhere;
mod t21_two_operators;
mod t22_access;
mod t23_packages;
mod t24_rollout;
mod t30_strangers;
mod t31_bad_hosts;
mod t40_no_docker;
mod t41_worker;
mod t42_lab;
mod t43_package;
mod t50_switchover_under_load;
mod t51_power_cut;
mod t52_faults;
mod t53_calm;
mod t54_git;
mod t55_git_hosts;
mod t56_operator_service;
mod t57_frozen;
mod t60_topology;
