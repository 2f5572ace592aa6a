//! What a bundle will do, and why it must not be applied.

use std::time::SystemTime;

use identity::{SpkiPin, TrustDomain};
use serde_json::Value;

use crate::{
    authority::utc,
    cluster_bundle::{
        BUNDLE_METHODS,
        found::{FoundBundle, Part},
    },
    inventory::{ClusterRecord, TokenRecord},
    token::JoinToken,
};

/// What the reader of a bundle knows from elsewhere.
pub(crate) struct Expected<'a> {
    /// The trust domain that it must be for.
    pub(crate) trust_domain: Option<&'a TrustDomain>,
    /// The tokens and the clusters of the issuer, if its state directory was given.
    pub(crate) issuer: Option<(Vec<TokenRecord>, Vec<ClusterRecord>)>,
    pub(crate) now: SystemTime,
}

/// One line about a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) about: &'static str,
    pub(crate) text: String,
    /// Whether the bundle must not be applied for this reason.
    pub(crate) refuses: bool,
}

fn says(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { about, text: text.into(), refuses: false }
}

fn refuses(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { about, text: text.into(), refuses: true }
}

/// Says what a bundle will do, in the order in which a reader asks.
pub(crate) fn examine(found: &FoundBundle, expected: &Expected<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.gateways.is_empty() && found.values.is_empty() && found.tokens.is_empty() {
        return vec![refuses(
            "bundle",
            "there is neither a configuration of a gateway nor a token in it; `pki cluster bundle` writes bundles",
        )];
    }
    let mut claims = claims(found);
    for part in &found.tokens {
        match JoinToken::parse(part.content.expose()) {
            Ok(token) => {
                findings.extend(about_token(&token, part, found, expected));
                claims.push(Claim {
                    found_in: part.found_in.clone(),
                    trust_domain: Some(token.trust_domain().to_string()),
                    cluster: Some(token.cluster().to_string()),
                    environment: None,
                });
            }
            Err(error) => {
                findings.push(refuses("token", format!("{}: {error}; ask for a new bundle", part.found_in)))
            }
        }
    }
    if found.tokens.is_empty() {
        findings.push(says("token", "is not in these files; give the secret part, too, to have it checked"));
    }
    claims.extend(registration(&claims, expected));
    findings.extend(about_identity(&claims, expected));
    found.gateways.iter().for_each(|part| findings.extend(about_gateway(part)));
    found.values.iter().for_each(|part| findings.extend(about_policy(&part.content["gateway"]["policy"])));
    if !found.created.is_empty() {
        findings.push(says("creates", found.created.join(", ")));
    }
    findings
}

/// What one part of a bundle says about whom it is for.
struct Claim {
    found_in: String,
    trust_domain: Option<String>,
    cluster: Option<String>,
    environment: Option<String>,
}

/// What each part says, without the tokens; what decides comes last.
fn claims(found: &FoundBundle) -> Vec<Claim> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let claim = |part: &Part<Value>, from: &Value, domain: &str| Claim {
        found_in: part.found_in.clone(),
        trust_domain: text(&from[domain]),
        cluster: text(&from["cluster"]),
        environment: text(&from["environment"]),
    };
    let gateways = found.gateways.iter().map(|part| claim(part, &part.content["identity"], "trust_domain"));
    let values = found.values.iter().map(|part| claim(part, &part.content, "trustDomain"));
    let scrapers = found.scrapers.iter().map(|part| {
        let labels = &part.content["global"]["external_labels"];
        let mut claim = claim(part, labels, "");
        claim.found_in = format!("{}, external_labels", part.found_in);
        // `$$` is a `$` there.
        claim.environment = claim.environment.map(|text| text.replace("$$", "$"));
        claim
    });
    scrapers.chain(values).chain(gateways).collect()
}

/// What the issuer knows about the cluster of a bundle. A token does not name the environment, and the certificate will have this one.
fn registration(claims: &[Claim], expected: &Expected<'_>) -> Option<Claim> {
    let (_, clusters) = expected.issuer.as_ref()?;
    let name = claims.iter().rev().find_map(|claim| claim.cluster.as_deref())?;
    let record = clusters.iter().find(|record| record.cluster.as_str() == name)?;
    Some(Claim {
        found_in: format!("the registration of {name}"),
        trust_domain: None,
        cluster: None,
        environment: Some(record.environment.clone()),
    })
}

