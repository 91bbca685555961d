//! Damaged files: while the broker is stopped, bits flip, files are cut, overwritten, extended or
//! removed, each kind of file, one to three at once. Then the broker starts, or refuses and says
//! which file it is and what to do; what was acknowledged and is undamaged is served; what is
//! damaged never passes for a record.
//!
//! Each case starts from a copy of one of two data directories that are made once: one after a
//! clean stop, one after SIGKILL. Which files are harmed, where and how follows from the case's seed
//! alone, and their content is the same in every run but for ids and times.

mod harm;
mod judge;
mod template;

use std::time::Instant;

use crash_campaign::process::{Broker, say};
use crash_campaign::random::Random;

use crate::Task;
use crate::report::Report;
use harm::Harm;
use judge::Intact;
use template::{SETTINGS, Template};

pub fn run(task: &Task) -> Report {
    let templates = [Template::make(task, true), Template::make(task, false)];
    let mut report = Report::default();
    let mut failed = 0;
    for case in 0..task.rounds {
        let seed = task.seed + u64::from(case);
        let template = &templates[(seed % 2) as usize];
        let broken = one_case(task, template, seed, &mut report);
        if let Some((what, said)) = broken {
            failed += 1;
            say(&format!("  {what}\n    {}", task.replay(1, seed)));
            say(&format!("    it said: {}", said.replace('\n', "\n      ")));
            if failed == 10 {
                break;
            }
        }
    }
    for template in templates {
        report.acknowledged += template.records();
    }
    report
}

/// Returns what is wrong in this case, and what the broker said.
fn one_case(
    task: &Task,
    template: &Template,
    seed: u64,
    report: &mut Report,
) -> Option<(String, String)> {
    let mut random = Random::new(seed);
    let dir = task.dir.join("case");
    let _ = std::fs::remove_dir_all(&dir);
    let data = dir.join("data");
    template.copy_to(&data);
    let harms = harm::choose(&data, &mut random);
    for harm in &harms {
        harm.inflict(&data);
        report.faults(harm.kind(), 1);
    }
    let mut broker = Broker::on(&task.binary, &data, &dir, &SETTINGS);
    let mut left = harms.clone();
    let verdict = start(&mut broker, template, &mut left, report).and_then(|intact| {
        judge::served(&mut broker, template, &left, &intact, &mut random, report)
    });
    let said = broker.tail();
    drop(broker);
    let what = verdict.err()?;
    let harms: Vec<String> = harms.iter().map(ToString::to_string).collect();
    let what = format!("{} after {}", what, harms.join("; "));
    report.broken.push(what.clone());
    Some((what, said))
}

/// Starts the broker. If it refuses, it has to name what is damaged; that is restored from the copy
/// (and taken out of `left`) before the next try. Returns which batches were intact then.
fn start(
    broker: &mut Broker,
    template: &Template,
    left: &mut Vec<Harm>,
    report: &mut Report,
) -> Result<Intact, String> {
    loop {
        let before = broker.said().len();
        let intact = judge::intact(template, broker.data());
        broker.spawn();
        let Err(why) = broker.wait_until_ready(Instant::now()) else {
            return Ok(intact);
        };
        if !why.starts_with("the broker ended with exit status: 1:") {
            return Err(format!("no orderly refusal: {}", first_line(&why)));
        }
        let said = broker.said().split_off(before);
        // Warnings are of what was found besides.
        let from_error = said.lines().skip_while(|line| !line.starts_with("error: "));
        let said = from_error.collect::<Vec<_>>().join("\n");
        let named: Vec<Harm> = left
            .iter()
            .filter(|harm| said.contains(&harm.file))
            .cloned()
            .collect();
        if named.is_empty() {
            return Err("refused, and none of the damaged files is named".to_owned());
        }
        let next_steps = [
            "Restore it",
            "take it away",
            "remove the file",
            "correct node.id",
        ];
        if !next_steps.iter().any(|words| said.contains(words)) {
            return Err("refused, and no next step is named".to_owned());
        }
        if let Some(harm) = named.iter().find(|harm| harm.can_be_rebuilt()) {
            return Err(format!("refused for {}, which can be rebuilt", harm.file));
        }
        report.fault("refused starts that named the file");
        for harm in &named {
            template.restore(&harm.file, broker.data());
        }
        left.retain(|harm| !named.iter().any(|named| named.file == harm.file));
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
