//! Treering's load generator, as a library: the program is a command line around it.
//!
//! - [`cli`], [`plan`]: what is asked for, and what of it can be run;
//! - [`workload`], [`distribution`], [`random`], [`inserts`]: which operations, on which records, in which order;
//! - [`record`]: keys and values, computed from record numbers;
//! - [`target`]: the database, as narrow as it is needed;
//! - [`run`]: opens, loads, drives, closes;
//! - [`verify`]: holds every answer against what was written, across killed processes too;
//! - [`measure`], [`report`], [`progress`]: latencies, and how they are shown;
//! - [`demonstration`]: what runs without arguments.
//!
//! Absent: a distributed generator, and workloads with deletes.

#![deny(missing_docs)]

pub mod cli;
pub mod demonstration;
pub mod distribution;
pub mod inserts;
pub mod measure;
pub mod plan;
pub mod progress;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod stop;
pub mod target;
pub mod verify;
pub mod workload;
