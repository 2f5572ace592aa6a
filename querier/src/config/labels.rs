//! The flags that limit what stores may send as labels.

use storeapi::LabelLimits;

/// Limits on labels, with the names that they have in a scrape configuration of Prometheus.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LabelArgs {
    /// Drop each series of an --endpoint that has more labels than this, with a warning; 0 for no limit
    #[arg(long = "endpoint.label-limit", value_name = "N", default_value_t = 0)]
    pub(crate) endpoint_label_limit: usize,

    /// Drop each series, label name and label value of an --endpoint with a label name of more bytes than
    /// this, with a warning; 0 for no limit
    #[arg(long = "endpoint.label-name-length-limit", value_name = "BYTES", default_value_t = 0)]
    pub(crate) endpoint_name_limit: usize,

    /// Drop each series and label value of an --endpoint with a label value of more bytes than this, with a
    /// warning; 0 for no limit
    #[arg(long = "endpoint.label-value-length-limit", value_name = "BYTES", default_value_t = 0)]
    pub(crate) endpoint_value_limit: usize,

    /// Like --endpoint.label-limit, for the stores that a --gateway announces; 0 for no limit
    #[arg(long = "gateway.label-limit", value_name = "N", default_value_t = 1000)]
    pub(crate) gateway_label_limit: usize,

    /// Like --endpoint.label-name-length-limit, for the stores that a --gateway announces; 0 for no limit
    #[arg(long = "gateway.label-name-length-limit", value_name = "BYTES", default_value_t = 16_384)]
    pub(crate) gateway_name_limit: usize,

    /// Like --endpoint.label-value-length-limit, for the stores that a --gateway announces; 0 for no limit
    #[arg(long = "gateway.label-value-length-limit", value_name = "BYTES", default_value_t = 1_048_576)]
    pub(crate) gateway_value_limit: usize,
}

impl LabelArgs {
    /// The limits for endpoints given by address.
    pub(crate) fn endpoint(&self) -> LabelLimits {
        LabelLimits {
            labels: limit(self.endpoint_label_limit),
            name_bytes: limit(self.endpoint_name_limit),
            value_bytes: limit(self.endpoint_value_limit),
            flags: "--endpoint",
        }
    }

    /// The limits for the stores of gateways.
    pub(crate) fn gateway(&self) -> LabelLimits {
        LabelLimits {
            labels: limit(self.gateway_label_limit),
            name_bytes: limit(self.gateway_name_limit),
            value_bytes: limit(self.gateway_value_limit),
            flags: "--gateway",
        }
    }

    /// The settings by flag.
    pub(crate) fn shown(&self) -> [(&'static str, String); 6] {
        [
            ("endpoint.label-limit", self.endpoint_label_limit.to_string()),
            ("endpoint.label-name-length-limit", self.endpoint_name_limit.to_string()),
            ("endpoint.label-value-length-limit", self.endpoint_value_limit.to_string()),
            ("gateway.label-limit", self.gateway_label_limit.to_string()),
            ("gateway.label-name-length-limit", self.gateway_name_limit.to_string()),
            ("gateway.label-value-length-limit", self.gateway_value_limit.to_string()),
        ]
    }
}

fn limit(number: usize) -> Option<usize> {
    Some(number).filter(|number| *number > 0)
}
