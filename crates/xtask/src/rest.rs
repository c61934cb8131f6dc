//! The page of the book that lists the API, made from the contract.

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// The methods of a path, in the order in which they are listed.
const METHODS: &[&str] = &["get", "head", "post", "put", "patch", "delete"];

/// Makes the page.
///
/// # Errors
/// The contract is not JSON.
pub fn page(contract: &str) -> Outcome<String> {
    let contract: Value = serde_json::from_str(contract)
        .map_err(|error| Failure::Check(format!("read the contract: {error}")))?;
    let mut page = String::from(
        "# REST\n\n\
         <!-- Generated from openapi/sprited.json by `cargo xtask generate`. -->\n\n\
         Every request carries `Authorization: Bearer TOKEN`, unless it says otherwise. \
         A running server gives this contract as an OpenAPI document at `/openapi.json`.\n\n",
    );
    for (path, item) in entries(&contract["paths"]) {
        for method in METHODS {
            let operation = &item[*method];
            if operation.is_object() {
                let title = format!("## {} `{path}`\n\n", method.to_uppercase());
                page.push_str(&title);
                describe(&mut page, &contract, operation);
            }
        }
    }
    page.push_str("# Types\n\n");
    for (name, schema) in entries(&contract["components"]["schemas"]) {
        page.push_str(&format!("## {name}\n\n"));
        if !text(&schema["description"]).is_empty() {
            page.push_str(&format!("{}\n\n", text(&schema["description"]).trim()));
        }
        fields(&mut page, schema);
    }
    Ok(format!("{}\n", page.trim_end()))
}

fn describe(page: &mut String, contract: &Value, operation: &Value) {
    for key in ["summary", "description"] {
        let said = text(&operation[key]).trim();
        if !said.is_empty() {
            let stop = if said.ends_with(['.', ':', '?', '!']) {
                ""
            } else {
                "."
            };
            page.push_str(&format!("{said}{stop}\n\n"));
        }
    }
    let parameters = items(&operation["parameters"]);
    if !parameters.is_empty() {
        page.push_str("| parameter | in | type | meaning |\n|---|---|---|---|\n");
        for parameter in parameters {
            let parameter = resolve(contract, parameter);
            page.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(&parameter["schema"]),
                cell(&parameter["description"]),
            ));
        }
        page.push('\n');
    }
    let body = media(&operation["requestBody"]);
    if !body.is_empty() {
        page.push_str(&format!("Body: {body}.\n\n"));
    }
    page.push_str("| answer | meaning | body |\n|---|---|---|\n");
    for (status, response) in entries(&operation["responses"]) {
        let response = resolve(contract, response);
        let meaning = cell(&response["description"]);
        page.push_str(&format!("| {status} | {meaning} | {} |\n", media(response)));
    }
    page.push('\n');
}

/// The types of a body, each with its media type where that is not JSON.
fn media(body: &Value) -> String {
    let mut kinds = Vec::new();
    for (name, media) in entries(&body["content"]) {
        let kind = kind(&media["schema"]);
        kinds.push(if name == "application/json" {
            kind
        } else {
            format!("{kind} as `{name}`")
        });
    }
    kinds.join(" or ")
}

/// The fields of a type, or its values.
fn fields(page: &mut String, schema: &Value) {
    let required = items(&schema["required"]);
    let mut rows = String::new();
    let parts = std::iter::once(schema).chain(items(&schema["allOf"]));
    for part in parts {
        for (name, property) in entries(&part["properties"]) {
            let must = if required.iter().any(|field| field == name) {
                " (required)"
            } else {
                ""
            };
            let meaning = cell(&property["description"]);
            rows.push_str(&format!(
                "| `{name}`{must} | {} | {meaning} |\n",
                kind(property)
            ));
        }
    }
    if rows.is_empty() {
        page.push_str(&format!("{}.\n\n", kind(schema)));
    } else {
        page.push_str(&format!(
            "| field | type | meaning |\n|---|---|---|\n{rows}\n"
        ));
    }
}

/// A type in few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .map(|value| format!("`{}`", text(value)))
            .collect();
        return values.join(", ");
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[key].as_array() {
            let parts: Vec<String> = parts.iter().map(kind).collect();
            return parts.join(" or ");
        }
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "any".to_owned(),
    };
    if schema["items"].is_object() {
        format!("{name} of {}", kind(&schema["items"]))
    } else if schema["additionalProperties"].is_object() {
        format!("{name} of {}", kind(&schema["additionalProperties"]))
    } else {
        name
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn resolve<'a>(contract: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix('#'));
    pointer
        .and_then(|pointer| contract.pointer(pointer))
        .unwrap_or(value)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text that fits in a table.
fn cell(value: &Value) -> String {
    text(value).trim().replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_becomes_a_section() {
        let contract = serde_json::json!({
            "paths": {"/v1/sprites/{name}": {"get": {
                "summary": "One sprite",
                "parameters": [{"name": "name", "in": "path", "schema": {"type": "string"},
                    "description": "its | name"}],
                "responses": {
                    "200": {"description": "it", "content": {"application/json":
                        {"schema": {"$ref": "#/components/schemas/Sprite"}}}},
                    "404": {"description": "no such sprite"}
                }}}},
            "components": {"schemas": {"Sprite": {"type": "object", "required": ["id"],
                "description": "A sprite.",
                "properties": {"id": {"type": "string"}, "status": {"enum": ["warm", "cold"]},
                    "labels": {"type": "array", "items": {"type": "string"}}}}}}
        });
        let page = page(&contract.to_string()).expect("the contract is JSON");
        for part in [
            "## GET `/v1/sprites/{name}`\n\nOne sprite.\n",
            "| `name` | path | string | its \\| name |",
            "| 200 | it | [Sprite](#sprite) |",
            "| 404 | no such sprite |  |",
            "## Sprite\n\nA sprite.\n",
            "| `id` (required) | string |  |",
            "| `status` | `warm`, `cold` |  |",
            "| `labels` | array of string |  |",
        ] {
            assert!(page.contains(part), "{part:?} is missing in:\n{page}");
        }
        assert!(page.ends_with("|\n"));
    }
}
