//! The flags of tenancy: which tenant asks, and whether it sees only its own series.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName};
use model::Matcher;
use runtime::{CallContext, ClientCertificate, ConfigMistakes};

/// The header between the parts of Thanos; read if the configured header is absent.
const DEFAULT_HEADER: &str = "THANOS-TENANT";

/// `--query.tenant-*`, `--query.default-tenant-id`, `--query.enforce-tenancy`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TenancyArgs {
    /// Read the tenant from this header of each HTTP request; stores receive it as thanos-tenant
    #[arg(long = "query.tenant-header", value_name = "HEADER", default_value = DEFAULT_HEADER)]
    tenant_header: String,

    /// Read the tenant from this field of the client's certificate instead of a header; needs --http.config with
    /// client_auth_type: RequireAndVerifyClientCert. Requests without the field are refused
    #[arg(long = "query.tenant-certificate-field", value_name = "FIELD", value_enum)]
    certificate_field: Option<CertificateField>,

    /// Tenant of requests without that header
    #[arg(long = "query.default-tenant-id", value_name = "TENANT", default_value = "default-tenant")]
    default_tenant: String,

    /// Answer HTTP requests only with series of their tenant, those whose --query.tenant-label-name has the
    /// tenant as its value. Use it only behind a proxy that sets the header. The gRPC port is not restricted
    #[arg(long = "query.enforce-tenancy")]
    enforce_tenancy: bool,

    /// Label that names the tenant of a series
    #[arg(long = "query.tenant-label-name", value_name = "LABEL", default_value = "tenant_id")]
    tenant_label: String,
}

/// A field of the subject of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CertificateField {
    /// O
    #[value(name = "organization")]
    Organization,
    /// OU
    #[value(name = "organizationalUnit")]
    OrganizationalUnit,
    /// CN
    #[value(name = "commonName")]
    CommonName,
}

/// How the tenant of an HTTP request is found, and whether it is enforced.
#[derive(Clone, Debug)]
pub(crate) struct Tenancy {
    header: HeaderName,
    certificate_field: Option<CertificateField>,
    default_tenant: Arc<str>,
    /// The label that each series must have with the tenant as its value; `None` if tenants see all series.
    enforced_label: Option<Arc<str>>,
}

impl TenancyArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Each flag that is wrong.
    pub(crate) fn check(&self) -> Result<Tenancy, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let header = self.tenant_header.parse().map_err(|_| {
            format!("--query.tenant-header={}: is not the name of a header", self.tenant_header)
        });
        let header = mistakes.note(header);
        let tenant = valid(&self.default_tenant).map_err(|why| format!("--query.default-tenant-id: {why}"));
        mistakes.note(tenant);
        if self.tenant_label.is_empty() {
            mistakes.push("--query.tenant-label-name: the name of a label must not be empty");
        }
        match header {
            Some(header) if mistakes.is_empty() => Ok(Tenancy {
                header,
                certificate_field: self.certificate_field,
                default_tenant: self.default_tenant.as_str().into(),
                enforced_label: self.enforce_tenancy.then(|| self.tenant_label.as_str().into()),
            }),
            _ => Err(mistakes),
        }
    }

    /// The settings by flag.
    pub(crate) fn flags(&self) -> BTreeMap<String, String> {
        let shown = [
            ("query.tenant-header", self.tenant_header.clone()),
            (
                "query.tenant-certificate-field",
                self.certificate_field.map_or("", CertificateField::as_str).to_owned(),
            ),
            ("query.default-tenant-id", self.default_tenant.clone()),
            ("query.enforce-tenancy", self.enforce_tenancy.to_string()),
            ("query.tenant-label-name", self.tenant_label.clone()),
        ];
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}

