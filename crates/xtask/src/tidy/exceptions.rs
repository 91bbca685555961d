//! Limits of size, and the list of what is over them. The list may only shrink.
//!
//! A line of crates/xtask/tidy-exceptions.txt is `LINES PATH` for a file, `LINES PATH FUNCTION` for
//! a function. What grows past its line, or is not over the limit any more, is a finding.

use std::collections::BTreeMap;

use super::{File, Findings};

/// Lines, without the tests at the end.
const FILE_LINES_MAX: usize = 800;

/// Lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

const LIST: &str = "crates/xtask/tidy-exceptions.txt";

pub fn sizes(files: &[File], findings: &mut Findings) {
    let mut over = BTreeMap::new();
    let tests = test_modules(files);
    let is_test = |file: &File| {
        let of_test = |module: &String| file.path.starts_with(&format!("{module}/"));
        let module = file.path.trim_end_matches(".rs").to_owned();
        file.is_test() || tests.contains(&module) || tests.iter().any(of_test)
    };
    let measured = files
        .iter()
        .filter(|f| f.is_rust() && !f.is_generated() && !is_test(f));
    for file in measured {
        let lines: Vec<&str> = without_tests(&file.text);
        if lines.len() > FILE_LINES_MAX {
            over.insert(file.path.clone(), lines.len());
        }
        for (name, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                over.insert(format!("{} {name}", file.path), length);
            }
        }
    }
    let allowed = files.iter().find(|file| file.path == LIST);
    let allowed = allowed
        .map(|file| parse(&file.text, findings))
        .unwrap_or_default();
    for (what, lines) in &over {
        let limit = if what.contains(' ') {
            FUNCTION_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        match allowed.get(what) {
            Some(allowed) if lines <= allowed => {}
            Some(allowed) => findings.push(format!(
                "{what}: {lines} lines, more than the {allowed} that {LIST} allows"
            )),
            None => findings.push(format!(
                "{what}: {lines} lines, the limit is {limit}: split it"
            )),
        }
    }
    for what in allowed.keys().filter(|what| !over.contains_key(*what)) {
        findings.push(format!(
            "{LIST}: `{what}` is within the limit now: remove its line"
        ));
    }
}

fn parse(text: &str, findings: &mut Findings) -> BTreeMap<String, usize> {
    let mut allowed = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line
            .split_once(' ')
            .map(|(lines, what)| (lines.parse(), what))
        {
            Some((Ok(lines), what)) => drop(allowed.insert(what.to_owned(), lines)),
            _ => findings.push(format!("{LIST}: `{line}` is not LINES PATH [FUNCTION]")),
        }
    }
    allowed
}

/// The files that are declared as `#[cfg(test)] mod NAME;`, as paths without `.rs`.
fn test_modules(files: &[File]) -> Vec<String> {
    let mut modules = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let folder = file.path.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|root| folder.strip_suffix(root))
            .unwrap_or(folder);
        let lines: Vec<&str> = file.text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1]
                .rsplit("mod ")
                .next()
                .and_then(|name| name.strip_suffix(';'));
            modules.extend(name.map(|name| format!("{folder}/{name}")));
        }
    }
    modules
}

/// The lines before the test module at the end of a file.
fn without_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    lines[..tests.unwrap_or(lines.len())].to_vec()
}

/// Name and length of each function. Relies on rustfmt: a function ends at the first `}` that is
/// indented as its `fn` is.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", &line[..indent]);
        let body = lines[start..].iter();
        // A function without a body, as in a trait, ends with its first line that ends with `;`.
        let length = body.take_while(|line| **line != end).count() + 1;
        let bodyless = lines[start..]
            .iter()
            .find(|line| line.ends_with([';', '{', '}']));
        if bodyless.is_some_and(|line| line.ends_with('{')) {
            found.push((name.to_owned(), length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    for word in words.by_ref() {
        let before = ["const", "async", "unsafe", "extern"].contains(&word);
        match word {
            "fn" => break,
            _ if before || word.starts_with("pub") || word.starts_with('"') => {}
            _ => return None,
        }
    }
    let name = words.next()?;
    name.split(['(', '<']).next()
}
