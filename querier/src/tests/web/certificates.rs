//! The tenant of a request comes from the client's certificate.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

/// Writes a CA, and certificates that it signed: of the server, of a client of the organization `a`, and of a client without
/// an organization.
fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::default();
    // Without a name of its own the CA would have that of the certificates.
    params.distinguished_name.push(DnType::CommonName, "a CA for tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for (name, organization) in [("server", None), ("member", Some("a")), ("stranger", None)] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn certificate_of_the_client_names_the_tenant() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let web = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  \
         client_auth_type: RequireAndVerifyClientCert\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    fs::write(file("web.yml"), web).unwrap();
    let (own, other) = (memory(&[("tenant_id", "a")], &["api"]), memory(&[("tenant_id", "b")], &["db"]));
    let args = [
        "query".to_owned(),
        "--http-address=127.0.0.1:0".to_owned(),
        "--grpc-address=127.0.0.1:0".to_owned(),
        format!("--http.config={}", file("web.yml")),
        "--query.tenant-certificate-field=organization".to_owned(),
        "--query.enforce-tenancy".to_owned(),
        format!("--endpoint={}", serve(own).await),
        format!("--endpoint={}", serve(other).await),
    ];
    let config = WebTestCommand::try_parse_from(args).unwrap().args.check().unwrap();
    let startup = Startup::bind(ROLE, &config.args.common).await.unwrap();
    let querier = build(config, startup).await.unwrap();
    wait_for("the querier to be ready", || querier.probes().health().is_ready()).await;
    let ask = async |client: &str| -> Value {
        let mut command = Command::new("curl");
        let port = querier.http_address().port();
        command.args(["-sS", "--max-time", "60", "--cacert", &file("ca.pem"), "-H", "THANOS-TENANT: b"]);
        command.args(["--cert", &file(&format!("{client}.pem")), "--key", &file(&format!("{client}.key"))]);
        command.arg(format!("https://localhost:{port}/api/v1/label/job/values")).env_remove("https_proxy");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    assert_eq!(ask("member").await["data"], json!(["api"]));
    let refused = ask("stranger").await;
    let why = "client certificate: has no organization, which names the tenant";
    assert_eq!((&refused["errorType"], &refused["error"]), (&json!("bad_data"), &json!(why)));
}
