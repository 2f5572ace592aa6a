//! The flags of every role.

use std::time::Duration;

use crate::address::ListenAddress;
use crate::duration::parse_duration;
use crate::grpc_tls::GrpcTlsArgs;
use crate::logs::{LogFormat, LogLevel};
use crate::request_log::RequestLogArgs;
use crate::trace::TracingArgs;

/// The flags of every role, with Thanos' names and defaults; flatten them into the role's own flags.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Serve HTTP on this address: metrics, probes, reload, and the role's own endpoints; an empty host means all
    /// interfaces
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:10902")]
    pub http_address: ListenAddress,

    /// Let open HTTP requests finish for this long after the signal to stop; 0 cuts them at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub http_grace_period: Duration,

    /// Serve gRPC on this address; an empty host means all interfaces
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:10901")]
    pub grpc_address: ListenAddress,

    /// Let open gRPC calls finish for this long after the signal to stop; 0 cuts them at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub grpc_grace_period: Duration,

    /// After the signal to stop, report that the role is not ready and serve on for this long, so that load balancers and DNS
    /// stop sending requests; the grace periods begin after it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub drain_delay: Duration,

    /// Ask the client of a gRPC connection of this age to reconnect, while its open calls continue; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "60m", value_parser = parse_duration)]
    pub grpc_server_max_connection_age: Duration,

    /// TLS of the gRPC server.
    #[command(flatten)]
    pub grpc_tls: GrpcTlsArgs,

    /// Read TLS, basic authentication, headers and a rate limit of the HTTP server from this file, in the form of
    /// Prometheus' --web.config.file; it is read again when it changes
    #[arg(long = "http.config", value_name = "FILE")]
    pub http_config: Option<String>,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,

    /// The request log.
    #[command(flatten)]
    pub request_log: RequestLogArgs,

    /// Write log lines of this severity and above
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", value_enum)]
    pub log_level: LogLevel,

    /// Write log lines in this format
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", value_enum)]
    pub log_format: LogFormat,
}

impl CommonArgs {
    /// The longer of the two grace periods: the longest time that the role takes to stop.
    pub fn grace_period(&self) -> Duration {
        self.http_grace_period.max(self.grpc_grace_period)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestFlags {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn defaults_are_those_of_thanos() {
        let role = TestFlags::try_parse_from(["role"]).unwrap();
        assert_eq!(role.common.http_address.to_string(), "0.0.0.0:10902");
        assert_eq!(role.common.grpc_address.to_string(), "0.0.0.0:10901");
        assert_eq!(role.common.grace_period(), Duration::from_secs(120));
        assert_eq!(role.common.log_level, LogLevel::Info);
    }

    #[test]
    fn wrong_values_are_rejected_with_the_reason() {
        let error = |args: &[&str]| match TestFlags::try_parse_from(args) {
            Ok(_) => String::from("accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error(&["role", "--http-address=10902"]).contains("has no port"));
        assert!(error(&["role", "--grpc-grace-period=soon"]).contains("is not a duration"));
        assert!(error(&["role", "--log.level=loud"]).contains("debug, info, warn, error"));
        assert_eq!(error(&["role", "--log.level=debug", "--log.format=json"]), "accepted");
    }
}
