//! What the control socket takes, against Firecracker's published API description.
//!
//! `published/firecracker-1.16.json` lists its requests and the fields of their bodies; `!` marks a field that
//! every body has. Nested fields stand behind a full stop.

use std::collections::BTreeMap;

use sprite_vmm::api::{ROUTES, Route, Support};

/// Requests, each with its fields.
type Description = BTreeMap<String, BTreeMap<String, bool>>;

fn published() -> Description {
    let text = include_str!("published/firecracker-1.16.json");
    let requests: BTreeMap<String, String> = serde_json::from_str(text).expect("it is JSON");
    requests
        .into_iter()
        .map(|(request, fields)| {
            let fields = fields.split_ascii_whitespace();
            let named = fields.map(|field| match field.strip_suffix('!') {
                Some(name) => (name.to_owned(), true),
                None => (field.to_owned(), false),
            });
            (request, named.collect())
        })
        .collect()
}

fn name(route: &Route) -> String {
    format!("{} {}", route.method(), route.path)
}

#[test]
fn every_published_request_is_known_and_only_our_own_are_not_published() {
    let published = published();
    for request in published.keys() {
        assert!(
            ROUTES.iter().any(|route| name(route) == *request),
            "{request} is not known: do it, or refuse it by name"
        );
    }
    for route in ROUTES {
        let known = published.contains_key(&name(route));
        match route.support {
            Support::Published | Support::Refused => assert!(known, "{}", name(route)),
            Support::Ours => assert!(!known, "{} is published now", name(route)),
        }
    }
}

#[test]
fn every_published_field_is_taken_or_refused_by_its_name() {
    let published = published();
    for route in ROUTES
        .iter()
        .filter(|route| route.support == Support::Published)
    {
        let theirs = &published[&name(route)];
        for field in route.fields {
            match field.support {
                Support::Published | Support::Refused => {
                    assert!(
                        theirs.contains_key(field.name),
                        "{}: {}",
                        name(route),
                        field.name
                    );
                }
                Support::Ours => {
                    assert!(
                        !theirs.contains_key(field.name),
                        "{}: {}",
                        name(route),
                        field.name
                    );
                }
            }
        }
        let refused = |field: &str| {
            route.fields.iter().any(|ours| {
                ours.support == Support::Refused
                    && field
                        .strip_prefix(ours.name)
                        .is_some_and(|rest| rest.starts_with('.'))
            })
        };
        for field in theirs.keys() {
            assert!(
                route.fields.iter().any(|ours| ours.name == field) || refused(field),
                "{}: {field} is not known: take it, or refuse it by name",
                name(route)
            );
        }
    }
}

/// Fields that Firecracker can do without and we cannot, each with the reason.
const STRICTER: &[(&str, &str, &str)] = &[
    (
        "PUT /drives/{drive_id}",
        "path_on_host",
        "without a file it would be a vhost-user drive, which we do not have",
    ),
    (
        "PATCH /drives/{drive_id}",
        "path_on_host",
        "without a file it would change a rate limit, which we do not have",
    ),
];

#[test]
fn a_body_that_has_all_that_is_required_there_is_enough_here() {
    let published = published();
    for route in ROUTES
        .iter()
        .filter(|route| route.support == Support::Published)
    {
        let theirs = &published[&name(route)];
        for field in route.fields.iter().filter(|field| field.required) {
            let reason = STRICTER
                .iter()
                .find(|(request, stricter, _)| *request == name(route) && *stricter == field.name);
            assert!(
                theirs[field.name] || reason.is_some(),
                "{} does without {}",
                name(route),
                field.name
            );
        }
    }
}
