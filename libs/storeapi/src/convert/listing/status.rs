//! Statistics of TSDBs.

use std::ops::Range;

use promapi::{HeadStats, TsdbStat, TsdbStatus};
use proto::thanos as wire;

use crate::convert::listing::{ListingReader, ReadError, WireListing};
use crate::convert::matchers::{matchers_from_wire, matchers_to_wire};
use crate::convert::read::FieldValue::{Bytes, Number};
use crate::convert::request::{partial_from_wire, partial_to_wire};
use crate::{StoreError, TenantTsdbStatus, TsdbStatusRequest};

impl WireListing for TenantTsdbStatus {
    type WireRequest = wire::TsdbStatisticsRequest;
    type WireResponse = wire::TsdbStatisticsResponse;
    const SERVICE: &'static str = wire::status_server::SERVICE_NAME;
    const PATH: &'static str = "/thanos.Status/TSDBStatistics";

    fn request_to_wire(request: &TsdbStatusRequest) -> wire::TsdbStatisticsRequest {
        wire::TsdbStatisticsRequest {
            tenant: request.tenant.clone(),
            limit: request.limit.map_or(0, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            partial_response_strategy: partial_to_wire(request.partial_response).1,
            matchers: matchers_to_wire(&request.matchers),
        }
    }

    fn request_from_wire(request: wire::TsdbStatisticsRequest) -> Result<TsdbStatusRequest, StoreError> {
        Ok(TsdbStatusRequest {
            tenant: request.tenant,
            limit: usize::try_from(request.limit).ok().filter(|limit| *limit > 0),
            matchers: matchers_from_wire(&request.matchers)?,
            partial_response: partial_from_wire(false, request.partial_response_strategy),
        })
    }

    fn read(reader: &ListingReader<'_>, item: Range<usize>, into: &mut Vec<Self>) -> Result<(), ReadError> {
        let mut fields = reader.message::<()>(item)?;
        while let Some(field) = fields.next()? {
            if let (1, Bytes(window)) = field {
                into.push(tenant(reader, window)?);
            }
        }
        Ok(())
    }

    fn to_wire(self) -> Vec<wire::TsdbStatisticsResponse> {
        let statistics = wire::TsdbStatistics {
            statistics: [(self.tenant, status_to_wire(self.status))].into_iter().collect(),
        };
        vec![wire::TsdbStatisticsResponse {
            result: Some(wire::tsdb_statistics_response::Result::Statistics(statistics)),
        }]
    }

    fn warning_to_wire(text: String) -> wire::TsdbStatisticsResponse {
        wire::TsdbStatisticsResponse { result: Some(wire::tsdb_statistics_response::Result::Warning(text)) }
    }
}

fn tenant(reader: &ListingReader<'_>, window: Range<usize>) -> Result<TenantTsdbStatus, ReadError> {
    let mut tenant = TenantTsdbStatus::default();
    let mut fields = reader.message::<TenantTsdbStatus>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => tenant.tenant = reader.text(window)?,
            (2, Bytes(window)) => tenant.status = status(reader, window)?,
            _ => {}
        }
    }
    Ok(tenant)
}

fn status(reader: &ListingReader<'_>, window: Range<usize>) -> Result<TsdbStatus, ReadError> {
    let mut status = TsdbStatus::default();
    let mut fields = reader.message::<()>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => status.head_stats = head(reader, window)?,
            (2, Bytes(window)) => status.series_count_by_metric_name.push(stat(reader, window)?),
            (3, Bytes(window)) => status.label_value_count_by_label_name.push(stat(reader, window)?),
            (4, Bytes(window)) => status.memory_in_bytes_by_label_name.push(stat(reader, window)?),
            (5, Bytes(window)) => status.series_count_by_label_value_pair.push(stat(reader, window)?),
            _ => {}
        }
    }
    Ok(status)
}

fn head(reader: &ListingReader<'_>, window: Range<usize>) -> Result<HeadStats, ReadError> {
    let mut head = HeadStats::default();
    let mut fields = reader.message::<()>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Number(n)) => head.num_series = n,
            (2, Number(n)) => head.num_label_pairs = n as i64,
            (3, Number(n)) => head.chunk_count = n as i64,
            (4, Number(n)) => head.min_time = n as i64,
            (5, Number(n)) => head.max_time = n as i64,
            _ => {}
        }
    }
    Ok(head)
}

fn stat(reader: &ListingReader<'_>, window: Range<usize>) -> Result<TsdbStat, ReadError> {
    let mut stat = TsdbStat::default();
    let mut fields = reader.message::<TsdbStat>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => stat.name = reader.text(window)?,
            (2, Number(n)) => stat.value = n,
            _ => {}
        }
    }
    Ok(stat)
}

fn status_to_wire(status: TsdbStatus) -> wire::TsdbStatisticsEntry {
    let stats = |stats: Vec<TsdbStat>| -> Vec<wire::Statistic> {
        stats.into_iter().map(|stat| wire::Statistic { name: stat.name, value: stat.value }).collect()
    };
    let head = status.head_stats;
    wire::TsdbStatisticsEntry {
        head_statistics: Some(wire::HeadStatistics {
            num_series: head.num_series,
            num_label_pairs: head.num_label_pairs,
            chunk_count: head.chunk_count,
            min_time: head.min_time,
            max_time: head.max_time,
        }),
        series_count_by_metric_name: stats(status.series_count_by_metric_name),
        label_value_count_by_label_name: stats(status.label_value_count_by_label_name),
        memory_in_bytes_by_label_name: stats(status.memory_in_bytes_by_label_name),
        series_count_by_label_value_pair: stats(status.series_count_by_label_value_pair),
    }
}
