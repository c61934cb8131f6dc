//! Services: programs that a sprite keeps running.
//!
//! Source: behaviour reference §1.9, §4.3.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::ServiceName;

/// What a service is. Serialises as it stands in the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The executable: an absolute path, or looked up on the environment's `PATH`.
    pub cmd: String,
    /// Its arguments, without `argv[0]`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables over those of the sprite.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent: the user's home.
    #[serde(default)]
    pub dir: Option<String>,
    /// Services that have to run before this one is started.
    #[serde(default)]
    pub needs: Vec<ServiceName>,
    /// The port to which the sprite's URL leads. At most one service of a sprite has one.
    #[serde(default)]
    pub http_port: Option<NonZeroU16>,
}

/// Whether a service is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceRun {
    /// It is, whenever the sprite does.
    Started,
    /// A person stopped it; it stays so until a person starts it.
    Stopped,
}

/// Why a service cannot be run as it is described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceSpecError {
    /// There is no command.
    #[error("cmd is required")]
    NoCommand,
    /// A text holds a zero byte, which no process can be given.
    #[error("{field} cannot hold a zero byte")]
    Zero {
        /// Which.
        field: &'static str,
    },
    /// A variable's name is empty or holds `=`.
    #[error("env: the name of a variable cannot be empty or hold '='")]
    Variable,
    /// All texts together are too long.
    #[error("the service is {bytes} bytes long, at most {max} are allowed", max = ServiceSpec::LONGEST)]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// It needs too many others.
    #[error("needs: at most {max} services can be needed", max = ServiceSpec::MOST_NEEDS)]
    Needs,
}

impl ServiceSpec {
    /// Bytes of all its texts together at most: with those of the sprite's environment they fit a command line.
    pub const LONGEST: usize = 64 << 10;
    /// Most services that one needs.
    pub const MOST_NEEDS: usize = 32;
    /// Most services of one sprite.
    pub const MOST: usize = 64;
    /// Bytes of all services of a sprite together at most: they are told to its machine in one message.
    pub const LONGEST_OF_ALL: usize = 512 << 10;

    /// Bytes of its texts.
    #[must_use]
    pub fn length(&self) -> usize {
        let args = self.args.iter().map(|arg| arg.len() + 1);
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2);
        let needs = self.needs.iter().map(|need| need.as_str().len() + 1);
        let dir = self.dir.as_ref().map_or(0, String::len);
        self.cmd.len() + dir + args.chain(env).chain(needs).sum::<usize>()
    }

    /// Checks what can be said of it alone.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), ServiceSpecError> {
        if self.cmd.is_empty() {
            return Err(ServiceSpecError::NoCommand);
        }
        let bytes = self.length();
        if bytes > Self::LONGEST {
            return Err(ServiceSpecError::TooLong { bytes });
        }
        let zero = |text: &String| text.contains('\0');
        let fields = [
            ("cmd", zero(&self.cmd)),
            ("args", self.args.iter().any(zero)),
            ("dir", self.dir.iter().any(zero)),
            (
                "env",
                self.env
                    .iter()
                    .any(|(name, value)| zero(name) || zero(value)),
            ),
        ];
        if let Some((field, _)) = fields.into_iter().find(|(_, wrong)| *wrong) {
            return Err(ServiceSpecError::Zero { field });
        }
        if self
            .env
            .keys()
            .any(|name| name.is_empty() || name.contains('='))
        {
            return Err(ServiceSpecError::Variable);
        }
        if self.needs.len() > Self::MOST_NEEDS {
            return Err(ServiceSpecError::Needs);
        }
        Ok(())
    }
}

/// Why services cannot be those of one sprite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    /// There are too many.
    #[error("a sprite has at most {max} services", max = ServiceSpec::MOST)]
    TooMany,
    /// Together they are too long.
    #[error("all services together are at most {max} bytes long", max = ServiceSpec::LONGEST_OF_ALL)]
    TooLong,
    /// One needs another that is not there.
    #[error("service {service} needs {need}, which does not exist")]
    Unknown {
        /// Who needs.
        service: ServiceName,
        /// Who is not there.
        need: ServiceName,
    },
    /// One needs itself, by way of others or not.
    #[error("needs go round in a circle: {}", .path.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" → "))]
    Cycle {
        /// The way from one back to it.
        path: Vec<ServiceName>,
    },
    /// Two want the sprite's URL.
    // As clients know it. Source: behaviour reference §1.9.
    #[error("another service already has an HTTP port configured: {other}")]
    HttpPort {
        /// Who has it already.
        other: ServiceName,
    },
}

/// Checks what can be said of all services of a sprite; `changed` is the one that is new among them.
///
/// # Errors
/// The first rule that they break.
pub fn check_services(
    services: &BTreeMap<ServiceName, ServiceSpec>,
    changed: &ServiceName,
) -> Result<(), ServicesError> {
    if services.len() > ServiceSpec::MOST {
        return Err(ServicesError::TooMany);
    }
    if services.values().map(ServiceSpec::length).sum::<usize>() > ServiceSpec::LONGEST_OF_ALL {
        return Err(ServicesError::TooLong);
    }
    for (service, spec) in services {
        if let Some(need) = spec.needs.iter().find(|need| !services.contains_key(need)) {
            return Err(ServicesError::Unknown {
                service: service.clone(),
                need: need.clone(),
            });
        }
    }
    if services
        .get(changed)
        .is_some_and(|spec| spec.http_port.is_some())
    {
        let other = services
            .iter()
            .find(|(name, spec)| *name != changed && spec.http_port.is_some());
        if let Some((other, _)) = other {
            return Err(ServicesError::HttpPort {
                other: other.clone(),
            });
        }
    }
    let mut done = BTreeSet::new();
    for service in services.keys() {
        follow(services, service, &mut Vec::new(), &mut done)?;
    }
    Ok(())
}

