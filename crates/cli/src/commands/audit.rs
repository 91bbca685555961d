//! `oncelog audit`: compares what a source committed with what a target holds.

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::audit::{Audit, Place, Report, rows};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::print_json;

/// Compare the events that a database committed with the rows another one holds: lost, duplicated, reordered
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Both sides are read whole, and the ids of the source are held in memory (about 100 bytes each). \
Events that are still under way count as lost: wait until the relay and the sink have caught up.

Example:
  oncelog audit --source postgresql://shop@localhost/shop --source-table orders \\
      --source-id event_id --source-key customer --source-order id \\
      --target sqlite:warehouse.db --target-table received --target-id event_id \\
      --target-key customer --target-order arrival")]
pub struct Args {
    /// The database that events come from: postgresql://…, mysql://…, mariadb://… or sqlite:PATH
    #[arg(long, value_name = "URL")]
    source: String,
    #[arg(long, value_name = "TABLE")]
    source_table: String,
    /// Its column with the event's id
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    source_id: String,
    /// Its column with the aggregate, within which order counts; all rows together without it
    #[arg(long, value_name = "COLUMN", requires = "target_key")]
    source_key: Option<String>,
    /// Its column that rows are in order of
    #[arg(long, value_name = "COLUMN", default_value = "seq")]
    source_order: String,

    /// The database that events go to
    #[arg(long, value_name = "URL")]
    target: String,
    #[arg(long, value_name = "TABLE")]
    target_table: String,
    #[arg(long, value_name = "COLUMN", default_value = "event_id")]
    target_id: String,
    #[arg(long, value_name = "COLUMN", requires = "source_key")]
    target_key: Option<String>,
    /// Its column that grows with every row that arrives
    #[arg(long, value_name = "COLUMN", default_value = "seq")]
    target_order: String,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let source = Place {
        database: args.source.clone(),
        table: args.source_table.clone(),
        id: args.source_id.clone(),
        key: args.source_key.clone(),
        order: args.source_order.clone(),
    };
    let target = Place {
        database: args.target.clone(),
        table: args.target_table.clone(),
        id: args.target_id.clone(),
        key: args.target_key.clone(),
        order: args.target_order.clone(),
    };
    let report = compare(&source, &target)?;
    if options.json() {
        print_json(&report.to_json())?;
    } else {
        print(&report);
    }
    if report.is_exact() {
        return Ok(());
    }
    Err(Failure::refused("source and target differ").into())
}

pub fn compare(source: &Place, target: &Place) -> Result<Report, Failure> {
    let failed = |why: String| Failure::refused("the two cannot be compared").why(why);
    let mut audit = Audit::default();
    rows(source, &mut |row| audit.committed(row)).map_err(failed)?;
    rows(target, &mut |row| {
        audit.arrived(row);
        Ok(())
    })
    .map_err(failed)?;
    Ok(audit.report())
}

fn print(report: &Report) {
    for (name, count) in [
        ("committed", report.committed),
        ("delivered", report.delivered),
        ("lost", report.lost),
        ("duplicated", report.duplicated),
        ("reordered", report.reordered),
        ("phantom", report.phantom),
    ] {
        println!("{name:<11} {count:>12}");
    }
    for example in &report.examples {
        println!("  {example}");
    }
}
