//! An HTTP client with the settings that Prometheus has for its targets: credentials, TLS, proxies, redirects, headers.
//!
//! [`HttpClientConfig`] reads them from a configuration file; [`HttpClient`] sends requests with them. Whoever scrapes, discovers
//! targets over HTTP or sends samples uses both. [`HttpEndpoints`] finds the endpoints of a service that runs several times.
//!
//! Not here: retries, timeouts of whole requests, decompression. The caller knows what it asks for.

mod client;
mod config;
mod duration;
mod endpoints;
mod oauth2;
mod proxy;
mod secret;
mod transport;

pub use client::HttpClient;
pub use config::{AuthorizationConfig, HeaderConfig, HttpClientConfig, OAuth2Config};
pub use duration::{yaml_duration, yaml_duration_if_any};
pub use endpoints::{
    DnsCounters, HttpAddress, HttpAddressError, HttpEndpoints, HttpEndpointsConfig, HttpFilesConfig,
};
pub use proxy::{NoProxy, Proxies, ProxyConfig};
pub use secret::Secret;
pub use transport::{HttpError, HttpResponse};
