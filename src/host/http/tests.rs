//! The client against a server in this process that answers by script, and downloads through both.

use std::collections::VecDeque;
use std::time::Duration;

use apt_ostree_actors::Reporter;
use apt_ostree_proto::TransactionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::settings::{Family, Tls};
use super::*;
use crate::host::worker::transport::{Credential, SchemeSettings, TransferSettings};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// What the server sends to one request, literally; then it closes the connection or not.
#[derive(Clone, Debug)]
struct Reply {
    text: String,
    close: bool,
}

fn reply(head: &str, body: &str) -> Reply {
    let length = body.len();
    Reply {
        text: format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}"),
        close: false,
    }
}

/// A server on the loopback device.
struct Server {
    address: std::net::SocketAddr,
    /// Each request's head, with the number of its connection.
    seen: Rc<RefCell<Vec<(usize, String)>>>,
}

impl Server {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let replies = Rc::new(RefCell::new(VecDeque::from(replies)));
        let log = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, replies) = (Rc::clone(&log), Rc::clone(&replies));
                tokio::task::spawn_local(serve(stream, connection, log, replies));
            }
        });
        Self { address, seen }
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|(_, head)| head.to_lowercase()).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    log: Rc<RefCell<Vec<(usize, String)>>>,
    replies: Rc<RefCell<VecDeque<Reply>>>,
) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        log.borrow_mut().push((connection, String::from_utf8(std::mem::take(&mut head)).unwrap()));
        let next = replies.borrow_mut().pop_front();
        let reply = next.unwrap_or_else(|| reply("500 No More Replies", ""));
        stream.write_all(reply.text.as_bytes()).await.unwrap();
        if reply.close {
            return;
        }
    }
}

async fn local<T>(work: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(work).await
}

fn request(uri: String) -> FetchRequest {
    FetchRequest { uri, offset: 0, if_range: None }
}

