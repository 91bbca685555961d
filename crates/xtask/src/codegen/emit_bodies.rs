//! The files that list the messages: `mod.rs`, `ApiKey`, and the macros over all of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::KAFKA_VERSION;
use super::emit::{header, snake};
use super::schema::{Kind, Schema};

/// "ProduceRequest" and "ProduceResponse" -> "Produce".
pub fn api_name(schema: &Schema) -> Result<&str> {
    let name = schema.name.as_str();
    name.strip_suffix("Request")
        .or(name.strip_suffix("Response"))
        .context("not an API's message")
}

fn origin() -> String {
    format!("the schemas of Kafka {KAFKA_VERSION}")
}

pub fn mod_file(schemas: &[Schema]) -> String {
    let mut out = header(&origin());
    out.push_str(
        "//! Kafka's messages: one module per schema, the message itself re-exported here.\n\n",
    );
    out.push_str("#![allow(clippy::field_reassign_with_default)]\n\n");
    out.push_str("mod api_key;\npub(crate) mod every;\n");
    for schema in schemas {
        out.push_str(&format!("pub mod {};\n", snake(&schema.name)));
    }
    out.push_str("\npub use crate::body::{RequestBody, ResponseBody};\npub use api_key::ApiKey;\n");
    for schema in schemas {
        out.push_str(&format!(
            "pub use {}::{};\n",
            snake(&schema.name),
            schema.name
        ));
    }
    out
}

struct Api<'a> {
    name: &'a str,
    request: &'a Schema,
    response: &'a Schema,
}

fn apis(schemas: &[Schema]) -> Result<BTreeMap<i16, Api<'_>>> {
    let mut apis = BTreeMap::new();
    for request in schemas.iter().filter(|s| s.kind == Kind::Request) {
        let name = api_name(request)?;
        let response = schemas
            .iter()
            .find(|s| s.kind == Kind::Response && s.api_key == request.api_key)
            .with_context(|| format!("{name} has no response"))?;
        ensure!(
            request.valid == response.valid,
            "{name}: request and response versions differ"
        );
        let key = request.api_key.context("request without key")?;
        ensure!(
            apis.insert(
                key,
                Api {
                    name,
                    request,
                    response
                }
            )
            .is_none(),
            "key {key} twice"
        );
    }
    Ok(apis)
}

pub fn api_key_file(schemas: &[Schema]) -> Result<String> {
    let apis = apis(schemas)?;
    let mut variants = String::new();
    let mut all = String::new();
    let mut names = String::new();
    let mut from = String::new();
    let mut versions = String::new();
    let mut flexible = String::new();
    for (
        key,
        Api {
            name,
            request,
            response,
        },
    ) in &apis
    {
        variants.push_str(&format!("{name} = {key},\n"));
        all.push_str(&format!("ApiKey::{name},\n"));
        names.push_str(&format!("ApiKey::{name} => \"{name}\",\n"));
        from.push_str(&format!("{key} => ApiKey::{name},\n"));
        let (min, max) = (request.valid.min, request.valid.max);
        versions.push_str(&format!("ApiKey::{name} => ({min}, {max}),\n"));
        ensure!(
            request.flexible == response.flexible,
            "{name}: flexible versions differ"
        );
        let first = request.flexible;
        let first = if first.is_empty() {
            "i16::MAX".into()
        } else {
            first.min.to_string()
        };
        flexible.push_str(&format!("ApiKey::{name} => {first},\n"));
    }
    Ok(header(&origin())
        + &format!(
            "/// The key of an API, as the first field of a request header has it.\n\
             #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n\
             #[repr(i16)]\npub enum ApiKey {{\n{variants}}}\n\n\
             impl ApiKey {{\n\
             /// Every API that has messages here, in order of key; what is served is another table.\n\
             pub const ALL: &[ApiKey] = &[\n{all}];\n\n\
             pub fn code(self) -> i16 {{\nself as i16\n}}\n\n\
             pub fn name(self) -> &'static str {{\nmatch self {{\n{names}}}\n}}\n\n\
             /// The versions that the schemas have: (min, max).\n\
             pub fn schema_versions(self) -> (i16, i16) {{\nmatch self {{\n{versions}}}\n}}\n\n\
             /// The first version with tagged fields and compact lengths, `i16::MAX` if none.\n\
             pub fn first_flexible_version(self) -> i16 {{\nmatch self {{\n{flexible}}}\n}}\n}}\n\n\
             impl TryFrom<i16> for ApiKey {{\ntype Error = i16;\n\n\
             /// The error is the unknown key itself.\n\
             fn try_from(key: i16) -> Result<ApiKey, i16> {{\nOk(match key {{\n{from}\
             unknown => return Err(unknown),\n}})\n}}\n}}\n"
        ))
}

/// Macros that hand every API, or every other message, to a macro of the caller.
pub fn every_file(schemas: &[Schema]) -> Result<String> {
    let mut out = header(&origin());
    out.push_str(
        "/// Calls `$callback!` with one `Name Request Response;` for each API.\n\
         macro_rules! for_every_api {\n($callback:ident) => {\n$callback! {\n",
    );
    for Api {
        name,
        request,
        response,
    } in apis(schemas)?.values()
    {
        out.push_str(&format!("{name} {} {};\n", request.name, response.name));
    }
    out.push_str(
        "}\n};\n}\npub(crate) use for_every_api;\n\n\
         /// Calls `$callback!` with one `Name;` for each message that is neither request nor response.\n\
         #[cfg(test)]\nmacro_rules! for_every_data {\n($callback:ident) => {\n$callback! {\n",
    );
    for schema in schemas.iter().filter(|s| s.kind == Kind::Data) {
        out.push_str(&format!("{};\n", schema.name));
    }
    out.push_str("}\n};\n}\n#[cfg(test)]\npub(crate) use for_every_data;\n");
    Ok(out)
}
