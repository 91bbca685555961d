//! The page that tells users what is served tells what is served.

use oncelog_wire::apis;

const PAGE: &str = include_str!("../../../../docs/kafka-compatibility.md");

#[test]
fn the_table_of_the_page_is_the_table_of_the_code() {
    let told: Vec<(i16, String, String)> = PAGE
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let key: i16 = cells.next()?.parse().ok()?;
            Some((key, cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let served: Vec<(i16, String, String)> = apis::SERVED
        .iter()
        .map(|row| {
            let versions = format!("{}-{}", row.min_version, row.max_version);
            (row.key.code(), row.key.name().to_owned(), versions)
        })
        .collect();
    assert_eq!(told, served, "docs/kafka-compatibility.md, the first table");
}
