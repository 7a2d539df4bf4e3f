//! Failures as D-Bus errors: `org.aptostree1.Error.<Code>`, with what happened, what was kept and
//! what to do in the message.

use apt_ostree_proto::Failure;
use apt_ostree_proto::dbus::ERROR_PREFIX;
use zbus::message::Message;
use zbus::names::ErrorName;

/// A failure on its way to a caller.
#[derive(Debug)]
pub struct Error {
    failure: Box<Failure>,
    name: String,
    text: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let name = format!("{ERROR_PREFIX}{}", failure.code);
        let text = format!("{}. {}", failure.message, failure.hint);
        Self { failure: Box::new(failure), name, text }
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        let code = apt_ostree_proto::ErrorCode::Internal;
        Failure::caused(code, "the bus failed", &error).into()
    }
}

impl From<actix::MailboxError> for Error {
    fn from(error: actix::MailboxError) -> Self {
        let code = apt_ostree_proto::ErrorCode::Internal;
        Failure::caused(code, "the coordinator is gone", &error).into()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &zbus::message::Header<'_>) -> zbus::Result<Message> {
        let name = ErrorName::try_from(self.name.as_str())?;
        Message::error(call, name)?.build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        // Codes are identifiers, so the name is always well formed.
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}
