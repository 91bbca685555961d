//! One struct of a schema -> definition, Default, decode, encode, and a generator for tests.

use anyhow::{Context as _, Result, ensure};

use super::emit::{Condition, Context, condition, field_name, is_option, rust_type, when};
use super::schema::{Field, Kind, Struct, Type, Versions};

pub fn definition(context: &Context) -> Result<String> {
    let item = context.item;
    let rusts = item
        .fields
        .iter()
        .map(default_is_rusts)
        .collect::<Result<Vec<_>>>()?;
    let derive_default = rusts.iter().all(|rust| *rust);
    let mut out = format!(
        "#[derive(Clone, Debug, {}PartialEq)]\npub struct {} {{\n",
        if derive_default { "Default, " } else { "" },
        item.name
    );
    for field in &item.fields {
        out.push_str(&describe(context, field));
        let ty = rust_type(&field.ty);
        let ty = if is_option(field) {
            format!("Option<{ty}>")
        } else {
            ty
        };
        out.push_str(&format!("pub {}: {ty},\n", field_name(&field.name)));
    }
    if !context.flexible().is_empty() {
        out.push_str("pub unknown_tagged_fields: Vec<RawTaggedField>,\n");
    }
    out.push_str("}\n");
    if !derive_default {
        out.push_str(&default_impl(context)?);
    }
    Ok(out)
}

fn default_impl(context: &Context) -> Result<String> {
    let item = context.item;
    let mut out = format!(
        "\nimpl Default for {} {{\nfn default() -> Self {{\nSelf {{\n",
        item.name
    );
    for field in &item.fields {
        out.push_str(&format!(
            "{}: {},\n",
            field_name(&field.name),
            default_value(field)?
        ));
    }
    if !context.flexible().is_empty() {
        out.push_str("unknown_tagged_fields: Vec::new(),\n");
    }
    out.push_str("}\n}\n}\n");
    Ok(out)
}

/// A line of documentation, if there is something to say that the type does not.
fn describe(context: &Context, field: &Field) -> String {
    let reach = context.item.reach;
    let range = |versions: Versions| {
        let versions = versions.intersect(reach);
        match (versions.min, versions.max) {
            (min, max) if min == max => format!("{min}"),
            (min, max) if max >= reach.max => format!("{min}+"),
            (min, max) => format!("{min}-{max}"),
        }
    };
    let mut parts = Vec::new();
    if !field.versions.contains(reach) {
        let text = range(field.versions);
        let noun = if text.parse::<i16>().is_ok() {
            "version"
        } else {
            "versions"
        };
        parts.push(format!("{noun} {text}"));
    }
    if is_option(field) && !field.nullable.contains(field.versions.intersect(reach)) {
        parts.push(format!("nullable in {}", range(field.nullable)));
    }
    if let Some((tag, _)) = field.tagged {
        parts.push(format!("tag {tag}"));
    }
    if let Some(default) = field
        .default
        .as_deref()
        .filter(|d| !["null", "", "0", "false"].contains(d))
    {
        parts.push(format!("default {default}"));
    }
    if parts.is_empty() {
        return String::new();
    }
    let text = parts.join(", ");
    format!("/// {}{}.\n", text[..1].to_uppercase(), &text[1..])
}

/// The implementation of the message itself: constants, and the two public methods.
pub fn message_impl(context: &Context) -> Result<String> {
    let schema = context.schema;
    let name = &context.item.name;
    let mut out = format!("\nimpl {name} {{\n");
    match (schema.kind, schema.api_key) {
        (Kind::Data, Some(key)) => out.push_str(&format!("pub const API_KEY: i16 = {key};\n")),
        (Kind::Data, None) => {}
        (Kind::Request | Kind::Response, _) => {
            let api = super::emit_bodies::api_name(schema)?;
            out.push_str(&format!("pub const API_KEY: ApiKey = ApiKey::{api};\n"));
        }
    }
    out.push_str(&format!(
        "pub const MIN_VERSION: i16 = {};\npub const MAX_VERSION: i16 = {};\n\
         pub const LATEST_VERSION_UNSTABLE: bool = {};\n\n",
        schema.valid.min, schema.valid.max, schema.latest_version_unstable
    ));
    let check = "check_version(version, Self::MIN_VERSION, Self::MAX_VERSION)";
    out.push_str(&format!(
        "pub fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {{\nr.{check}?;\n{}}}\n\n",
        decode_body(context)?
    ));
    out.push_str(&format!(
        "pub fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {{\nw.{check}?;\n{}}}\n",
        encode_body(context)?
    ));
    out.push_str("}\n");
    Ok(out)
}

