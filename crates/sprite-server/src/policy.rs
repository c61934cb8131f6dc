//! Policies: `/v1/sprites/{name}/policy/…`. Source: behaviour reference §1.11, §1.14.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::policy::{
    AppliedLimits, CountLimit as CountBody, Enforcement, MemoryLimit as MemoryBody,
    NetworkPolicy as NetworkBody, NetworkPolicyShown, NetworkRule as RuleBody,
    PrivilegesPolicy as PrivilegesBody, ResourcesPolicy as ResourcesBody, ResourcesPolicyShown,
};
use sprite_host::{Policy, Sprite};
use sprite_types::{
    CountLimit, DomainPattern, Egress, MemoryLimit, NetworkPolicy, NetworkRule, Preset, Privileges,
    Profile, ResourceLimits, Resources, RuleAction,
};

use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Show a sprite's network policy
///
/// Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/policy/network", tag = "policies", operation_id = "get_network_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The policy, and what holds", body = NetworkPolicyShown),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
    )
)]
pub(crate) async fn show_network(State(app): State<App>, named: Named) -> Answer<Response> {
    network_of(&app, &named.sprite).await
}

/// That policy of a sprite, whoever asks.
pub(crate) async fn network_of(app: &App, sprite: &Sprite) -> Answer<Response> {
    let network = app.host.policies(sprite).await?.policies.network;
    Ok(answer::ok(&NetworkPolicyShown {
        enforcement: match network.egress() {
            Egress::Open => Enforcement::Open,
            Egress::Closed => Enforcement::Closed,
        },
        rules: network.rules.into_iter().map(rule_body).collect(),
    }))
}

/// Replace a sprite's network policy
///
/// When this answers, it holds: for connections that there are, and for every later machine of the sprite. Any rule
/// closes the sprite to everything, names included, until names are told apart; no rules open it. Does not wake it.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/policy/network", tag = "policies", operation_id = "set_network_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = NetworkBody,
    responses(
        (status = 204, description = "It holds"),
        (status = 400, description = "A rule is wrong; nothing was changed", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 502, description = "It is stored, and the machine that ran was ended for not having it", body = ErrorBody),
    )
)]
pub(crate) async fn set_network(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    let policy = network(body::json(request).await?)?;
    set(&app, &named, Policy::Network(policy)).await
}

/// Show a sprite's privileges policy
#[utoipa::path(
    get, path = "/v1/sprites/{name}/policy/privileges", tag = "policies", operation_id = "get_privileges_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The policy", body = PrivilegesBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
    )
)]
pub(crate) async fn show_privileges(State(app): State<App>, named: Named) -> Answer<Response> {
    privileges_of(&app, &named.sprite).await
}

/// That policy of a sprite, whoever asks.
pub(crate) async fn privileges_of(app: &App, sprite: &Sprite) -> Answer<Response> {
    let privileges = app.host.policies(sprite).await?.policies.privileges;
    Ok(answer::ok(&PrivilegesBody {
        profile: Some(privileges.profile.to_string()),
        devices: Some(privileges.devices),
        no_new_privileges: Some(privileges.no_new_privileges),
    }))
}

/// Replace a sprite's privileges policy
///
/// It holds for sessions that start from now on. Does not wake the sprite.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/policy/privileges", tag = "policies", operation_id = "set_privileges_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = PrivilegesBody,
    responses(
        (status = 204, description = "It holds"),
        (status = 400, description = "A field is wrong; nothing was changed", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 501, description = "The sprite's driver cannot give that; nothing was changed", body = ErrorBody),
        (status = 502, description = "It is stored, and the machine that ran was ended for not having it", body = ErrorBody),
    )
)]
pub(crate) async fn set_privileges(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    let policy = privileges(body::json(request).await?)?;
    set(&app, &named, Policy::Privileges(policy)).await
}

/// Delete a sprite's privileges policy
///
/// It is the default again.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/policy/privileges", tag = "policies", operation_id = "delete_privileges_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 204, description = "The default holds"),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 502, description = "It is stored, and the machine that ran was ended for not having it", body = ErrorBody),
    )
)]
pub(crate) async fn delete_privileges(State(app): State<App>, named: Named) -> Answer<Response> {
    set(&app, &named, Policy::Privileges(Privileges::default())).await
}

/// Show a sprite's resources policy
///
/// And what holds of it now. Does not wake the sprite.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/policy/resources", tag = "policies", operation_id = "get_resources_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The policy, and what holds", body = ResourcesPolicyShown),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
    )
)]
pub(crate) async fn show_resources(State(app): State<App>, named: Named) -> Answer<Response> {
    resources_of(&app, &named.sprite).await
}

