//! How a gateway becomes a member of the mesh and stays one.
//!
//! A cluster's gateway redeems a token ([`join`]) at the observability gateway ([`enrolment`]), stores the result in
//! its data directory ([`credentials`]), and renews its certificate in time ([`renewal`]). The observability gateway reads
//! the registered clusters from the inventory ([`registrations`]).

mod awaited;
pub(crate) mod credentials;
pub(crate) mod enrolment;
pub(crate) mod join;
pub(crate) mod outbound_enrolment;
pub(crate) mod received;
pub(crate) mod recovery;
pub(crate) mod registrations;
pub(crate) mod renewal;
pub(crate) mod token_file;
