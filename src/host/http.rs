//! The real http port: reqwest with apt's settings.
//!
//! HTTP/1.1 only. Many short connections side by side are what hides latency and a mirror's limit a
//! connection; HTTP/2 would put all transfers on one. Connections are kept and used again.
//!
//! Modules in reading order: [`settings`] works out what apt's settings say for one URI,
//! [`credentials`] what `auth.conf` says, `client` makes a client of it, `answer` reads the headers
//! of an answer, `local` is for file and copy URIs.

mod answer;
mod client;
pub mod credentials;
mod local;
pub mod settings;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use apt_ostree_actors::StepContext;
use apt_ostree_actors::port::{FetchError, FetchRequest, FetchResponse, Http, PortResult};
use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::header::{CACHE_CONTROL, IF_RANGE, LOCATION, PRAGMA, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::Mutex;

use self::settings::{Environment, Settings};
use super::worker::{self, transport::Transport, transport::TransportRequest};

/// How many redirects are followed, as in apt.
const MOST_REDIRECTS: usize = 10;

/// A client that transfers as apt is configured to.
pub struct HttpClient {
    source: Source,
    transport: RefCell<Rc<Transport>>,
    environment: Environment,
    /// Clients in use, by their settings: mostly one for http and one for https. Only a client's own
    /// transfers share connections.
    clients: Mutex<Vec<(Settings, reqwest::Client)>>,
}

/// Where the settings come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The worker reads apt's configuration.
    Worker,
    /// They are given.
    Given,
}

impl HttpClient {
    /// A client that has the worker read apt's settings, on [`Http::configure`].
    pub fn of_host() -> Self {
        Self::new(Source::Worker, Transport::default(), Environment::of_process())
    }

    /// A client with given settings.
    pub fn with(transport: Transport) -> Self {
        Self::new(Source::Given, transport, Environment::default())
    }

    fn new(source: Source, transport: Transport, environment: Environment) -> Self {
        let transport = RefCell::new(Rc::new(transport));
        Self { source, transport, environment, clients: Mutex::default() }
    }

    async fn client(&self, settings: &Settings) -> Result<reqwest::Client, FetchError> {
        // Held while a client is made, so that sixteen transfers do not make sixteen.
        let mut clients = self.clients.lock().await;
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == settings) {
            return Ok(client.clone());
        }
        let wanted = settings.clone();
        let made = tokio::task::spawn_blocking(move || client::make(&wanted)).await;
        let made = made.map_err(|error| FetchError::Connection(Box::new(error)))?;
        let client =
            made.map_err(|error| FetchError::Unacceptable { reason: format!("{error:#}") })?;
        clients.push((settings.clone(), client.clone()));
        Ok(client)
    }

    /// Asks for one URI, without following where the answer points to.
    async fn ask(&self, url: &Url, request: &FetchRequest) -> Result<Response, FetchError> {
        let transport = Rc::clone(&self.transport.borrow());
        let settings = settings::of(&transport, url, &self.environment);
        let client = self.client(&settings).await?;
        let mut asked = client.get(url.clone());
        if url.username().is_empty()
            && let Some(found) = credentials::find(&transport.credentials, url)
        {
            asked = asked.basic_auth(&found.login, Some(&found.password));
        }
        if settings.no_cache {
            asked = asked.header(CACHE_CONTROL, "no-cache").header(PRAGMA, "no-cache");
        }
        if request.offset > 0 {
            asked = asked.header(RANGE, format!("bytes={}-", request.offset));
            if let Some(validator) = &request.if_range {
                asked = asked.header(IF_RANGE, validator);
            }
        }
        asked.send().await.map_err(connection)
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let mut url = Url::parse(&request.uri).map_err(|error| FetchError::Unacceptable {
            reason: format!("it is no URI: {error}"),
        })?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(&url, request).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return accept(response, request),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = self.follow(&url, &response)?,
                _ => return Err(answer::error(response.status(), response.headers())),
            }
        }
        Err(FetchError::Unacceptable { reason: format!("more than {MOST_REDIRECTS} redirects") })
    }

    /// Where a redirect leads, if apt would go there.
    fn follow(&self, url: &Url, response: &Response) -> Result<Url, FetchError> {
        let transport = Rc::clone(&self.transport.borrow());
        let refuse = |reason: &str| Err(FetchError::Unacceptable { reason: reason.to_owned() });
        if !settings::of(&transport, url, &self.environment).allow_redirect {
            return refuse("a redirect, which apt is configured not to follow");
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        match location.map(|location| target(url, location)) {
            Some(Ok(next)) => Ok(next),
            Some(Err(reason)) => refuse(reason),
            None => refuse("a redirect without a place"),
        }
    }
}