impl Tenancy {
    /// The context of a request with these headers and extensions, within that of the task.
    ///
    /// # Errors
    /// The header or the certificate does not name one tenant.
    pub(crate) fn context(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<CallContext, String> {
        let tenant = match self.certificate_field {
            Some(field) => Some(field.of(extensions.get())?),
            None => self.tenant(headers)?.map(str::to_owned),
        };
        let tenant: Arc<str> = match tenant {
            Some(tenant) => tenant.into(),
            None => Arc::clone(&self.default_tenant),
        };
        let enforced = self.enforced_label.as_deref().map(|label| Matcher::equal(label, &tenant));
        Ok(CallContext::current().with_tenant(tenant, enforced))
    }

    fn tenant<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, String> {
        let thanos = HeaderName::from_static("thanos-tenant");
        for name in [&self.header, &thanos] {
            let mut values = headers.get_all(name).iter();
            let Some(value) = values.next().filter(|value| !value.is_empty()) else { continue };
            let refuse = |why: String| format!("header {name}: {why}");
            if values.next().is_some() {
                return Err(refuse("occurs twice, expected one tenant".to_owned()));
            }
            let text = value.to_str().map_err(|_| refuse("tenant is not printable ASCII".to_owned()))?;
            return valid(text).map(Some).map_err(refuse);
        }
        Ok(None)
    }
}

impl CertificateField {
    fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::OrganizationalUnit => "organizationalUnit",
            Self::CommonName => "commonName",
        }
    }

    /// The tenant that a certificate names.
    fn of(self, certificate: Option<&ClientCertificate>) -> Result<String, String> {
        let name = self.as_str();
        let certificate = certificate.ok_or("the client has no certificate, which names the tenant")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der())
            .map_err(|cause| format!("client certificate: cannot be read: {cause}"))?;
        let subject = parsed.subject();
        let value = match self {
            Self::Organization => subject.iter_organization().next(),
            Self::OrganizationalUnit => subject.iter_organizational_unit().next(),
            Self::CommonName => subject.iter_common_name().next(),
        };
        let tenant = value.and_then(|value| value.as_str().ok());
        let tenant =
            tenant.ok_or_else(|| format!("client certificate: has no {name}, which names the tenant"))?;
        valid(tenant).map(str::to_owned).map_err(|why| format!("client certificate: {name}: {why}"))
    }
}

/// Checks the name of a tenant. As in Thanos, it cannot be a path, because names of folders are made of it.
fn valid(tenant: &str) -> Result<&str, String> {
    match tenant.is_empty() || tenant.contains('/') {
        true => Err(format!("tenant {tenant:?} must not be empty and must not contain '/'")),
        false => Ok(tenant),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::HeaderValue;

    use super::*;

    #[derive(Parser)]
    struct TenancyCommand {
        #[command(flatten)]
        args: TenancyArgs,
    }

    fn check(flags: &[&str]) -> Result<Tenancy, ConfigMistakes> {
        TenancyCommand::parse_from(std::iter::once(&"query").chain(flags)).args.check()
    }

    fn tenant(tenancy: &Tenancy, headers: &[(&'static str, &str)]) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let context = tenancy.context(&map, &Extensions::new())?;
        Ok(format!(
            "{} {}",
            context.tenant().unwrap(),
            context.enforced().map_or(String::new(), |m| m.to_string())
        ))
    }

    #[test]
    fn tenant_comes_from_the_header_or_is_the_default() {
        let plain = check(&[]).unwrap();
        assert_eq!(tenant(&plain, &[]).unwrap(), "default-tenant ");
        assert_eq!(tenant(&plain, &[("thanos-tenant", "a")]).unwrap(), "a ");
        let flags =
            ["--query.tenant-header=X-Team", "--query.default-tenant-id=none", "--query.enforce-tenancy"];
        let own = check(&flags).unwrap();
        assert_eq!(tenant(&own, &[("x-team", "b"), ("thanos-tenant", "a")]).unwrap(), "b tenant_id=\"b\"");
        assert_eq!(tenant(&own, &[("thanos-tenant", "a")]).unwrap(), "a tenant_id=\"a\"");
        assert_eq!(tenant(&own, &[("x-team", "")]).unwrap(), "none tenant_id=\"none\"");
    }

    #[test]
    fn header_that_does_not_name_one_tenant_is_refused() {
        let plain = check(&[]).unwrap();
        for headers in [
            &[("thanos-tenant", "a/b")][..],
            &[("thanos-tenant", "a"), ("thanos-tenant", "b")],
            &[("thanos-tenant", "ä")],
        ] {
            assert!(
                tenant(&plain, headers).unwrap_err().starts_with("header thanos-tenant: "),
                "{headers:?}"
            );
        }
        let flags = ["--query.tenant-header=a b", "--query.default-tenant-id=", "--query.tenant-label-name="];
        assert_eq!(check(&flags).unwrap_err().lines().len(), 3);
        let certificate = check(&["--query.tenant-certificate-field=commonName"]).unwrap();
        let refused = tenant(&certificate, &[("thanos-tenant", "a")]).unwrap_err();
        assert!(refused.starts_with("the client has no certificate"), "{refused}");
    }
}
