//! Scrape targets.

use std::ops::Range;

use promapi::{
    ActiveTarget, Alertmanager, AlertmanagerDiscovery, DroppedTarget, TargetDiscovery, TargetHealth,
};
use prost::Message;
use proto::thanos as wire;

use crate::convert::listing::{ListingReader, ReadError, WireListing, number, pieces, set, timestamp};
use crate::convert::read::FieldValue::{Bytes, Fixed, Number};
use crate::convert::request::{partial_from_wire, partial_to_wire};
use crate::{StoreError, TargetState, TargetsRequest};

impl WireListing for TargetDiscovery {
    type WireRequest = wire::TargetsRequest;
    type WireResponse = wire::TargetsResponse;
    const SERVICE: &'static str = wire::targets_server::SERVICE_NAME;
    const PATH: &'static str = "/thanos.Targets/Targets";

    fn request_to_wire(request: &TargetsRequest) -> wire::TargetsRequest {
        use wire::targets_request::State;
        let state = match request.state {
            None => State::Any,
            Some(TargetState::Active) => State::Active,
            Some(TargetState::Dropped) => State::Dropped,
        };
        wire::TargetsRequest {
            state: state.into(),
            partial_response_strategy: partial_to_wire(request.partial_response).1,
            alertmanagers: request.alertmanagers,
        }
    }

    fn request_from_wire(request: wire::TargetsRequest) -> Result<TargetsRequest, StoreError> {
        use wire::targets_request::State;
        let state = match State::try_from(request.state) {
            Ok(State::Any) => None,
            Ok(State::Active) => Some(TargetState::Active),
            Ok(State::Dropped) => Some(TargetState::Dropped),
            Err(_) => {
                let message = format!("targets: state is {}, expected 0, 1 or 2", request.state);
                return Err(StoreError::invalid(message));
            }
        };
        Ok(TargetsRequest {
            state,
            alertmanagers: request.alertmanagers,
            partial_response: partial_from_wire(false, request.partial_response_strategy),
        })
    }

    fn read(reader: &ListingReader<'_>, item: Range<usize>, into: &mut Vec<Self>) -> Result<(), ReadError> {
        let mut targets = Self::default();
        let mut fields = reader.message::<Self>(item)?;
        while let Some(field) = fields.next()? {
            match field {
                (1, Bytes(window)) => targets.active_targets.push(active(reader, window)?),
                (2, Bytes(window)) => targets.dropped_targets.push(dropped(reader, window)?),
                (1000, Bytes(window)) => targets.alertmanagers = Some(alertmanagers(reader, window)?),
                _ => {}
            }
        }
        into.push(targets);
        Ok(())
    }

    fn to_wire(self) -> Vec<wire::TargetsResponse> {
        let active = self.active_targets.into_iter().map(active_to_wire).collect();
        let active = pieces(active, Message::encoded_len)
            .into_iter()
            .map(|active_targets| wire::TargetDiscovery { active_targets, ..Default::default() });
        let dropped = self.dropped_targets.into_iter().map(dropped_to_wire).collect();
        let dropped = pieces(dropped, Message::encoded_len)
            .into_iter()
            .map(|dropped_targets| wire::TargetDiscovery { dropped_targets, ..Default::default() });
        let alertmanagers = self.alertmanagers.map(|alertmanagers| wire::TargetDiscovery {
            alertmanagers: Some(alertmanagers_to_wire(alertmanagers)),
            ..Default::default()
        });
        let mut parts: Vec<_> = active.chain(dropped).chain(alertmanagers).collect();
        // An answer without targets has one empty part, so that it is not taken for a lost one.
        let empty = wire::TargetDiscovery::default();
        parts.retain(|part| *part != empty);
        if parts.is_empty() {
            parts.push(empty);
        }
        let response = |targets| wire::TargetsResponse {
            result: Some(wire::targets_response::Result::Targets(targets)),
        };
        parts.into_iter().map(response).collect()
    }

