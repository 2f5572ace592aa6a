//! Credentials of Google that are exchanged for tokens, against stand-ins for its token services on this machine.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bucket::{Bucket, BucketConfig, BucketError, BucketMetrics, ErrorKind};
use serde_json::{Value, json};

/// What the services were asked, and how long their tokens are valid.
#[derive(Clone, Default)]
struct TokenServices(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    exchanges: Vec<String>,
    impersonations: Vec<String>,
    expires_in: u64,
}

async fn answer(State(services): State<TokenServices>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let header = |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut asked = services.0.lock().unwrap();
    match head.uri.path() {
        "/identity" if header("metadata") == "true" => {
            json!({ "token": "subject" }).to_string().into_response()
        }
        // As of a proxy that answers with something else.
        "/endless" => {
            let piece = || Some(Ok::<_, std::io::Error>(axum::body::Bytes::from_static(&[b'x'; 1 << 16])));
            axum::body::Body::from_stream(futures::stream::iter(std::iter::from_fn(piece))).into_response()
        }
        "/token" if body.contains("subject_token=subject&") || body.ends_with("subject_token=subject") => {
            asked.exchanges.push(body);
            json!({ "access_token": "federated", "expires_in": asked.expires_in }).to_string().into_response()
        }
        "/token" if body.contains("refresh_token=once") => {
            asked.exchanges.push(body);
            json!({ "access_token": "personal", "expires_in": asked.expires_in }).to_string().into_response()
        }
        "/token" => {
            (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }).to_string()).into_response()
        }
        "/impersonate" => {
            asked.impersonations.push(header("authorization"));
            json!({ "accessToken": "impersonated", "expireTime": "2999-01-01T00:00:00Z" })
                .to_string()
                .into_response()
        }
        // The bucket: an object whose content is the credential of the request.
        "/blocks/object" => {
            let described = [("etag", "\"1\""), ("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT")];
            (described, header("authorization")).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The services, and their URL.
async fn start() -> (TokenServices, String) {
    let services = TokenServices::default();
    services.0.lock().unwrap().expires_in = 3600;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(answer).with_state(services.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (services, url)
}

fn open(url: &str, mut credential: Value) -> Bucket {
    credential["gcs_base_url"] = url.into();
    let config = json!({
        "type": "GCS",
        "config": { "bucket": "blocks", "service_account": credential.to_string(), "max_retries": 1 }
    });
    BucketConfig::parse(&config.to_string()).unwrap().open(&BucketMetrics::default()).unwrap()
}

async fn credential_of(bucket: &Bucket) -> Result<String, BucketError> {
    bucket.get("object").await.map(|content| String::from_utf8(content.to_vec()).unwrap())
}

fn federated(url: &str, source: Value) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/pools/p/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{url}/token"),
        "credential_source": source,
    })
}

#[tokio::test]
async fn a_subject_token_in_a_file_is_exchanged_once_until_the_token_expires() {
    let (services, url) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("subject");
    std::fs::write(&file, "subject\n").unwrap();
    let bucket = open(&url, federated(&url, json!({ "file": file })));
    for _ in 0..3 {
        assert_eq!(credential_of(&bucket).await.unwrap(), "Bearer federated");
    }
    let asked = std::mem::take(&mut *services.0.lock().unwrap());
    let [exchange] = &asked.exchanges[..] else { panic!("{:?}", asked.exchanges) };
    for part in [
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "audience=%2F%2Fiam.googleapis.com%2Fprojects%2F1%2Fpools%2Fp%2Fproviders%2Fx",
        "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform",
        "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
    ] {
        assert!(exchange.split('&').any(|other| other == part), "{part}: {exchange}");
    }

    // Tokens that expire at once are fetched again for each request.
    let bucket = open(&url, federated(&url, json!({ "file": file })));
    for _ in 0..2 {
        credential_of(&bucket).await.unwrap();
    }
    assert_eq!(services.0.lock().unwrap().exchanges.len(), 2);

    std::fs::remove_file(&file).unwrap();
    let error = credential_of(&bucket).await.unwrap_err().to_string();
    assert!(error.contains("access token of Google: read ") && error.contains("subject"), "{error}");
}

#[tokio::test]
async fn a_subject_token_from_a_url_is_exchanged_for_that_of_a_service_account() {
    let (services, url) = start().await;
    let source = json!({
        "url": format!("{url}/identity"),
        "headers": { "Metadata": "true" },
        "format": { "type": "json", "subject_token_field_name": "token" },
    });
    let mut credential = federated(&url, source);
    credential["service_account_impersonation_url"] = format!("{url}/impersonate").into();
    let bucket = open(&url, credential);
    for _ in 0..2 {
        assert_eq!(credential_of(&bucket).await.unwrap(), "Bearer impersonated");
    }
    assert_eq!(services.0.lock().unwrap().impersonations, ["Bearer federated"]);
}

#[tokio::test]
async fn endless_answers_and_files_are_refused() {
    let (_services, url) = start().await;
    for source in [json!({ "url": format!("{url}/endless") }), json!({ "file": "/dev/zero" })] {
        let error = credential_of(&open(&url, federated(&url, source))).await.unwrap_err().to_string();
        assert!(error.contains("limit") || error.contains("larger than 1048576 bytes"), "{error}");
    }
    let mut credential =
        federated(&url, json!({ "url": format!("{url}/identity"), "headers": { "Metadata": "true" } }));
    credential["token_url"] = format!("{url}/endless").into();
    let error = credential_of(&open(&url, credential)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{url}/endless: ")) && error.contains("limit"), "{error}");
}

#[tokio::test]
async fn the_login_of_a_person_is_used_and_a_refused_one_is_named_without_secrets() {
    let (_services, url) = start().await;
    let person = |refresh: &str| {
        json!({
            "type": "authorized_user",
            "client_id": "id",
            "client_secret": "hidden",
            "refresh_token": refresh,
            "token_uri": format!("{url}/token"),
        })
    };
    assert_eq!(credential_of(&open(&url, person("once"))).await.unwrap(), "Bearer personal");
    let impersonated = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!("{url}/impersonate"),
        "source_credentials": person("once"),
    });
    assert_eq!(credential_of(&open(&url, impersonated)).await.unwrap(), "Bearer impersonated");

    let error = credential_of(&open(&url, person("revoked"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("{url}/token: answered 400")) && text.contains("invalid_grant"), "{text}");
    assert!(!text.contains("hidden") && !text.contains("revoked"), "{text}");
}

#[test]
fn credentials_that_cannot_be_used_are_rejected_with_their_reason() {
    let check = |credential: Value, expected: &str| {
        let config =
            json!({ "type": "GCS", "config": { "bucket": "b", "service_account": credential.to_string() } });
        let error = BucketConfig::parse(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains("service_account") && error.contains(expected), "{expected}: {error}");
    };
    let sts = "https://sts.googleapis.com/v1";
    check(federated(sts, json!({ "environment_id": "aws1", "url": "http://x" })), "of AWS or of a program");
    check(federated(sts, json!({ "executable": { "command": "x" } })), "of AWS or of a program");
    check(federated(sts, json!({})), "expected one of them");
    check(
        federated(sts, json!({ "file": "x", "format": { "type": "json" } })),
        "has no subject_token_field_name",
    );
    check(federated("http://sts.example.com", json!({ "file": "x" })), "expected https");
    check(json!({ "type": "external_account" }), "has no credential_source");
    check(json!({ "type": "authorized_user", "client_id": "x" }), "has no client_secret");
    check(
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": "https://iam",
            "source_credentials": { "type": "service_account" },
        }),
        "is of type service_account",
    );
}