/// The implementation of a nested struct, reached only through its message.
pub fn nested_impl(context: &Context) -> Result<String> {
    let decode = decode_body(context)?;
    let encode = encode_body(context)?;
    let min_size = min_size_body(context)?;
    let parameter = |body: &str| if uses_version(body) { "version" } else { "_" };
    Ok(format!(
        "\nimpl Nested for {} {{\n\
         fn min_size({}: i16) -> usize {{\n{min_size}}}\n\n\
         fn decode(r: &mut Reader, {}: i16) -> Result<Self, DecodeError> {{\n{decode}}}\n\n\
         fn encode(&self, w: &mut Writer, {}: i16) -> Result<(), EncodeError> {{\n{encode}}}\n}}\n",
        context.item.name,
        parameter(&min_size),
        parameter(&decode),
        parameter(&encode),
    ))
}

/// Whether a body names its parameter `version` (and not a field, or part of a longer name).
fn uses_version(body: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    body.match_indices("version").any(|(at, word)| {
        let before = body[..at].chars().next_back();
        let after = body[at + word.len()..].chars().next();
        !before.is_some_and(|c| part_of_name(c) || c == '.') && !after.is_some_and(part_of_name)
    })
}

fn decode_body(context: &Context) -> Result<String> {
    let item = context.item;
    let mut body = String::new();
    for field in item.fields.iter().filter(|f| f.tagged.is_none()) {
        let present = condition(field.versions, item.reach);
        let assign = format!(
            "this.{} = {};\n",
            field_name(&field.name),
            read(context, field)?
        );
        body.push_str(&when(&present, &assign, ""));
    }
    let mut arms = String::new();
    for field in &item.fields {
        let Some((tag, _)) = field.tagged else {
            continue;
        };
        let guard = match condition(field.versions, context.flexible()) {
            Condition::Never => continue,
            Condition::Always => String::new(),
            Condition::When(text) => format!(" if {text}"),
        };
        let target = field_name(&field.name);
        arms.push_str(&format!(
            "{tag}{guard} => this.{target} = {},\n",
            read(context, field)?
        ));
    }
    let tags = if arms.is_empty() {
        "this.unknown_tagged_fields = r.unknown_tagged_fields()?;\n".to_string()
    } else {
        format!(
            "this.unknown_tagged_fields = r.tagged_fields(|tag, r| {{\nmatch tag {{\n{arms}\
             _ => return Ok(false),\n}}\nOk(true)\n}})?;\n"
        )
    };
    let flexible = match condition(context.flexible(), item.reach) {
        Condition::When(_) => Condition::When("flex".into()),
        other => other,
    };
    body.push_str(&when(&flexible, &tags, ""));
    let binding = context.flex_binding(&body);
    Ok(format!(
        "let mut this = Self::default();\n{binding}{body}Ok(this)\n"
    ))
}

