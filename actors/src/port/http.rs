use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::LocalBoxStream;

use super::PortResult;
use crate::context::StepContext;

/// A client for http, https, file and copy URIs that honours apt's proxy, authentication and TLS
/// settings.
#[async_trait(?Send)]
pub trait Http: std::fmt::Debug {
    /// Opens one file. The caller bounds how many are open for one host, and for how long.
    async fn open(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError>;

    /// Reads apt's settings anew, for transfers of `uris`: apt asks some settings for each host.
    /// Called once before each transaction's downloads.
    async fn configure(&self, uris: &[String], context: &StepContext) -> PortResult<()>;
}

/// One file to fetch, perhaps from its middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// Where it is.
    pub uri: String,
    /// How many bytes are there already.
    pub offset: u64,
    /// The validator (`ETag` or `Last-Modified`) of those bytes; a server that has another file by
    /// now answers with the whole of it.
    pub if_range: Option<String>,
}

/// An answer with a body.
pub struct FetchResponse {
    /// Where in the file the body begins: the offset asked for, or 0.
    pub offset: u64,
    /// The whole file's size, where the server tells.
    pub total_bytes: Option<u64>,
    /// The validator for a later `If-Range`.
    pub validator: Option<String>,
    /// The bytes. Ends early on a broken connection, with an error where that can be told.
    pub body: LocalBoxStream<'static, Result<Bytes, FetchError>>,
}

impl std::fmt::Debug for FetchResponse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FetchResponse")
            .field("offset", &self.offset)
            .field("total_bytes", &self.total_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server said no; trying again there is useless.
    #[error("the server answered {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The server cannot at the moment.
    #[error("the server answered {status}")]
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// The connection failed or broke.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the URI, apt's settings or the server want is not done; trying again is useless. A
    /// redirect to a less safe place or in a circle, a certificate's file that cannot be read, …
    #[error("{reason}")]
    Unacceptable {
        /// What is wrong.
        reason: String,
    },
    /// This client does not speak the URI's scheme: apt itself has to.
    #[error("the scheme of {uri} is apt's own business")]
    ForeignScheme {
        /// The URI.
        uri: String,
    },
}
