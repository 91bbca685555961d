//! What tests there are, read from the suite's own sources: the table in test.c, and the functions
//! of a test that begin its sub-tests.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// One entry of the suite's table of tests.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub name: String,
    /// What it wants of the broker: `default` (topics are made on demand) or `noautocreate`.
    pub scenario: String,
    pub needs_broker: bool,
    /// The suite leaves it out unless it is asked for such tests.
    pub known_issue: bool,
    /// It joins consumer groups, so that there are two protocols to try it with.
    pub subscribes: bool,
}

impl Test {
    pub fn number(&self) -> &str {
        self.name.split('_').next().unwrap_or_default()
    }
}

/// The tests that the suite's table names.
pub fn listed(dir: &Path) -> Result<Vec<Test>> {
    let table = std::fs::read_to_string(dir.join("test.c"))?;
    let mut tests = parse_table(&table)?;
    for (number, source) in sources(dir)? {
        if source.contains("subscribe(") {
            for test in tests.iter_mut().filter(|test| test.number() == number) {
                test.subscribes = true;
            }
        }
    }
    Ok(tests)
}

/// The functions of a test's source that begin a sub-test.
pub fn parts(dir: &Path, number: &str) -> Result<Vec<String>> {
    let sources = sources(dir)?.into_iter().filter(|(of, _)| of == number);
    let parts: Vec<String> = sources
        .flat_map(|(_, source)| parse_parts(&source))
        .collect();
    ensure!(!parts.is_empty(), "test {number} has no parts");
    Ok(parts)
}

/// The numbers of the tests' source files (NUMBER-NAME.c or .cpp) and what they hold.
fn sources(dir: &Path) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_source = name.ends_with(".c") || name.ends_with(".cpp");
        if let Some((number, _)) = name.split_once('-').filter(|_| is_source) {
            sources.push((number.to_owned(), std::fs::read_to_string(&path)?));
        }
    }
    Ok(sources)
}

fn parse_parts(source: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut function = "";
    for line in source.lines() {
        let indented = line.starts_with(char::is_whitespace);
        if let Some((name, _)) = line.split_once('(').filter(|_| !indented) {
            function = name.rsplit(' ').next().unwrap_or_default();
        }
        let begins = ["SUB_TEST(", "SUB_TEST_QUICK("];
        let begins = begins
            .iter()
            .any(|begin| line.trim_start().starts_with(begin));
        if begins && parts.last().is_none_or(|part| part != function) {
            parts.push(function.to_owned());
        }
    }
    parts
}

/// Entries look like `_TEST(0107_topic_recreate, FLAGS, ..., .scenario = "noautocreate")`.
fn parse_table(text: &str) -> Result<Vec<Test>> {
    let start = text
        .find("struct test tests[] = {")
        .context("test.c has no table of tests")?;
    let table = &text[start..];
    let table = &table[..table.find("{NULL}").context("its table does not end")?];
    let entries = table.split("_TEST(").skip(1);
    let tests = entries.map(|entry| {
        let name = entry.split([',', ')']).next().unwrap_or_default().trim();
        let scenario = entry.split(".scenario = \"").nth(1);
        let scenario = scenario.and_then(|rest| rest.split('"').next());
        let local = ["TEST_F_LOCAL", "TEST_F_MANUAL"]
            .iter()
            .any(|flag| entry.contains(flag));
        Test {
            name: name.to_owned(),
            scenario: scenario.unwrap_or("default").to_owned(),
            needs_broker: !local && !name.contains("_mock"),
            // Not the flags for other systems, whose names go on.
            known_issue: ["TEST_F_KNOWN_ISSUE,", "TEST_F_KNOWN_ISSUE)"]
                .iter()
                .any(|flag| entry.contains(flag)),
            subscribes: false,
        }
    });
    Ok(tests.collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_tests_is_read() {
        let table = r#"struct test tests[] = {
            _TEST(0000_unit, TEST_F_LOCAL, _THRES(.ucpu = 1)),
            _TEST(0028_long, TEST_F_KNOWN_ISSUE, .extra = "x"),
            _TEST(0055_latency, TEST_F_KNOWN_ISSUE_WIN32),
            _TEST(0107_recreate, 0, .scenario = "noautocreate"),
            _TEST(0139_validation_mock, 0),
            {NULL}};"#;
        let tests = super::parse_table(table).unwrap();
        let seen: Vec<_> = tests
            .iter()
            .map(|t| {
                (
                    t.name.as_str(),
                    t.needs_broker,
                    t.known_issue,
                    t.scenario.as_str(),
                )
            })
            .collect();
        let want = [
            ("0000_unit", false, false, "default"),
            ("0028_long", true, true, "default"),
            ("0055_latency", true, false, "default"),
            ("0107_recreate", true, false, "noautocreate"),
            ("0139_validation_mock", false, false, "default"),
        ];
        assert_eq!(seen, want);
        assert!(super::parse_table("int main;").is_err());
    }

    #[test]
    fn the_parts_of_a_test_are_its_functions_with_a_sub_test() {
        let source = "static void do_a(const char *what,\n                 int x) {\n        \
                      call(x);\n        SUB_TEST_QUICK(\"%s\", what);\n        \
                      SUB_TEST_SKIP(\"no\");\n}\nstatic void\nother(int y) {\n}\n\
                      do_b(void) {\n        SUB_TEST();\n        SUB_TEST_PASS();\n}\n";
        assert_eq!(super::parse_parts(source), ["do_a", "do_b"]);
    }
}