fn encode_body(context: &Context) -> Result<String> {
    let item = context.item;
    let mut body = String::new();
    for field in item.fields.iter().filter(|f| f.tagged.is_none()) {
        let present = condition(field.versions, item.reach);
        body.push_str(&when(
            &present,
            &write(context, field)?,
            &absent(context, field)?,
        ));
    }
    let mut known = String::new();
    for field in &item.fields {
        let Some((tag, _)) = field.tagged else {
            continue;
        };
        let put = format!(
            "push_tag(&mut tags, {tag}, {}, |w| {{\n{}Ok(())\n}})?;\n",
            is_default(field)?,
            write(context, field)?
        );
        known.push_str(&when(
            &condition(field.versions, context.flexible()),
            &put,
            &absent(context, field)?,
        ));
    }
    let with_tags = if known.contains("push_tag") {
        format!(
            "let mut tags = self.unknown_tagged_fields.clone();\n{known}w.tagged_fields(&mut tags)?;\n"
        )
    } else {
        format!("{known}w.unknown_tagged_fields(&self.unknown_tagged_fields)?;\n")
    };
    let mut without_tags = String::new();
    for field in item.fields.iter().filter(|f| f.tagged.is_some()) {
        without_tags.push_str(&absent(context, field)?);
    }
    if !context.flexible().is_empty() {
        without_tags.push_str(&format!(
            "absent(self.unknown_tagged_fields.is_empty(), \"{}.unknown_tagged_fields\", version)?;\n",
            item.name
        ));
    }
    let flexible = match condition(context.flexible(), item.reach) {
        Condition::When(_) => Condition::When("flex".into()),
        other => other,
    };
    body.push_str(&when(&flexible, &with_tags, &without_tags));
    let binding = context.flex_binding(&body);
    Ok(format!("{binding}{body}Ok(())\n"))
}

/// What to do with a field in a version that has no place for it: Kafka refuses to lose a value
/// unless the schema calls the field ignorable.
fn absent(context: &Context, field: &Field) -> Result<String> {
    if field.ignorable {
        return Ok(String::new());
    }
    Ok(format!(
        "absent({}, \"{}.{}\", version)?;\n",
        is_default(field)?,
        context.item.name,
        field_name(&field.name).trim_start_matches("r#")
    ))
}

/// `present` if the field is nullable in the version, `other` if not, as one expression.
fn by_nullability(context: &Context, field: &Field, nullable: &str, other: &str) -> String {
    let known = field.versions.intersect(context.item.reach);
    match condition(field.nullable, known) {
        Condition::Always => nullable.to_string(),
        Condition::Never => other.to_string(),
        Condition::When(text) => format!("if {text} {{ {nullable} }} else {{ {other} }}"),
    }
}

fn read(context: &Context, field: &Field) -> Result<String> {
    let flex = context.flex(field);
    let plain = match &field.ty {
        Type::Struct(name) => format!("{name}::decode(r, version)?"),
        Type::Array(element) => match element.as_ref() {
            Type::Struct(_) => format!("r.structs({flex}, version)?"),
            Type::String => format!("r.strings({flex})?"),
            other => format!(
                "r.array({flex}, {}, Reader::{})?",
                fixed_size(other)?,
                method(other)
            ),
        },
        Type::String | Type::Bytes | Type::Records => format!("r.{}({flex})?", method(&field.ty)),
        other => format!("r.{}()?", method(other)),
    };
    if !is_option(field) {
        return Ok(plain);
    }
    let nullable = match &field.ty {
        Type::Struct(_) if field.tagged.is_some() => "r.nullable_tagged_struct(version)?".into(),
        Type::Struct(_) => "r.nullable_struct(version)?".into(),
        _ => plain.replacen("r.", "r.nullable_", 1),
    };
    Ok(by_nullability(
        context,
        field,
        &nullable,
        &format!("Some({plain})"),
    ))
}

