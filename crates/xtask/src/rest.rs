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
         Every request carries `Authorization: Bearer TOKEN`, except those marked as open. \
         A running server gives this contract as an OpenAPI document at `/openapi.json`.\n",
    );
    for (path, item) in contract["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let operation = &item[*method];
            if operation.is_object() {
                operation_section(&mut page, &contract, method, path, operation);
            }
        }
    }
    Ok(page)
}

fn operation_section(
    page: &mut String,
    contract: &Value,
    method: &str,
    path: &str,
    operation: &Value,
) {
    page.push_str(&format!("\n## {} `{path}`\n\n", method.to_uppercase()));
    for key in ["summary", "description"] {
        if let Some(text) = operation[key].as_str().filter(|text| !text.is_empty()) {
            page.push_str(&format!("{}\n\n", text.trim()));
        }
    }
    if operation["security"]
        .as_array()
        .is_some_and(|ways| ways.iter().any(is_open))
    {
        page.push_str("Open: no token is needed.\n\n");
    }
    let parameters = operation["parameters"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
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
    for schema in schemas(&operation["requestBody"]) {
        fields(page, contract, "Body", schema);
    }
    if let Some(responses) = operation["responses"].as_object() {
        page.push_str("| answer | meaning |\n|---|---|\n");
        for (status, response) in responses {
            let response = resolve(contract, response);
            page.push_str(&format!(
                "| {status} | {} |\n",
                cell(&response["description"])
            ));
        }
        page.push('\n');
        for (status, response) in responses {
            if status.starts_with('2') {
                for schema in schemas(resolve(contract, response)) {
                    fields(page, contract, &format!("Answer {status}"), schema);
                }
            }
        }
    }
    while page.ends_with("\n\n") {
        page.pop();
    }
}

/// An empty requirement means that no token is needed.
fn is_open(way: &Value) -> bool {
    way.as_object().is_some_and(serde_json::Map::is_empty)
}

fn schemas(body: &Value) -> impl Iterator<Item = &Value> {
    body["content"]
        .as_object()
        .into_iter()
        .flat_map(|content| content.values())
        .map(|media| &media["schema"])
}

/// The fields of an object schema, as a table.
fn fields(page: &mut String, contract: &Value, title: &str, schema: &Value) {
    let schema = resolve(contract, schema);
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    page.push_str(&format!(
        "{title}:\n\n| field | type | meaning |\n|---|---|---|\n"
    ));
    for (name, property) in properties {
        let must = if required.iter().any(|field| field == name) {
            " (required)"
        } else {
            ""
        };
        page.push_str(&format!(
            "| `{name}`{must} | {} | {} |\n",
            kind(property),
            cell(&property["description"])
        ));
    }
    page.push('\n');
}

/// A type in few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[key].as_array() {
            let parts: Vec<String> = parts.iter().map(kind).collect();
            return parts.join(" or ");
        }
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" or "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "any".to_owned(),
    };
    if schema["items"].is_object() {
        format!("{name} of {}", kind(&schema["items"]))
    } else {
        name
    }
}

fn resolve<'a>(contract: &'a Value, value: &'a Value) -> &'a Value {
    let Some(pointer) = value["$ref"]
        .as_str()
        .and_then(|text| text.strip_prefix('#'))
    else {
        return value;
    };
    contract.pointer(pointer).unwrap_or(value)
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
                "summary": "One sprite.",
                "parameters": [{"name": "name", "in": "path", "schema": {"type": "string"},
                    "description": "its | name"}],
                "responses": {
                    "200": {"description": "it", "content": {"application/json":
                        {"schema": {"$ref": "#/components/schemas/Sprite"}}}},
                    "404": {"description": "no such sprite"}
                }}}},
            "components": {"schemas": {"Sprite": {"type": "object", "required": ["id"],
                "properties": {"id": {"type": "string"},
                    "labels": {"type": "array", "items": {"type": "string"}}}}}}
        });
        let page = page(&contract.to_string()).expect("the contract is JSON");
        for part in [
            "## GET `/v1/sprites/{name}`\n\nOne sprite.\n",
            "| `name` | path | string | its \\| name |",
            "| 404 | no such sprite |",
            "Answer 200:",
            "| `id` (required) | string |  |",
            "| `labels` | array of string |  |",
        ] {
            assert!(page.contains(part), "{part:?} is missing in:\n{page}");
        }
        assert!(page.ends_with("|\n") && !page.ends_with("\n\n"));
    }
}