/// That policy of a sprite, whoever asks.
pub(crate) async fn resources_of(app: &App, sprite: &Sprite) -> Answer<Response> {
    let view = app.host.policies(sprite).await?;
    let limits = view.policies.resources;
    let count = |limit: CountLimit| CountBody {
        limit: Some(limit.limit),
    };
    Ok(answer::ok(&ResourcesPolicyShown {
        policy: ResourcesBody {
            memory: limits.memory.map(|memory| MemoryBody {
                limit_mb: Some(memory.limit_mb),
                autoscale: Some(memory.autoscale),
            }),
            cpu: limits.cpu.map(count),
            pids: limits.pids.map(count),
        },
        pending: view
            .allowed
            .map_or_else(Vec::new, |allowed| pending(&view.wanted, &allowed)),
        applied: view.allowed.map(|allowed| AppliedLimits {
            memory_mb: allowed.memory_mib,
            cpus: allowed.cpus,
            pids: allowed.pids,
        }),
    }))
}

/// What of the limits does not hold yet.
fn pending(wanted: &Resources, allowed: &Resources) -> Vec<String> {
    [
        ("memory", wanted.memory_mib != allowed.memory_mib),
        ("cpu", wanted.cpus != allowed.cpus),
        ("pids", wanted.pids != allowed.pids),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}

/// Replace a sprite's resources policy
///
/// It holds at once for a machine that runs, as far as its driver can; `pending` of the policy tells what waits for
/// the next boot. Less memory than is in use may end processes. Does not wake the sprite.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/policy/resources", tag = "policies", operation_id = "set_resources_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = ResourcesBody,
    responses(
        (status = 204, description = "It holds"),
        (status = 400, description = "A limit is wrong; nothing was changed", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 502, description = "It is stored, and the machine that ran was ended for not having it", body = ErrorBody),
    )
)]
pub(crate) async fn set_resources(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    let policy = resources(&body::json(request).await?)?;
    set(&app, &named, Policy::Resources(policy)).await
}

/// Delete a sprite's resources policy
///
/// It may use again what it was created with.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/policy/resources", tag = "policies", operation_id = "delete_resources_policy",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 204, description = "The default holds"),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 502, description = "It is stored, and the machine that ran was ended for not having it", body = ErrorBody),
    )
)]
pub(crate) async fn delete_resources(State(app): State<App>, named: Named) -> Answer<Response> {
    set(&app, &named, Policy::Resources(ResourceLimits::default())).await
}

