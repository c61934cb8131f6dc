//! The OpenAPI document tells every route that there is, and of each exactly the methods that it has.

use serde_json::Value;

use crate::setup::Server;

const SPRITE: &str = "/v1/sprites/{name}";

/// The paths of all routes, read where they are made: a router does not tell its own.
fn routes() -> Vec<String> {
    let source = include_str!("../../src/routes.rs");
    let calls = source.split(".route(").skip(1).map(str::trim_start);
    let path = |call: &str| {
        if call.starts_with("sprite,") {
            return SPRITE.to_owned();
        }
        let text = call.split('"').nth(1).expect("a path");
        let text = text.replace("{sprite}", SPRITE);
        text.replace("{{", "{").replace("}}", "}")
    };
    // What is not done yet has one handler for all, and is told by it; the document does not tell of itself.
    let told = |path: &String| !path.ends_with("{path}") && path != "/openapi.json";
    calls.map(path).filter(told).collect()
}

/// A path with something in place of each of its parameters.
fn filled(path: &str) -> String {
    let segment = |segment: &str| match segment {
        "{slug}" => "personal".to_owned(),
        parameter if parameter.starts_with('{') => "none".to_owned(),
        text => text.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_route_is_told_with_its_methods_and_no_other() {
    let server = Server::with_sprite().await;
    let document = server.get("/openapi.json").await.json();
    let told = document["paths"].as_object().unwrap();
    let routes = routes();
    assert!(routes.len() > 15, "{routes:?}");
    for path in told.keys() {
        assert!(routes.contains(path), "{path} is told and not there");
    }
    for path in &routes {
        let methods = told.get(path).and_then(Value::as_object);
        let methods = methods.unwrap_or_else(|| panic!("{path} is not in the document"));
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let request = server.request(method, &filled(path)).body("{}");
            let there = request.send().await.status() != 405;
            let told = methods.contains_key(&method.to_lowercase());
            assert_eq!(there, told, "{method} {path}");
        }
    }
}
