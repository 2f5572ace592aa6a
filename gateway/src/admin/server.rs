//! The server of the admin socket.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::UnixListener;

use crate::admin::{report::ErrorReport, socket_path, view::GatewayView};
use crate::serving::ServingState;

/// The socket, bound. The file is removed when this is dropped.
pub(crate) struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A socket that stays is replaced at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl AdminSocket {
    /// Binds the socket in a data directory that no other process uses. A socket that a killed process left is replaced.
    ///
    /// # Errors
    /// The path is too long for a socket (about 100 bytes), something else has it, or it cannot be created.
    pub(crate) fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = socket_path(data_dir);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => {
                return Err(io::Error::other(format!(
                    "{}: is not a socket; remove it, and restart the gateway",
                    path.display()
                )));
            }
            Err(_) => {}
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // The directory has mode 0700, so that others cannot connect before the mode of the socket is set.
        let listener = UnixListener::bind(&path).map_err(named)?;
        let file = SocketFile(path.clone());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(named)?;
        Ok(Self { listener, file })
    }

    /// Serves until the future is dropped.
    pub(crate) async fn serve(self, view: Arc<GatewayView>) {
        let Self { listener, file } = self;
        if let Err(error) = axum::serve(listener, router(view)).await {
            tracing::warn!(%error, "the admin socket has failed");
        }
        drop(file);
    }
}

fn router(view: Arc<GatewayView>) -> Router {
    Router::new()
        .route("/v1/status", get(|State(view): State<Arc<GatewayView>>| async move { Json(view.status()) }))
        .route("/v1/peers", get(|State(view): State<Arc<GatewayView>>| async move { Json(view.peers()) }))
        .route("/v1/targets", get(|State(view): State<Arc<GatewayView>>| async move { Json(view.targets()) }))
        .route(
            "/v1/certs",
            get(|State(view): State<Arc<GatewayView>>| async move { Json(view.certificates()) }),
        )
        .route("/v1/connect-test", post(connect_test))
        .route("/v1/pause", post(|view| change(view, ServingState::Paused)))
        .route("/v1/drain", post(|view| change(view, ServingState::Draining)))
        .route("/v1/resume", post(|view| change(view, ServingState::Serving)))
        .with_state(view)
}

async fn connect_test(State(view): State<Arc<GatewayView>>) -> Response {
    Json((view.connect_test)().await).into_response()
}

async fn change(State(view): State<Arc<GatewayView>>, to: ServingState) -> Response {
    match view.change(to) {
        Ok(changed) => Json(changed).into_response(),
        Err(error) => (StatusCode::CONFLICT, Json(ErrorReport { error })).into_response(),
    }
}
