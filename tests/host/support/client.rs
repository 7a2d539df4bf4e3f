//! A D-Bus client of a host, where the name of an error matters: busctl prints its text only.

use zbus::{Connection, connection::Builder, zvariant::DynamicType};

use super::{Host, MANAGER};

impl Host {
    /// Calls a method of the manager, which must be refused; answers the error's name and text.
    #[track_caller]
    pub(crate) fn call_refused(
        &self,
        method: &str,
        arguments: &(impl serde::Serialize + DynamicType),
    ) -> (String, String) {
        let [name, path, interface] = MANAGER;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = runtime.block_on(async {
            let bus = self.bus().await?;
            bus.call_method(Some(name), path, Some(interface), method, arguments).await
        });
        match answer {
            Err(zbus::Error::MethodError(name, text, _)) => {
                (name.to_string(), text.unwrap_or_default())
            }
            other => panic!("{method} was not refused: {other:?}"),
        }
    }

    /// The host's system bus, as its root reaches it.
    async fn bus(&self) -> zbus::Result<Connection> {
        let socket = self.root().join("run/dbus/system_bus_socket");
        Builder::address(format!("unix:path={}", socket.display()).as_str())?.build().await
    }
}