fn write(context: &Context, field: &Field) -> Result<String> {
    let flex = context.flex(field);
    let name = format!("self.{}", field_name(&field.name));
    // `value` is a place expression of the field's type (not a reference).
    let plain = |value: &str, prefix: &str| -> Result<String> {
        Ok(match &field.ty {
            Type::Struct(_) if prefix.is_empty() => format!("{value}.encode(w, version)?;"),
            Type::Struct(_) if field.tagged.is_some() => {
                format!("w.nullable_tagged_struct({value}, version)?;")
            }
            Type::Struct(_) => format!("w.nullable_struct({value}, version)?;"),
            Type::Array(element) => match element.as_ref() {
                Type::Struct(_) => format!("w.{prefix}structs({value}, {flex}, version)?;"),
                Type::String => format!("w.{prefix}strings({value}, {flex})?;"),
                other => {
                    format!(
                        "w.{prefix}array({value}, {flex}, |w, v| w.{}(*v))?;",
                        method(other)
                    )
                }
            },
            Type::String | Type::Bytes | Type::Records => {
                format!("w.{prefix}{}({value}, {flex})?;", method(&field.ty))
            }
            other => format!("w.{}({value});", method(other)),
        })
    };
    if !is_option(field) {
        let by_reference = matches!(
            field.ty,
            Type::Array(_) | Type::String | Type::Bytes | Type::Records
        );
        let value = if by_reference {
            format!("&{name}")
        } else {
            name
        };
        return Ok(plain(&value, "")? + "\n");
    }
    let nullable = match &field.ty {
        Type::String | Type::Array(_) => plain(&format!("{name}.as_deref()"), "nullable_")?,
        _ => plain(&format!("{name}.as_ref()"), "nullable_")?,
    };
    let label = format!("{}.{}", context.item.name, field_name(&field.name));
    let required = plain(&format!("required(&{name}, \"{label}\", version)?"), "")?;
    Ok(by_nullability(context, field, &nullable, &required) + "\n")
}

/// The name of the Reader's and Writer's method for a type that is not a struct or array.
fn method(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Int8 => "i8",
        Type::Int16 => "i16",
        Type::Uint16 => "u16",
        Type::Int32 => "i32",
        Type::Uint32 => "u32",
        Type::Int64 => "i64",
        Type::Float64 => "f64",
        Type::Uuid => "uuid",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Records => "records",
        Type::Struct(_) | Type::Array(_) => unreachable!("structs and arrays have their own calls"),
    }
}

fn fixed_size(ty: &Type) -> Result<usize> {
    Ok(match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        other => anyhow::bail!("{other:?} has no fixed size"),
    })
}

/// The least bytes that the struct takes on the wire: what bounds an array's count.
fn min_size_body(context: &Context) -> Result<String> {
    let reach = context.item.reach;
    let mut sizes: Vec<(i16, usize)> = Vec::new();
    for version in reach.min..=reach.max {
        let size = min_size(context, context.item, version)?;
        if sizes.last().is_none_or(|(_, last)| *last != size) {
            sizes.push((version, size));
        }
    }
    if let [(_, size)] = sizes[..] {
        return Ok(format!("{size}\n"));
    }
    let mut out = String::from("match version {\n");
    for pair in sizes.windows(2) {
        let (first, last) = (pair[0].0, pair[1].0 - 1);
        let range = if first == last {
            format!("{first}")
        } else {
            format!("{first}..={last}")
        };
        out.push_str(&format!("{range} => {},\n", pair[0].1));
    }
    out.push_str(&format!("_ => {},\n}}\n", sizes[sizes.len() - 1].1));
    Ok(out)
}

fn min_size(context: &Context, item: &Struct, version: i16) -> Result<usize> {
    let flexible = context.schema.flexible.holds(version);
    let mut size = usize::from(flexible);
    for field in &item.fields {
        if !field.versions.holds(version) || field.tagged.is_some() {
            continue;
        }
        size += match &field.ty {
            Type::String => {
                if flexible {
                    1
                } else {
                    2
                }
            }
            Type::Bytes | Type::Records | Type::Array(_) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            Type::Struct(_) if field.nullable.holds(version) => 1,
            Type::Struct(name) => {
                let nested = context.schema.structs.iter().find(|s| s.name == *name);
                min_size(context, nested.context("nested struct")?, version)?
            }
            other => fixed_size(other)?,
        };
    }
    Ok(size)
}

fn default_is_rusts(field: &Field) -> Result<bool> {
    let default = field.default.as_deref().unwrap_or("");
    if is_option(field) {
        return Ok(default == "null" || field.ty == Type::Records);
    }
    ensure!(
        default != "null",
        "{} has the default null, which it cannot be",
        field.name
    );
    Ok(match field.ty {
        Type::Bool => default != "true",
        Type::String | Type::Bytes | Type::Array(_) | Type::Struct(_) | Type::Records => true,
        Type::Uuid => default.is_empty(),
        _ => number(field)? == "0",
    })
}