async fn body(response: FetchResponse) -> Result<String, FetchError> {
    let mut body = response.body;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend(chunk?);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

async fn fetch(client: &HttpClient, uri: String) -> Result<String, FetchError> {
    body(client.open(&request(uri)).await?).await
}

fn plain() -> HttpClient {
    HttpClient::with(Transport::default())
}

#[tokio::test]
async fn a_file_comes_with_its_size_and_validator_and_connections_are_used_again() {
    local(async {
        let head = format!("200 OK\r\nLast-Modified: {DATE}");
        let server = Server::start(vec![reply(&head, "hello"), reply("200 OK", "again")]).await;
        let client = plain();
        let response = client.open(&request(server.uri("/a"))).await.unwrap();
        assert_eq!((response.offset, response.total_bytes), (0, Some(5)));
        assert_eq!(response.validator.as_deref(), Some(DATE));
        assert_eq!(body(response).await.unwrap(), "hello");
        assert_eq!(fetch(&client, server.uri("/b")).await.unwrap(), "again");
        let connections: Vec<_> = server.seen.borrow().iter().map(|(number, _)| *number).collect();
        assert_eq!(connections, [0, 0]);
        assert!(server.heads()[0].contains("user-agent: apt-ostree/"));
    })
    .await;
}

#[tokio::test]
async fn a_part_is_asked_for_with_its_validator_and_a_changed_file_comes_whole() {
    local(async {
        let part = reply("206 Partial Content\r\nContent-Range: bytes 3-4/5", "lo");
        let wrong = reply("206 Partial Content\r\nContent-Range: bytes 2-4/5", "llo");
        let server = Server::start(vec![part, reply("200 OK", "other"), wrong]).await;
        let client = plain();
        let asked =
            FetchRequest { uri: server.uri("/a"), offset: 3, if_range: Some(DATE.to_owned()) };
        let response = client.open(&asked).await.unwrap();
        assert_eq!((response.offset, response.total_bytes), (3, Some(5)));
        assert_eq!(body(response).await.unwrap(), "lo");
        let response = client.open(&asked).await.unwrap();
        assert_eq!((response.offset, response.total_bytes), (0, Some(5)));
        drop(response);
        assert!(matches!(client.open(&asked).await, Err(FetchError::Unacceptable { .. })));
        let head = &server.heads()[0];
        assert!(head.contains("range: bytes=3-\r\n"), "{head}");
        assert!(head.contains(&format!("if-range: {}\r\n", DATE.to_lowercase())), "{head}");
    })
    .await;
}

#[tokio::test]
async fn refusals_overload_and_broken_connections_are_told_apart() {
    local(async {
        let broken = Reply {
            text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhell".to_owned(),
            close: true,
        };
        let replies =
            vec![reply("404 Not Found", "no"), reply("503 Busy\r\nRetry-After: 9", ""), broken];
        let server = Server::start(replies).await;
        let client = plain();
        let error = fetch(&client, server.uri("/a")).await.unwrap_err();
        assert!(matches!(error, FetchError::Refused { status: 404 }), "{error:?}");
        let error = fetch(&client, server.uri("/a")).await.unwrap_err();
        let busy = FetchError::Unavailable { status: 503, retry_after_seconds: Some(9) };
        assert_eq!(format!("{error:?}"), format!("{busy:?}"));
        let error = fetch(&client, server.uri("/a")).await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = fetch(&client, format!("http://user:secret@{closed}/a")).await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
        assert!(!format!("{error:?}").contains("secret"));
    })
    .await;
}

#[tokio::test]
async fn redirects_are_followed_with_credentials_of_their_own_and_never_in_circles() {
    local(async {
        let target = Server::start(vec![reply("200 OK", "here")]).await;
        let head = format!("302 Found\r\nLocation: {}", target.uri("/b"));
        let first = Server::start(vec![reply(&head, "")]).await;
        let credential = |server: &Server, login: &str| Credential {
            machine: format!("http://{}", server.address),
            login: login.to_owned(),
            password: "secret".to_owned(),
        };
        let credentials = vec![credential(&first, "me")];
        let client = HttpClient::with(Transport { credentials, ..Transport::default() });
        assert_eq!(fetch(&client, first.uri("/a")).await.unwrap(), "here");
        assert!(first.heads()[0].contains("authorization: basic "));
        assert!(!target.heads()[0].contains("authorization"));

        let circle = vec![reply("301 Moved\r\nLocation: /a", ""); 20];
        let server = Server::start(circle).await;
        let error = fetch(&plain(), server.uri("/a")).await.unwrap_err();
        assert!(error.to_string().contains("more than 10 redirects"), "{error}");
        assert_eq!(server.heads().len(), 11);

        let general =
            TransferSettings { allow_redirect: Some(false), ..TransferSettings::default() };
        let http = SchemeSettings { general, ..SchemeSettings::default() };
        let client = HttpClient::with(Transport { http, ..Transport::default() });
        let server = Server::start(vec![reply("302 Found\r\nLocation: /b", "")]).await;
        let error = fetch(&client, server.uri("/a")).await.unwrap_err();
        assert!(error.to_string().contains("configured not to follow"), "{error}");
    })
    .await;
}

#[test]
fn a_redirect_never_leads_from_https_to_http_nor_to_another_scheme() {
    for (from, location, expected) in [
        ("https://a/x", "https://b/y", Ok("https://b/y")),
        ("https://a/x", "/y", Ok("https://a/y")),
        ("http://a/x", "https://b/y", Ok("https://b/y")),
        ("https://a/x", "http://a/x", Err("a redirect from https to http")),
        ("http://a/x", "file:///etc/passwd", Err("a redirect to another scheme")),
        ("http://a/x", "ftp://b/", Err("a redirect to another scheme")),
        ("http://a/x", "http://[", Err("a redirect without a place")),
    ] {
        let found = target(&Url::parse(from).unwrap(), location);
        assert_eq!(found.as_ref().map(Url::as_str), expected.as_ref().map(|uri| *uri));
    }
}

#[tokio::test]
async fn credentials_go_over_http_only_where_the_admin_wrote_http() {
    local(async {
        let server = Server::start(vec![reply("200 OK", "a"), reply("200 OK", "b")]).await;
        for (scheme, sent) in [("", false), ("http://", true)] {
            let credential = Credential {
                machine: format!("{scheme}127.0.0.1"),
                login: "me".to_owned(),
                password: "secret".to_owned(),
            };
            let credentials = vec![credential];
            let client = HttpClient::with(Transport { credentials, ..Transport::default() });
            fetch(&client, server.uri("/a")).await.unwrap();
            let head = server.heads().pop().unwrap();
            // me:secret
            assert_eq!(head.contains("authorization: basic bwu6c2vjcmv0"), sent, "{head}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_is_asked_for_hosts_that_are_not_to_be_asked_directly() {
    local(async {
        let proxy = Server::start(vec![reply("200 OK", "by proxy")]).await;
        let direct = Server::start(vec![reply("200 OK", "directly")]).await;
        let to =
            |proxy: String| TransferSettings { proxy: Some(proxy), ..TransferSettings::default() };
        let http = SchemeSettings {
            general: to(format!("http://user:word@{}/", proxy.address)),
            hosts: [("127.0.0.1".to_owned(), to("DIRECT".to_owned()))].into(),
        };
        let client = HttpClient::with(Transport { http, ..Transport::default() });
        assert_eq!(fetch(&client, direct.uri("/a")).await.unwrap(), "directly");
        assert_eq!(fetch(&client, "http://mirror.invalid/a".to_owned()).await.unwrap(), "by proxy");
        let head = proxy.heads().pop().unwrap();
        assert!(head.starts_with("get http://mirror.invalid/a http/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic dxnlcjp3b3jk"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn local_files_are_read_from_where_they_are_and_other_schemes_left_to_apt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b.deb");
    std::fs::write(&path, "hello").unwrap();
    let client = plain();
    let uri = format!("file:{}", path.display()).replace(' ', "%20");
    let response = client.open(&request(uri.clone())).await.unwrap();
    assert_eq!(response.total_bytes, Some(5));
    let if_range = response.validator.clone();
    assert_eq!(body(response).await.unwrap(), "hello");
    let asked = FetchRequest { uri: uri.replace("file:", "copy:"), offset: 3, if_range };
    let response = client.open(&asked).await.unwrap();
    assert_eq!(response.offset, 3);
    assert_eq!(body(response).await.unwrap(), "lo");
    let asked = FetchRequest { if_range: Some(DATE.to_owned()), ..asked };
    assert_eq!(client.open(&asked).await.unwrap().offset, 0);
    assert!(path.exists());
    let directory = format!("file:{}", directory.path().display());
    let error = client.open(&request(directory)).await.unwrap_err();
    assert!(matches!(error, FetchError::Unacceptable { .. }), "{error:?}");
    for uri in ["ftp://a/b", "cdrom:[x]/y", "tor+http://a/b", "mirror:x", "nothing"] {
        let error = client.open(&request(uri.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::ForeignScheme { .. }), "{uri}: {error:?}");
    }
}

#[test]
fn clients_are_made_from_every_setting_and_refuse_what_cannot_be_read() {
    let tls = Tls {
        verify_peer: false,
        verify_host: false,
        ca_info: None,
        client_certificate: None,
        client_key: None,
        revocation_list: None,
    };
    let settings = Settings {
        proxy: Some("socks5h://127.0.0.1:9050".to_owned()),
        timeout: Duration::from_secs(1),
        user_agent: "x".to_owned(),
        no_cache: true,
        allow_redirect: true,
        family: Some(Family::V4),
        tls: Some(tls.clone()),
    };
    client::make(&settings).unwrap();
    let missing = Some("/nonexistent/ca.pem".to_owned());
    let with = |tls| Settings { tls: Some(tls), ..settings.clone() };
    for settings in [
        with(Tls { ca_info: missing.clone(), ..tls.clone() }),
        with(Tls { client_certificate: missing.clone(), ..tls.clone() }),
        with(Tls { revocation_list: missing, ..tls }),
        Settings { proxy: Some("http://[".to_owned()), ..settings.clone() },
    ] {
        assert!(client::make(&settings).is_err(), "{settings:?}");
    }
}

#[tokio::test]
async fn settings_are_asked_once_for_each_host_and_given_ones_are_kept() {
    let uris = ["http://a/1", "http://a/2", "https://a/1", "http://a:81/1", "file:/x", "?"];
    let uris = uris.map(ToOwned::to_owned);
    assert_eq!(one_for_each_host(&uris), ["http://a/1", "http://a:81/1", "https://a/1"]);
    let context = StepContext {
        transaction: TransactionId(1),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    };
    plain().configure(&uris, &context).await.unwrap();
}