/// Follows what a service needs; so deep as there are services at most.
fn follow<'a>(
    services: &'a BTreeMap<ServiceName, ServiceSpec>,
    service: &'a ServiceName,
    path: &mut Vec<&'a ServiceName>,
    done: &mut BTreeSet<&'a ServiceName>,
) -> Result<(), ServicesError> {
    if done.contains(service) {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|seen| *seen == service) {
        let path = path[start..].iter().chain([&service]);
        return Err(ServicesError::Cycle {
            path: path.map(|name| (*name).clone()).collect(),
        });
    }
    path.push(service);
    let needs = services.get(service).map(|spec| &spec.needs[..]);
    for need in needs.unwrap_or_default() {
        follow(services, need, path, done)?;
    }
    path.pop();
    done.insert(service);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().expect("a name")
    }

    fn spec(needs: &[&str]) -> ServiceSpec {
        ServiceSpec {
            cmd: "true".to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
            needs: needs.iter().map(|need| name(need)).collect(),
            http_port: None,
        }
    }

    fn checked(services: &[(&str, &[&str])]) -> Result<(), String> {
        let all = services.iter();
        let all = all.map(|(service, needs)| (name(service), spec(needs)));
        check_services(&all.collect(), &name(services[0].0)).map_err(|error| error.to_string())
    }

    #[test]
    fn needs_that_lead_somewhere_are_taken() {
        assert_eq!(
            checked(&[("web", &["db", "cache"]), ("db", &[]), ("cache", &["db"])]),
            Ok(())
        );
    }

    #[test]
    fn needs_that_lead_nowhere_or_round_are_refused() {
        for (services, text) in [
            (
                &[("web", &["db"][..])][..],
                "service web needs db, which does not exist",
            ),
            (
                &[("web", &["web"][..])],
                "needs go round in a circle: web → web",
            ),
            (
                &[("a", &["b"][..]), ("b", &["c"]), ("c", &["b"])],
                "needs go round in a circle: b → c → b",
            ),
        ] {
            assert_eq!(checked(services), Err(text.to_owned()));
        }
    }

    #[test]
    fn one_service_has_the_url() {
        let mut web = spec(&[]);
        web.http_port = NonZeroU16::new(3000);
        let mut services = BTreeMap::from([(name("web"), web.clone()), (name("db"), spec(&[]))]);
        assert_eq!(check_services(&services, &name("web")), Ok(()));
        services.insert(name("api"), web);
        let refused = check_services(&services, &name("api"));
        assert_eq!(refused, Err(ServicesError::HttpPort { other: name("web") }));
        assert_eq!(check_services(&services, &name("db")), Ok(()));
    }

    #[test]
    fn services_end_at_their_limits() {
        let many = |count: usize| {
            let all = (0..count).map(|n| (name(&format!("s{n}")), spec(&[])));
            check_services(&all.collect(), &name("s0"))
        };
        assert_eq!(many(ServiceSpec::MOST), Ok(()));
        assert_eq!(many(ServiceSpec::MOST + 1), Err(ServicesError::TooMany));
        let long = |bytes: usize| {
            let mut spec = spec(&[]);
            spec.cmd = "x".repeat(bytes);
            spec
        };
        assert_eq!(long(ServiceSpec::LONGEST).check(), Ok(()));
        let over = long(ServiceSpec::LONGEST + 1).check();
        assert!(matches!(over, Err(ServiceSpecError::TooLong { .. })));
        let whole = ServiceSpec::LONGEST_OF_ALL / ServiceSpec::LONGEST;
        let all = |count: usize| {
            let all = (0..count).map(|n| (name(&format!("s{n}")), long(ServiceSpec::LONGEST)));
            check_services(&all.collect(), &name("s0"))
        };
        assert_eq!(all(whole), Ok(()));
        assert_eq!(all(whole + 1), Err(ServicesError::TooLong));
    }

    #[test]
    fn what_no_process_can_be_given_is_refused() {
        let base = spec(&[]);
        let empty = ServiceSpec {
            cmd: String::new(),
            ..base.clone()
        };
        assert_eq!(empty.check(), Err(ServiceSpecError::NoCommand));
        let zero = ServiceSpec {
            args: vec!["a\0b".to_owned()],
            ..base.clone()
        };
        assert_eq!(zero.check(), Err(ServiceSpecError::Zero { field: "args" }));
        for variable in ["", "A=B"] {
            let env = BTreeMap::from([(variable.to_owned(), String::new())]);
            let spec = ServiceSpec {
                env,
                ..base.clone()
            };
            assert_eq!(spec.check(), Err(ServiceSpecError::Variable));
        }
    }
}
