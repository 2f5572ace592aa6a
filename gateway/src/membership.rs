//! How a gateway becomes a member of the mesh and stays one.
//!
//! A cluster's gateway redeems a token ([`join`]) at the observability gateway ([`enrolment`]), keeps what it gets in
//! its data folder ([`credentials`]), and renews its certificate in time ([`renewal`]). The observability gateway knows
//! the members from the inventory ([`registrations`]).

pub(crate) mod credentials;
pub(crate) mod enrolment;
pub(crate) mod join;
pub(crate) mod registrations;
pub(crate) mod renewal;