/// Compares what the parts say. What counts most is last: the token and the registration decide what is in the certificate.
fn about_identity(claims: &[Claim], expected: &Expected<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut compare = |what: &'static str, of: fn(&Claim) -> Option<&String>, wanted: Option<String>| {
        let said: Vec<(&str, &String)> =
            claims.iter().rev().filter_map(|claim| Some((claim.found_in.as_str(), of(claim)?))).collect();
        match (said.first(), &wanted) {
            (Some((found_in, value)), Some(wanted)) if *value != wanted => {
                let text = format!(
                    "{found_in}: is for {value:?}, expected {wanted:?}; ask for a bundle of {wanted}"
                );
                findings.push(refuses(what, text));
            }
            (Some((_, value)), _) => findings.push(says(what, value.to_string())),
            (None, _) => {}
        }
        if let Some((first_in, first)) = said.first() {
            for (found_in, value) in said.iter().filter(|(_, value)| value != first) {
                let text = format!(
                    "{found_in}: is {value:?}, but {first_in}: {first:?}; write {first:?}, or ask for the bundle of {value}"
                );
                findings.push(refuses(what, text));
            }
        }
    };
    let domain = expected.trust_domain.map(ToString::to_string);
    compare("trust domain", |claim| claim.trust_domain.as_ref(), domain);
    compare("cluster", |claim| claim.cluster.as_ref(), None);
    compare("environment", |claim| claim.environment.as_ref(), None);
    findings
}

fn about_token(
    token: &JoinToken,
    part: &Part<identity::Secret<String>>,
    found: &FoundBundle,
    expected: &Expected<'_>,
) -> Vec<Finding> {
    let id = token.id();
    let mut findings = vec![
        says("joins", format!("{} with token {id}, {}", token.subject(), part.found_in)),
        says("issuer", format!("{}, under a root with one of these pins:", token.issuer())),
    ];
    findings.extend(token.pins().iter().map(|pin: &SpkiPin| says("root pin", pin.to_string())));
    findings.push(says("dials", format!("{}, UDP and TCP", token.addresses().join(", "))));
    let now = utc(expected.now);
    let record = expected.issuer.as_ref().map(|(tokens, _)| tokens.iter().find(|record| record.id == id));
    let described = found.descriptions.iter().find(|described| described.id == id);
    findings.push(match (record, described) {
        (Some(None), _) => refuses(
            "token",
            format!("{id} is unknown to this issuer; ask the issuer of {}", token.trust_domain()),
        ),
        (Some(Some(record)), _) => match record.state(expected.now) {
            "open" => says("token", format!("{id} can be used once, until {}", record.expires_at)),
            "expired" => expired(&id, &record.expires_at),
            state => refuses("token", format!("{id} is {state}; make a new bundle")),
        },
        (None, Some(described)) if described.expires_at <= now => expired(&id, &described.expires_at),
        (None, Some(described)) => says(
            "token",
            format!("{id} can be used once, until {}, if it was not used yet", described.expires_at),
        ),
        (None, None) => says("token", format!("{id}: nothing here says when it ends; ask the issuer")),
    });
    findings
}

fn expired(id: &str, at: &str) -> Finding {
    refuses("token", format!("{id} expired at {at}; make a new bundle"))
}

fn about_gateway(part: &Part<Value>) -> Vec<Finding> {
    let gateway = &part.content;
    let mut findings = Vec::new();
    for target in gateway["targets"].as_array().into_iter().flatten() {
        let text = |field: &str| target[field].as_str().unwrap_or("?").escape_debug().to_string();
        findings.push(says("store", format!("{} at {}", text("name"), text("address"))));
    }
    let listed = |field: &str| {
        let items = gateway[field].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str()).map(|item| item.escape_debug().to_string()).collect::<Vec<_>>()
    };
    let dialled = listed("dial");
    if !dialled.is_empty() {
        findings
            .push(says("dials", format!("{}, instead of the addresses of the token", dialled.join(", "))));
    }
    if let Some(listen) = gateway["listen"].as_str() {
        findings.push(says("listens", format!("at {}", listen.escape_debug())));
    }
    findings.extend(about_policy(&gateway["policy"]));
    findings
}

/// What the other side will be able to read.
fn about_policy(policy: &Value) -> Vec<Finding> {
    let narrowed = policy["select"].is_string() || policy["max_age"].is_string();
    let methods: Vec<String> = match policy["methods"].as_array() {
        Some(methods) => {
            methods.iter().map(|name| name.as_str().unwrap_or("?").escape_debug().to_string()).collect()
        }
        // Metadata have no labels or times by which they could be narrowed.
        None => BUNDLE_METHODS
            .iter()
            .filter(|method| !narrowed || **method != "MetricMetadata")
            .map(ToString::to_string)
            .collect(),
    };
    let text = |field: &str| policy[field].as_str().map(|text| text.escape_debug().to_string());
    let series =
        text("select").map_or_else(|| "all series".to_owned(), |select| format!("series with {select}"));
    let age = text("max_age").map_or_else(|| "of any age".to_owned(), |age| format!("of the last {age}"));
    vec![says("can be read", format!("{series}, samples {age}, with {}", methods.join(", ")))]
}