/// Kafka's rules: null only if the schema says so; otherwise empty, zero or the default struct.
fn default_value(field: &Field) -> Result<String> {
    let default = field.default.as_deref().unwrap_or("");
    if is_option(field) && (default == "null" || field.ty == Type::Records) {
        return Ok("None".into());
    }
    let plain = match &field.ty {
        Type::Bool => (default == "true").to_string(),
        Type::String if default.is_empty() => "String::new()".into(),
        Type::String => format!("{default:?}.into()"),
        Type::Bytes => "Bytes::new()".into(),
        Type::Records => "Records::default()".into(),
        Type::Array(_) => "Vec::new()".into(),
        Type::Struct(name) => format!("{name}::default()"),
        Type::Uuid => {
            ensure!(default.is_empty(), "uuid default {default}");
            "Uuid::ZERO".into()
        }
        Type::Float64 => format!("{}.0", number(field)?),
        _ => number(field)?,
    };
    Ok(if is_option(field) {
        format!("Some({plain})")
    } else {
        plain
    })
}

fn number(field: &Field) -> Result<String> {
    let text = field.default.as_deref().unwrap_or("");
    let value: i64 = match text.strip_prefix("0x") {
        _ if text.is_empty() => 0,
        Some(hex) => i64::from_str_radix(hex, 16)?,
        None => text
            .parse()
            .with_context(|| format!("default of {}", field.name))?,
    };
    Ok(value.to_string())
}

/// A boolean expression: does the field hold its default?
fn is_default(field: &Field) -> Result<String> {
    let name = format!("self.{}", field_name(&field.name));
    let value = default_value(field)?;
    Ok(match (&field.ty, value.as_str()) {
        (_, "None") => format!("{name}.is_none()"),
        (Type::Bool, "true") => name,
        (Type::Bool, "false") => format!("!{name}"),
        (Type::String | Type::Bytes | Type::Array(_) | Type::Records, _) if is_option(field) => {
            ensure!(
                field.default.as_deref().unwrap_or("").is_empty(),
                "default of {}",
                field.name
            );
            format!("{name}.as_ref().is_some_and(|v| v.is_empty())")
        }
        (Type::String, _) if value != "String::new()" => {
            format!("{name} == {:?}", field.default.as_deref().unwrap_or(""))
        }
        (Type::String | Type::Bytes | Type::Array(_) | Type::Records, _) => {
            format!("{name}.is_empty()")
        }
        _ => format!("{name} == {value}"),
    })
}

/// A generator of random values that are valid in a version; for tests only.
pub fn arbitrary_impl(context: &Context) -> Result<String> {
    let item = context.item;
    let mut body = String::new();
    for field in &item.fields {
        let plain = match &field.ty {
            Type::Struct(name) => format!("{name}::arbitrary(g, version)"),
            Type::Array(element) => match element.as_ref() {
                Type::Struct(name) => format!("g.vec(|g| {name}::arbitrary(g, version))"),
                other => format!("g.vec(|g| g.{}())", method(other)),
            },
            other => format!("g.{}()", method(other)),
        };
        let value = if is_option(field) {
            let nullable = format!("g.nullable(|g| {plain})");
            by_nullability(context, field, &nullable, &format!("Some({plain})"))
        } else {
            plain
        };
        let assign = format!("this.{} = {value};\n", field_name(&field.name));
        body.push_str(&when(&condition(field.versions, item.reach), &assign, ""));
    }
    let tags = "this.unknown_tagged_fields = g.unknown_tagged_fields();\n";
    body.push_str(&when(&condition(context.flexible(), item.reach), tags, ""));
    let version = if uses_version(&body) { "version" } else { "_" };
    Ok(format!(
        "\n#[cfg(test)]\nimpl Arbitrary for {} {{\n\
         fn arbitrary(g: &mut Gen, {version}: i16) -> Self {{\n\
         let mut this = Self::default();\n{body}this\n}}\n}}\n",
        item.name
    ))
}
