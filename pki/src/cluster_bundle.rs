//! The cluster bundle: what the owner of a cluster applies so that it joins the mesh.
//!
//! A bundle is written in one of four formats. Each has a part that is secret (the join token) and one that is not. Every format
//! starts the same: a gateway whose configuration says which cluster it is for, and a store with the external labels of the registration.

mod check;
mod found;
mod kubernetes;
mod machines;
mod text;

use identity::{Name, TrustDomain};

use crate::{error::PkiError, token::JoinToken};

pub(crate) use check::{Expected, examine};
pub(crate) use found::FoundBundle;

/// The methods that a bundle allows: the defaults of the gateway, which has a test that compares them.
pub const BUNDLE_METHODS: [&str; 5] = ["Info", "Series", "LabelNames", "LabelValues", "MetricMetadata"];

/// Annotations of the Secret with a token, which are not secret.
mod annotations {
    /// The ids of the tokens, as `pki token list` prints them, with commas between them.
    pub(super) const TOKEN_ID: &str = "isthmus/token-id";
    /// When the tokens end.
    pub(super) const TOKEN_END: &str = "isthmus/token-expires-at";
}

/// Begins the line of a file that says what the last line is. Without it, a file that was cut off between two objects would be a bundle.
const LAST_LINE: &str = "# The last line of this file is: ";

/// Most gateways for which one bundle can be made. A cluster with more of them makes another bundle.
pub(crate) const MAX_GATEWAYS: u8 = 8;

/// Name of the file, or of the key of a Secret, with the token.
const TOKEN_FILE: &str = "token";

/// Who applies a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BundleFormat {
    /// Objects for `kubectl apply --server-side`
    Kubernetes,
    /// A folder with values for the chart isthmus-client, and a Secret
    Helm,
    /// A folder with units of systemd and the files that they read
    Systemd,
    /// A folder for `docker compose`
    Compose,
}

/// What a bundle is made of.
pub(crate) struct ClusterBundle<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) cluster: &'a Name,
    pub(crate) environment: &'a str,
    /// The token of the first gateway.
    pub(crate) token: &'a JoinToken,
    /// Those of the gateways beside it. Each token works once, so each gateway has one of its own.
    pub(crate) more_tokens: &'a [JoinToken],
    /// When the tokens end, in UTC.
    pub(crate) expires_at: String,
}

impl ClusterBundle<'_> {
    /// All tokens, in the order of the gateways.
    fn tokens(&self) -> impl Iterator<Item = &JoinToken> {
        std::iter::once(self.token).chain(self.more_tokens)
    }

    /// How many gateways the bundle starts.
    fn gateways(&self) -> usize {
        1 + self.more_tokens.len()
    }

    /// The files of the bundle in a format.
    pub(crate) fn files(&self, format: BundleFormat) -> Vec<BundleFile> {
        match format {
            BundleFormat::Kubernetes => kubernetes::kubernetes(self),
            BundleFormat::Helm => kubernetes::helm(self),
            BundleFormat::Systemd => machines::systemd(self),
            BundleFormat::Compose => machines::compose(self),
        }
    }
}

impl BundleFormat {
    /// Whether a bundle is one file rather than a folder.
    pub(crate) fn is_one_file(self) -> bool {
        self == Self::Kubernetes
    }

    /// Checks that the values of a bundle can be written in this format.
    ///
    /// # Errors
    /// What is permitted.
    pub(crate) fn check(self, environment: &str, gateways: u8) -> Result<(), PkiError> {
        match self {
            Self::Kubernetes => kubernetes::check_environment(environment),
            Self::Helm => Ok(()),
            Self::Systemd | Self::Compose if gateways == 1 => Ok(()),
            Self::Systemd | Self::Compose => Err(PkiError::Usage(format!(
                "--gateways {gateways}: a machine has one gateway; make a bundle for each machine"
            ))),
        }
    }
}

/// A file of a bundle.
#[derive(Debug)]
pub(crate) struct BundleFile {
    pub(crate) name: &'static str,
    pub(crate) content: identity::Secret<String>,
    pub(crate) is_secret: bool,
}

impl BundleFile {
    fn open(name: &'static str, content: String) -> Self {
        Self { name, content: identity::Secret::new(content), is_secret: false }
    }

    /// The contents of several files in one.
    pub(crate) fn joined(files: &[Self]) -> Self {
        let contents: Vec<&str> = files.iter().map(|file| file.content.expose().as_str()).collect();
        let content = contents.concat();
        let is_secret = files.iter().any(|file| file.is_secret);
        Self { name: "", content: identity::Secret::new(content), is_secret }
    }

    /// A secret file of several parts. A text that grows part by part would leave copies behind.
    fn secret(name: &'static str, parts: &[&str]) -> Self {
        Self { name, content: identity::Secret::new(parts.concat()), is_secret: true }
    }
}
