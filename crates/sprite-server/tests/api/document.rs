//! The OpenAPI documents tell every route that there is, and of each exactly the methods that it has.

use serde_json::{Map, Value};

use crate::inside::{ask, machine};
use crate::setup::Server;

const SPRITE: &str = "/v1/sprites/{name}";
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

/// Routes that describe, and are not described; and those that lead to others, which are.
const UNTOLD: [&str; 3] = ["/openapi.json", "/streams.json", "/v1/orgs/{*rest}"];

/// The paths of all routes, read where they are made: a router does not tell its own.
fn routes(source: &str) -> Vec<String> {
    let calls = source.split(".route(").skip(1).map(str::trim_start);
    // What is not done yet has one handler for all, and is told by it.
    let named = calls.filter(|call| !call.starts_with("path,"));
    let path = |call: &str| {
        if call.starts_with("sprite,") {
            return SPRITE.to_owned();
        }
        let text = call.split('"').nth(1).expect("a path");
        let text = text.replace("{sprite}", SPRITE);
        text.replace("{{", "{").replace("}}", "}")
    };
    let told = |path: &String| !path.ends_with("{path}") && !UNTOLD.contains(&path.as_str());
    named.map(path).filter(told).collect()
}

/// The methods that a document tells of each path; every path of the one is in the other.
fn told<'d>(document: &'d Value, routes: &[String]) -> &'d Map<String, Value> {
    let told = document["paths"].as_object().unwrap();
    for path in told.keys() {
        assert!(routes.contains(path), "{path} is told and not there");
    }
    for path in routes {
        assert!(told.contains_key(path), "{path} is not in the document");
    }
    told
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
    let routes = routes(include_str!("../../src/routes.rs"));
    assert!(routes.len() > 15, "{routes:?}");
    let told = told(&document, &routes);
    for path in &routes {
        for method in METHODS {
            let request = server.request(method, &filled(path)).body("{}");
            let there = request.send().await.status() != 405;
            let told = told[path].get(method.to_lowercase()).is_some();
            assert_eq!(there, told, "{method} {path}");
        }
    }
}

/// The same of the API inside, whose document is given away there.
#[tokio::test]
async fn every_route_inside_is_told_with_its_methods_and_no_other() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    let (status, document) = ask(&machine, "GET", "/openapi.json", "").await;
    assert_eq!(status, 200);
    let routes = routes(include_str!("../../src/inside/mod.rs"));
    assert!(routes.len() > 5, "{routes:?}");
    let told = told(&document, &routes);
    for path in &routes {
        for method in METHODS {
            let (status, _) = ask(&machine, method, &filled(path), "{}").await;
            let told = told[path].get(method.to_lowercase()).is_some();
            assert_eq!(status != 405, told, "{method} {path}");
        }
    }
}
