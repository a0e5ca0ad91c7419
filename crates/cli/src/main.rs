//! `strongroom`: the admin's command line. What it does, it does through the broker like any other
//! client; only `init`, `audit verify`, `audit convert`, `audit verify-proof`, `witness` and
//! `completions` need none.

mod amounts;
mod args;
mod audit_check_rows;
mod audit_convert;
mod audit_explain;
mod audit_export;
mod audit_list;
mod audit_policies;
mod audit_prove;
mod audit_prune;
mod audit_search;
mod audit_tail;
mod audit_tiles;
mod audit_verify;
mod audit_who_used;
mod budget_views;
mod budgets;
mod config;
mod context;
mod credentials;
mod csv;
mod erasure;
mod expiry;
mod failure;
mod files;
mod identities;
mod init;
mod keys;
mod kms;
mod leases;
mod loans;
mod moment;
mod names;
mod output;
mod people;
mod prices;
mod reconcile;
mod rotation;
mod route;
mod secret_input;
mod tenants;
mod usage;
mod views;
mod witness;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Args, failure::Failure, output::Output};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    let output = Output::new(args.json);
    match run(args, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(&failure),
    }
}

fn run(args: Args, output: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(args.run(output))
}