/// Where a redirect from `url` leads; the reason where apt would not go there either.
fn target(url: &Url, location: &str) -> Result<Url, &'static str> {
    let next = url.join(location).map_err(|_| "a redirect without a place")?;
    match (url.scheme(), next.scheme()) {
        ("https", "http") => Err("a redirect from https to http"),
        (_, "http" | "https") => Ok(next),
        _ => Err("a redirect to another scheme"),
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Proxies' URIs may carry passwords.
        formatter.debug_struct("HttpClient").field("source", &self.source).finish_non_exhaustive()
    }
}

#[async_trait(?Send)]
impl Http for HttpClient {
    async fn open(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        match request.uri.split_once(':') {
            Some(("http" | "https", _)) => self.fetch(request).await,
            Some(("file" | "copy", rest)) => local::open(rest, request).await,
            _ => Err(FetchError::ForeignScheme { uri: request.uri.clone() }),
        }
    }

    async fn configure(&self, uris: &[String], context: &StepContext) -> PortResult<()> {
        // Connections of the last transaction are long closed; settings and certificates may be new.
        self.clients.lock().await.clear();
        match self.source {
            Source::Given => Ok(()),
            Source::Worker => {
                let request = TransportRequest { uris: one_for_each_host(uris) };
                let found: Transport = worker::run("transport", &request, context).await?;
                self.transport.replace(Rc::new(found));
                Ok(())
            }
        }
    }
}

/// The first URI of each scheme and host.
fn one_for_each_host(uris: &[String]) -> Vec<String> {
    let mut hosts = BTreeMap::new();
    for uri in uris {
        if let Ok(url) = Url::parse(uri)
            && matches!(url.scheme(), "http" | "https")
        {
            hosts.entry(url.origin().ascii_serialization()).or_insert_with(|| uri.clone());
        }
    }
    hosts.into_values().collect()
}

/// The answer as the port has it.
fn accept(response: Response, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
    let partial = response.status() == StatusCode::PARTIAL_CONTENT;
    let extent = answer::extent(response.headers(), partial, request.offset)?;
    let validator = answer::validator(response.headers());
    let body = response.bytes_stream().map(|chunk| chunk.map_err(connection));
    Ok(FetchResponse {
        offset: extent.offset,
        total_bytes: extent.total_bytes,
        validator,
        body: body.boxed_local(),
    })
}

/// reqwest's error without the URI, which may carry a password.
fn connection(error: reqwest::Error) -> FetchError {
    FetchError::Connection(Box::new(error.without_url()))
}

/// Reads these bytes as the headers of an answer, one `name: value` a line.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.insert(name, value);
        }
    }
    let asked = data.len() as u64;
    for partial in [false, true] {
        if let Ok(extent) = answer::extent(&headers, partial, asked) {
            assert!(extent.offset == if partial { asked } else { 0 });
            assert!(!partial || extent.total_bytes.is_none_or(|total| total > asked));
        }
    }
    drop(answer::validator(&headers));
    drop(answer::error(StatusCode::SERVICE_UNAVAILABLE, &headers));
}