async fn set(app: &App, named: &Named, policy: Policy) -> Answer<Response> {
    app.host.set_policy(&named.sprite, policy).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

fn rule_body(rule: NetworkRule) -> RuleBody {
    match rule {
        NetworkRule::Domain { domain, action } => RuleBody {
            domain: Some(domain.into()),
            action: Some(
                match action {
                    RuleAction::Allow => "allow",
                    RuleAction::Deny => "deny",
                }
                .to_owned(),
            ),
            include: None,
        },
        NetworkRule::Include {
            include: Preset::Defaults,
        } => RuleBody {
            include: Some("defaults".to_owned()),
            ..RuleBody::default()
        },
    }
}

/// Every broken rule is told at once, but no more than this many.
const MOST_ERRORS: usize = 20;

fn network(request: NetworkBody) -> Answer<NetworkPolicy> {
    let Some(rules) = request.rules else {
        return Err(Problem::field("rules is required"));
    };
    if rules.len() > NetworkPolicy::MOST {
        return Err(Problem::field(format!(
            "there are {} rules, at most {} are allowed",
            rules.len(),
            NetworkPolicy::MOST
        )));
    }
    let mut errors = Vec::new();
    let mut read = Vec::with_capacity(rules.len());
    for (index, body) in rules.into_iter().enumerate() {
        match rule(body) {
            Ok(rule) => read.push(rule),
            Err(error) => errors.push(format!("rules[{index}]: {error}")),
        }
    }
    errors.truncate(MOST_ERRORS);
    match errors.is_empty() {
        true => Ok(NetworkPolicy { rules: read }),
        false => Err(Problem::fields(errors)),
    }
}

fn rule(body: RuleBody) -> Result<NetworkRule, String> {
    match (body.domain, body.action, body.include) {
        (Some(domain), Some(action), None) => Ok(NetworkRule::Domain {
            domain: parsed::<DomainPattern>(&domain)?,
            action: parsed::<RuleAction>(&action)?,
        }),
        (None, None, Some(include)) => Ok(NetworkRule::Include {
            include: parsed::<Preset>(&include)?,
        }),
        (Some(_), None, None) => Err("action is required with domain".to_owned()),
        (None, Some(_), None) => Err("domain is required with action".to_owned()),
        (None, None, None) => Err("domain and action, or include, are required".to_owned()),
        (_, _, Some(_)) => Err("include stands alone".to_owned()),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn privileges(request: PrivilegesBody) -> Answer<Privileges> {
    let profile = request.profile.unwrap_or_default();
    let profile: Profile = parsed(&profile).map_err(Problem::field)?;
    let devices = request.devices.unwrap_or_default();
    if devices.len() > Privileges::MOST_DEVICES {
        return Err(Problem::field(format!(
            "there are {} devices, at most {} are allowed",
            devices.len(),
            Privileges::MOST_DEVICES
        )));
    }
    if let Some(device) = devices.iter().find(|device| !names_a_device(device)) {
        let shown: String = device.chars().take(80).collect();
        return Err(Problem::field(format!(
            "{shown:?} is no device; one is given by its path, as /dev/fuse"
        )));
    }
    Ok(Privileges {
        profile,
        devices,
        no_new_privileges: request.no_new_privileges.unwrap_or(false),
    })
}

/// Whether it is the path of a device, whatever drivers have: `/dev/`, then names of letters, digits, `.`, `_`, `-`.
fn names_a_device(path: &str) -> bool {
    let named = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    };
    path.strip_prefix("/dev/")
        .is_some_and(|rest| rest.split('/').all(named))
}

fn resources(request: &ResourcesBody) -> Answer<ResourceLimits> {
    let required = |name: &str| Problem::field(format!("{name} is required"));
    let memory = match &request.memory {
        Some(memory) => Some(MemoryLimit {
            limit_mb: memory.limit_mb.ok_or_else(|| required("memory.limit_mb"))?,
            autoscale: memory.autoscale.unwrap_or(false),
        }),
        None => None,
    };
    let count = |body: &Option<CountBody>, name: &str| {
        let limit = body.as_ref().map(|body| body.limit);
        let limit = limit.map(|limit| limit.ok_or_else(|| required(name)));
        let limit = limit.transpose()?;
        Ok::<_, Problem>(limit.map(|limit| CountLimit { limit }))
    };
    Ok(ResourceLimits {
        memory,
        cpu: count(&request.cpu, "cpu.limit")?,
        pids: count(&request.pids, "pids.limit")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Answer<NetworkPolicy> {
        network(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn rules_come_back_as_they_were_given() {
        let text =
            r#"{"rules":[{"include":"defaults"},{"domain":"*.Example.org","action":"deny"}]}"#;
        let policy = read(text).expect("valid");
        let bodies = policy.rules.into_iter().map(rule_body).collect();
        let again = NetworkBody {
            rules: Some(bodies),
        };
        assert_eq!(serde_json::to_string(&again).expect("JSON"), text);
    }

    #[test]
    fn every_wrong_rule_is_told_with_its_place() {
        let problem = read(
            r#"{"rules":[{"domain":"a b","action":"allow"},{"domain":"a.org","action":"allow"},
                {"domain":"a.org","action":"maybe"},{"domain":"a.org"},{},{"include":"all"},
                {"include":"defaults","action":"allow"}]}"#,
        )
        .expect_err("six are wrong");
        for place in [0, 2, 3, 4, 5, 6] {
            let place = format!("rules[{place}]");
            assert!(problem.message().contains(&place), "{place}: {problem:?}");
        }
        assert!(!problem.message().contains("rules[1]"), "{problem:?}");
        assert!(read("{}").is_err(), "rules are required");
        assert!(read(r#"{"rules":null}"#).is_err());
    }

    #[test]
    fn as_many_rules_as_may_be_and_one_more() {
        let rules = |count| NetworkBody {
            rules: Some(vec![
                RuleBody {
                    include: Some("defaults".to_owned()),
                    ..RuleBody::default()
                };
                count
            ]),
        };
        assert!(network(rules(NetworkPolicy::MOST)).is_ok());
        assert!(network(rules(NetworkPolicy::MOST + 1)).is_err());
    }

    #[test]
    fn limits_and_privileges_are_read_as_clients_write_them() {
        let limits: ResourcesBody = serde_json::from_str(
            r#"{"memory":{"limit_mb":4096,"autoscale":true},"cpu":{"limit":2},"pids":{"limit":100}}"#,
        )
        .expect("JSON");
        let limits = resources(&limits).expect("valid");
        assert_eq!(limits.memory.map(|memory| memory.limit_mb), Some(4096));
        assert_eq!(limits.cpu, Some(CountLimit { limit: 2 }));
        for wrong in [r#"{"memory":{}}"#, r#"{"cpu":{}}"#, r#"{"pids":{}}"#] {
            let wrong: ResourcesBody = serde_json::from_str(wrong).expect("JSON");
            assert!(resources(&wrong).is_err(), "{wrong:?}");
        }
        let given: PrivilegesBody = serde_json::from_str(
            r#"{"profile":"minimal","devices":["/dev/null"],"noNewPrivileges":true}"#,
        )
        .expect("JSON");
        let read = privileges(given).expect("valid");
        assert_eq!(read.profile, Profile::Minimal);
        assert!(read.no_new_privileges);
        let unknown = PrivilegesBody {
            profile: Some("root".to_owned()),
            ..PrivilegesBody::default()
        };
        assert!(privileges(unknown).is_err());
        for (device, named) in [
            ("/dev/fuse", true),
            ("/dev/net/tun", true),
            ("fuse", false),
            ("/dev/", false),
            ("/dev//fuse", false),
            ("/dev/a b", false),
        ] {
            let given = PrivilegesBody {
                devices: Some(vec![device.to_owned()]),
                ..PrivilegesBody::default()
            };
            assert_eq!(privileges(given).is_ok(), named, "{device:?}");
        }
    }
}