    fn warning_to_wire(text: String) -> wire::TargetsResponse {
        wire::TargetsResponse { result: Some(wire::targets_response::Result::Warning(text)) }
    }
}

fn active(reader: &ListingReader<'_>, window: Range<usize>) -> Result<ActiveTarget, ReadError> {
    // The default of the wire is the first value.
    let mut target = ActiveTarget { health: TargetHealth::Down, ..ActiveTarget::default() };
    let mut fields = reader.message::<ActiveTarget>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => target.discovered_labels = reader.labels(window)?,
            (2, Bytes(window)) => target.labels = reader.labels(window)?,
            (3, Bytes(window)) => target.scrape_pool = reader.text(window)?,
            (4, Bytes(window)) => target.scrape_url = reader.text(window)?,
            (5, Bytes(window)) => target.global_url = reader.text(window)?,
            (6, Bytes(window)) => target.last_error = reader.text(window)?,
            (7, Bytes(window)) => target.last_scrape = reader.time(window)?,
            (8, Fixed(bits)) => target.last_scrape_seconds = number(bits),
            (9, Number(health)) => {
                target.health = match health {
                    0 => TargetHealth::Down,
                    1 => TargetHealth::Up,
                    _ => TargetHealth::Unknown,
                }
            }
            (1000, Bytes(window)) => target.scrape_interval = reader.text(window)?,
            (1001, Bytes(window)) => target.scrape_timeout = reader.text(window)?,
            _ => {}
        }
    }
    Ok(target)
}

fn dropped(reader: &ListingReader<'_>, window: Range<usize>) -> Result<DroppedTarget, ReadError> {
    let mut target = DroppedTarget::default();
    let mut fields = reader.message::<DroppedTarget>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => target.discovered_labels = reader.labels(window)?,
            (1000, Bytes(window)) => target.scrape_pool = reader.text(window)?,
            _ => {}
        }
    }
    Ok(target)
}

fn alertmanagers(
    reader: &ListingReader<'_>,
    window: Range<usize>,
) -> Result<AlertmanagerDiscovery, ReadError> {
    let mut found = AlertmanagerDiscovery::default();
    let mut fields = reader.message::<()>(window)?;
    while let Some(field) = fields.next()? {
        let (list, window) = match field {
            (1, Bytes(window)) => (&mut found.active_alertmanagers, window),
            (2, Bytes(window)) => (&mut found.dropped_alertmanagers, window),
            _ => continue,
        };
        // Counts the room of the item; its text has no fields.
        let _ = reader.message::<Alertmanager>(window.clone())?;
        list.push(Alertmanager { url: reader.text(window)? });
    }
    Ok(found)
}

fn alertmanagers_to_wire(found: AlertmanagerDiscovery) -> wire::Alertmanagers {
    let urls = |list: Vec<Alertmanager>| list.into_iter().map(|one| one.url).collect();
    wire::Alertmanagers {
        active: urls(found.active_alertmanagers),
        dropped: urls(found.dropped_alertmanagers),
    }
}

fn active_to_wire(target: ActiveTarget) -> wire::ActiveTarget {
    let health = match target.health {
        TargetHealth::Down => wire::TargetHealth::Down,
        TargetHealth::Up => wire::TargetHealth::Up,
        TargetHealth::Unknown => wire::TargetHealth::UnknownHealth,
    };
    wire::ActiveTarget {
        discovered_labels: set(&target.discovered_labels),
        labels: set(&target.labels),
        scrape_pool: target.scrape_pool,
        scrape_url: target.scrape_url,
        global_url: target.global_url,
        last_error: target.last_error,
        last_scrape: timestamp(target.last_scrape),
        last_scrape_duration: target.last_scrape_seconds,
        health: health.into(),
        scrape_interval: target.scrape_interval,
        scrape_timeout: target.scrape_timeout,
    }
}

fn dropped_to_wire(target: DroppedTarget) -> wire::DroppedTarget {
    wire::DroppedTarget { discovered_labels: set(&target.discovered_labels), scrape_pool: target.scrape_pool }
}
