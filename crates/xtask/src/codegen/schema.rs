//! Kafka's schema language, as much of it as its schemas use.
//!
//! Invariant after `parse`: every field has a version range, every struct a definition and the
//! range of versions in which it can appear; what is not understood is an error, never skipped.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A closed range of versions; empty when `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Versions {
    pub const NONE: Versions = Versions { min: 0, max: -1 };

    pub fn parse(text: &str) -> Result<Versions> {
        let number = |s: &str| {
            s.parse::<i16>()
                .with_context(|| format!("versions {text:?}"))
        };
        Ok(match text {
            "none" => Versions::NONE,
            _ if text.ends_with('+') => Versions {
                min: number(&text[..text.len() - 1])?,
                max: i16::MAX,
            },
            _ => match text.split_once('-') {
                Some((min, max)) => Versions {
                    min: number(min)?,
                    max: number(max)?,
                },
                None => Versions {
                    min: number(text)?,
                    max: number(text)?,
                },
            },
        })
    }

    pub fn is_empty(self) -> bool {
        self.min > self.max
    }

    pub fn intersect(self, other: Versions) -> Versions {
        let both = Versions {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        };
        if both.is_empty() {
            Versions::NONE
        } else {
            both
        }
    }

    /// The smallest range that holds both.
    pub fn hull(self, other: Versions) -> Versions {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Versions {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    pub fn contains(self, other: Versions) -> bool {
        other.is_empty() || (self.min <= other.min && self.max >= other.max)
    }

    pub fn holds(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Result<Type> {
        Ok(match text {
            "bool" => Type::Bool,
            "int8" => Type::Int8,
            "int16" => Type::Int16,
            "uint16" => Type::Uint16,
            "int32" => Type::Int32,
            "uint32" => Type::Uint32,
            "int64" => Type::Int64,
            "float64" => Type::Float64,
            "uuid" => Type::Uuid,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            _ => match text.strip_prefix("[]") {
                Some(element) => Type::Array(Box::new(Type::parse(element)?)),
                None => {
                    ensure!(
                        text.starts_with(char::is_uppercase),
                        "unknown type {text:?}"
                    );
                    Type::Struct(text.to_string())
                }
            },
        })
    }

    fn struct_name(&self) -> Option<&str> {
        match self {
            Type::Struct(name) => Some(name),
            Type::Array(element) => element.struct_name(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Versions,
    pub nullable: Versions,
    /// The tag and the versions in which the field is a tagged one.
    pub tagged: Option<(u32, Versions)>,
    pub ignorable: bool,
    /// The schema's own words; `None` if the schema states no default.
    pub default: Option<String>,
    /// Overrides the message's flexible versions (only RequestHeader.ClientId does).
    pub flexible: Option<Versions>,
}

#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Field>,
    /// Versions of the message in which this struct can appear.
    pub reach: Versions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// Headers and the messages that travel inside `bytes` fields and records.
    Data,
}

#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub kind: Kind,
    pub api_key: Option<i16>,
    pub valid: Versions,
    pub flexible: Versions,
    pub latest_version_unstable: bool,
    /// The message itself first, then its nested structs in order of appearance.
    pub structs: Vec<Struct>,
    pub origin: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSchema {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    api_key: Option<i16>,
    valid_versions: String,
    flexible_versions: String,
    #[serde(default)]
    latest_version_unstable: bool,
    #[serde(default, rename = "listeners")]
    _listeners: Value,
    fields: Vec<RawField>,
    #[serde(default)]
    common_structs: Vec<RawStruct>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawStruct {
    name: String,
    #[serde(rename = "versions")]
    _versions: String,
    #[serde(default, rename = "about")]
    _about: String,
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawField {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    versions: Option<String>,
    nullable_versions: Option<String>,
    tagged_versions: Option<String>,
    flexible_versions: Option<String>,
    tag: Option<u32>,
    #[serde(default)]
    ignorable: bool,
    // A JSON null is "no default stated", as in Kafka's own generator: an empty array or struct.
    default: Option<Value>,
    #[serde(default)]
    fields: Vec<RawField>,
    #[serde(default, rename = "about")]
    _about: String,
    #[serde(default, rename = "entityType")]
    _entity_type: Value,
    #[serde(default, rename = "mapKey")]
    _map_key: bool,
    #[serde(default, rename = "zeroCopy")]
    _zero_copy: bool,
}

/// `origin` says where the text came from; it ends up in the header of the generated file.
pub fn parse(text: &str, origin: String) -> Result<Schema> {
    let json: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let raw: RawSchema = serde_json::from_str(&json)?;
    let kind = match raw.kind.as_str() {
        "request" => Kind::Request,
        "response" => Kind::Response,
        "header" | "data" | "metadata" | "coordinator-key" | "coordinator-value" => Kind::Data,
        other => bail!("schema type {other:?}"),
    };
    let valid = Versions::parse(&raw.valid_versions)?;
    let mut structs = Vec::new();
    collect(&mut structs, &raw.name, &raw.fields)?;
    for common in &raw.common_structs {
        collect(&mut structs, &common.name, &common.fields)?;
    }
    reach(&mut structs, valid)?;
    Ok(Schema {
        name: raw.name,
        kind,
        api_key: raw.api_key,
        valid,
        flexible: Versions::parse(&raw.flexible_versions)?.intersect(valid),
        latest_version_unstable: raw.latest_version_unstable,
        structs,
        origin,
    })
}

fn collect(structs: &mut Vec<Struct>, name: &str, raw: &[RawField]) -> Result<()> {
    ensure!(
        structs.iter().all(|s| s.name != name),
        "struct {name} is defined twice"
    );
    let fields = raw.iter().map(field).collect::<Result<Vec<_>>>()?;
    structs.push(Struct {
        name: name.into(),
        fields: fields.clone(),
        reach: Versions::NONE,
    });
    for (field, raw) in fields.iter().zip(raw) {
        if !raw.fields.is_empty() {
            let nested = field
                .ty
                .struct_name()
                .context("fields on something not a struct")?;
            collect(structs, nested, &raw.fields)?;
        }
    }
    Ok(())
}

fn field(raw: &RawField) -> Result<Field> {
    let parse = |text: &Option<String>| text.as_deref().map(Versions::parse).transpose();
    let tagged = parse(&raw.tagged_versions)?;
    let versions = parse(&raw.versions)?.or(tagged).context("no versions")?;
    if let Some(tagged) = tagged {
        // Otherwise a field would be tagged in some versions and positional in others.
        ensure!(
            tagged == versions,
            "{}: tagged in part of its versions",
            raw.name
        );
    }
    ensure!(
        raw.tag.is_some() == tagged.is_some(),
        "{}: tag without versions",
        raw.name
    );
    let default = raw
        .default
        .as_ref()
        .filter(|v| !v.is_null())
        .map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
    Ok(Field {
        name: raw.name.clone(),
        ty: Type::parse(&raw.ty).with_context(|| raw.name.clone())?,
        versions,
        nullable: parse(&raw.nullable_versions)?.unwrap_or(Versions::NONE),
        tagged: raw.tag.zip(tagged),
        ignorable: raw.ignorable,
        default,
        flexible: parse(&raw.flexible_versions)?,
    })
}

/// Fills in `reach`: a struct appears where a field of its type does, in a struct that appears.
fn reach(structs: &mut [Struct], valid: Versions) -> Result<()> {
    let index: BTreeMap<String, usize> = structs
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.clone(), i))
        .collect();
    let mut queue = vec![(0, valid)];
    while let Some((at, versions)) = queue.pop() {
        structs[at].reach = structs[at].reach.hull(versions);
        let here = structs[at].reach;
        for field in structs[at].fields.clone() {
            if let Some(name) = field.ty.struct_name() {
                let to = *index
                    .get(name)
                    .with_context(|| format!("no struct {name}"))?;
                queue.push((to, field.versions.intersect(here)));
            }
        }
    }
    Ok(())
}
